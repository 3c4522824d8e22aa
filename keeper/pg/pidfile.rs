//! postmaster.pid, where a server says how far it has come, and waiting for files to change without polling.

use std::{os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::{
    PgError, files,
    proc::{POSTGRES, Stat, watch_fd},
};

/// The last line of postmaster.pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PmStatus {
    Starting,
    Stopping,
    /// Accepts connections: a primary, or a standby in hot standby. (`hot_standby` is always on; see `Standby`.)
    Ready,
    /// In recovery without accepting connections.
    Standby,
}

impl PmStatus {
    fn parse(text: &str) -> Option<PmStatus> {
        Some(match text.trim() {
            "starting" => PmStatus::Starting,
            "stopping" => PmStatus::Stopping,
            "ready" => PmStatus::Ready,
            "standby" => PmStatus::Standby,
            _ => return None,
        })
    }
}

/// What postmaster.pid holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub pid: u32,
    pub status: Option<PmStatus>,
}

impl PidFile {
    pub fn read(data: &Path) -> Option<PidFile> {
        PidFile::parse(&std::fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    /// Removes a lock file of a run that is over (postmaster.pid, or the socket's) if a stranger has its process id now (in
    /// a container that is started again, one soon does), or if its process is dead and nobody has waited for it yet:
    /// PostgreSQL asks only whether some process has that id, and would refuse to start. To be called as PostgreSQL's user,
    /// and only when it is known that nothing runs on the data.
    pub fn remove_misleading(lock: &Path) -> Result<(), PgError> {
        let text = std::fs::read_to_string(lock).unwrap_or_default();
        let holder = PidFile::parse(&text).and_then(|file| Stat::read(file.pid));
        if holder.is_some_and(|stat| stat.dead || stat.name != POSTGRES) {
            files::remove(lock).map_err(PgError::io("remove", lock))?;
        }
        Ok(())
    }

    fn parse(text: &str) -> Option<PidFile> {
        const STATUS_LINE: usize = 7;
        let mut lines = text.lines();
        // The id of a server for single users is written with a minus sign.
        let pid: i64 = lines.next()?.trim().parse().ok()?;
        let status = lines.nth(STATUS_LINE - 1).and_then(PmStatus::parse);
        Some(PidFile { pid: u32::try_from(pid).ok()?, status })
    }
}

/// Tells when something in given folders changed.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub fn on(folders: &[&Path]) -> Result<Watch, PgError> {
        let descriptor =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(PgError::system("inotify"))?;
        let events = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        for folder in folders {
            inotify::add_watch(&descriptor, *folder, events)
                .map_err(|errno| PgError::io("watch", folder)(errno.into()))?;
        }
        Ok(Watch(watch_fd(descriptor).map_err(PgError::io("watch", folders.first().unwrap_or(&Path::new("/"))))?))
    }

    /// Returns once something has changed since the watch was made or this returned last.
    pub async fn changed(&self) {
        let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok_and(|length| length > 0) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_eighth_line() {
        let text = "3142\n/d/postgres\n1700000000\n5432\n/tmp\n127.0.0.1\n  1234 5\nready   \n";
        assert_eq!(PidFile::parse(text), Some(PidFile { pid: 3142, status: Some(PmStatus::Ready) }));
        assert_eq!(PidFile::parse("3142\n/d\n"), Some(PidFile { pid: 3142, status: None }));
        assert_eq!(PidFile::parse("-3142\n/d\n"), None);
    }

    #[test]
    fn a_lock_of_a_process_that_is_dead_or_no_postgres_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("lock");
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        let began = std::time::Instant::now();
        while Stat::read(dead.id()).is_some_and(|stat| !stat.dead) {
            assert!(began.elapsed().as_secs() < 5, "`true` ends");
            std::thread::yield_now();
        }
        for pid in [dead.id(), std::process::id()] {
            std::fs::write(&lock, format!("{pid}\n/d\n")).unwrap();
            PidFile::remove_misleading(&lock).unwrap();
            assert!(!lock.exists(), "{pid}");
        }
        dead.wait().unwrap();
        std::fs::write(&lock, format!("{}\n/d\n", dead.id())).unwrap();
        PidFile::remove_misleading(&lock).unwrap();
        assert!(lock.exists(), "PostgreSQL sees by itself that nobody has this id");
    }

    #[tokio::test]
    async fn a_change_wakes_the_watch() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::on(&[folder.path()]).unwrap();
        std::fs::write(folder.path().join("x"), "1").unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap();
    }
}
