//! A small file system of a test's own, on a loop device: it can be frozen and filled. Needs root.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{proc, runner::report, wait};

pub struct Volume {
    pub at: PathBuf,
}

/// Room for a small database and its WAL.
const SIZE: u64 = 512 << 20;

impl Volume {
    /// Mounts an ext4 made for it at `at`. `None`, said aloud, where that is not possible.
    pub fn mount(test: &str, at: &Path) -> Option<Volume> {
        if !rustix::process::geteuid().is_root() {
            report(&format!("SKIPPED {test}: mounting a file system needs root"));
            return None;
        }
        fs::create_dir_all(at).expect("the folder to mount at");
        let image = at.with_extension("img");
        let file = fs::File::create(&image).expect("the image's file");
        file.set_len(SIZE).expect("the image's size");
        let (from, to) = (image.display().to_string(), at.display().to_string());
        // Nothing kept for root, whose files fill it.
        call("mkfs.ext4", &["-q", "-m", "0", &from]).expect("mkfs.ext4 (Debian: e2fsprogs)");
        if let Err(problem) = call("mount", &["-o", "loop", &from, &to]) {
            report(&format!("SKIPPED {test}: {problem}"));
            return None;
        }
        fs::remove_dir(at.join("lost+found")).expect("an empty folder");
        Some(Volume { at: at.to_owned() })
    }

    /// Whoever writes there hangs from now on.
    pub fn freeze(&self) {
        call("fsfreeze", &["-f", &self.at.display().to_string()]).expect("fsfreeze (Debian: util-linux)");
    }

    pub fn thaw(&self) {
        let _ = call("fsfreeze", &["-u", &self.at.display().to_string()]);
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).expect("a file to fill with");
        for size in [1 << 20, 4 << 10] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        let _ = file.sync_all();
    }

    /// Gives it back.
    pub fn release(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.thaw();
        proc::kill_within(&self.at);
        let at = self.at.display().to_string();
        let bound = Duration::from_secs(5);
        let began = std::time::Instant::now();
        while call("umount", &[&at]).is_err() {
            if began.elapsed() > bound {
                let _ = call("umount", &["--lazy", &at]);
                return;
            }
            std::thread::sleep(wait::PAUSE);
        }
    }
}

fn call(program: &str, args: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()))
}
