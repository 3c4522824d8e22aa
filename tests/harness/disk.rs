//! A small file system of its own for a data directory, so that it can be full or hang without harm to anything else: an
//! image file, mounted by loop. Needs root.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::{postmaster, proc};

pub struct Disk {
    image: PathBuf,
    pub mount: PathBuf,
}

impl Disk {
    /// Makes and mounts one of so many MiB; the image lies beside the mount point.
    pub fn new(mount: &Path, mebibytes: u64) -> Disk {
        let image = mount.with_extension("img");
        fs::create_dir_all(mount).expect("the mount point");
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("the image file");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(mount));
        // A keeper wants its directory empty.
        fs::remove_dir(mount.join("lost+found")).expect("an empty folder");
        Disk { image, mount: mount.to_owned() }
    }

    /// Every write, and every fsync, hangs from now on.
    pub fn freeze(&self) {
        run(Command::new("fsfreeze").arg("-f").arg(&self.mount));
    }

    /// Every write waits for so long.
    pub async fn stall(&self, span: Duration) {
        /// Released whatever happens meanwhile: a disk that stays frozen can't even be unmounted.
        struct Frozen<'d>(&'d Disk);
        impl Drop for Frozen<'_> {
            fn drop(&mut self) {
                thaw(&self.0.mount);
            }
        }
        let frozen = Frozen(self);
        self.freeze();
        tokio::time::sleep(span).await;
        drop(frozen);
    }

    /// Fills it to the last block.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast()).expect("the ballast's file");
        let space = statvfs(&self.mount).expect("the file system's figures");
        let free = space.f_bavail * space.f_frsize;
        // What the big piece leaves over goes to small ones.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, free.saturating_sub(1 << 20));
        let block = vec![0; 1 << 16];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..512]).is_ok() {}
    }

    /// Neither full nor hanging any more; nothing is said when it was neither.
    pub fn mend(&self) {
        thaw(&self.mount);
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.mend();
        // Once it is unmounted, nobody finds by their folder those who work there, nor what their servers leave.
        proc::kill_within(&self.mount);
        postmaster::release(&self.mount);
        unmount(&self.mount);
        let _ = fs::remove_file(&self.image);
    }
}

/// A folder whose mounts come and go in all mount namespaces at once. `ip netns exec` gives every process a copy of all
/// mounts, also of those of other tests, and a copy would keep a disk alive that was unmounted here.
pub struct Rack {
    folder: PathBuf,
}

impl Rack {
    pub fn new(folder: &Path) -> Rack {
        run(Command::new("mount").arg("--bind").arg(folder).arg(folder));
        let rack = Rack { folder: folder.to_owned() };
        run(Command::new("mount").arg("--make-shared").arg(folder));
        rack
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Lets go what hangs below a folder: a process that writes there can't be killed before.
pub fn thaw_below(folder: &Path) {
    mounts_below(folder).iter().for_each(|mount| thaw(mount));
}

/// Unmounts everything below a folder, for a test process that was killed before it could.
pub fn sweep(folder: &Path) {
    // What was mounted last lies in what was mounted before.
    for mount in mounts_below(folder).into_iter().rev() {
        unmount(&mount);
        let _ = fs::remove_file(mount.with_extension("img"));
    }
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

fn thaw(mount: &Path) {
    let _ = Command::new("fsfreeze").arg("-u").arg(mount).stderr(Stdio::null()).status();
}

fn unmount(mount: &Path) {
    // Lazily: a process that is just dying may still be in there.
    let _ = Command::new("umount").arg("-l").arg(mount).status();
}

fn run(command: &mut Command) {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
