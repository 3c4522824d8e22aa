//! A disk of its own for each host's data, a file on a loop device, so that it can be stalled: writes to it wait, as on a
//! device that has hung, and go on when it is released. Needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stolon_tests::proc;

const SIZE: u64 = 2 << 30;

/// Mounted disks; taken away when dropped, with whatever still works on them.
#[derive(Default)]
pub struct Disks {
    mounts: Vec<PathBuf>,
    images: Vec<PathBuf>,
}

impl Disks {
    /// Mounts an empty disk at each of these folders, which are made.
    pub fn at(mounts: Vec<PathBuf>) -> Disks {
        sweep();
        let mut disks = Disks::default();
        for mount in mounts {
            fs::create_dir_all(&mount).unwrap_or_else(|e| panic!("{}: {e}", mount.display()));
            let image = mount.with_extension("img");
            let made = fs::File::create(&image).and_then(|file| file.set_len(SIZE));
            made.unwrap_or_else(|e| panic!("{}: {e}", image.display()));
            run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&image)]);
            run("mount", &["-o", "loop", &text(&image), &text(&mount)]);
            // What mkfs leaves there is no part of an empty folder.
            let _ = fs::remove_dir(mount.join("lost+found"));
            disks.images.push(image);
            disks.mounts.push(mount);
        }
        disks
    }

    /// Every write to the disk waits for so long.
    pub async fn stall(&self, index: usize, span: Duration) {
        let frozen = Frozen::new(&self.mounts[index]);
        tokio::time::sleep(span).await;
        drop(frozen);
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for (mount, image) in self.mounts.iter().zip(&self.images) {
            proc::kill_within(mount);
            let _ = Command::new("umount").args(["--lazy", &text(mount)]).status();
            let _ = fs::remove_file(image);
        }
    }
}

/// Released when dropped, whatever happens meanwhile: a disk that stays stalled can't even be unmounted.
struct Frozen<'m>(&'m Path);

impl Frozen<'_> {
    fn new(mount: &Path) -> Frozen<'_> {
        run("fsfreeze", &["--freeze", &text(mount)]);
        Frozen(mount)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze", &text(self.0)]);
    }
}

/// Takes disks away that a run left behind which was killed itself: theirs are named by its process.
fn sweep() {
    let root = std::env::temp_dir().join("stolon-e2e");
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let owner =
            Path::new(mount).strip_prefix(&root).ok().and_then(|path| path.iter().next()?.to_str()?.parse().ok());
        if owner.is_some_and(|pid: u32| !proc::alive(pid)) {
            let _ = Command::new("fsfreeze").args(["--unfreeze", mount]).output();
            proc::kill_within(Path::new(mount));
            let _ = Command::new("umount").args(["--lazy", mount]).status();
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {}: {}", args.join(" "), said.trim());
}
