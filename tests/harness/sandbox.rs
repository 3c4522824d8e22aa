//! One folder per test for data and logs. When the test ends, everything that still works in it is killed, and what killed
//! servers left in the kernel goes; the folder stays only after a failure, and is named then, with the ends of its logs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Once,
};

use crate::{postmaster, proc, process::tail};

pub struct Sandbox {
    pub folder: PathBuf,
}

fn root() -> PathBuf {
    std::env::temp_dir().join("stolon-e2e")
}

impl Sandbox {
    pub fn new(test: &str) -> Sandbox {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let folder = root().join(std::process::id().to_string()).join(test);
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        // PostgreSQL's own user must get through.
        for path in folder.ancestors().take(3) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions of the test's folder");
        }
        Sandbox { folder }
    }

    /// A folder in it.
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        proc::kill_within(&self.folder);
        postmaster::release(&self.folder);
        if std::thread::panicking() {
            eprintln!("logs and data are kept in {}", self.folder.display());
            logs(&self.folder).iter().for_each(|log| print_end(log));
        } else {
            let _ = fs::remove_dir_all(&self.folder);
            // Fails while another test has a folder there.
            let _ = self.folder.parent().map(fs::remove_dir);
        }
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    found.sort();
    found
}

fn print_end(log: &Path) {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    eprintln!("--- end of {}\n{}", log.display(), tail(&text, 12));
}

/// Kills what test processes that were killed themselves left running.
fn sweep() {
    for entry in fs::read_dir(root()).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if owner.is_some_and(|pid| pid != std::process::id() && !proc::alive(pid)) {
            crate::disk::thaw_below(&entry.path());
            proc::kill_within(&entry.path());
            postmaster::release(&entry.path());
            crate::disk::sweep(&entry.path());
        }
    }
}
