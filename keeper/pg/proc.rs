//! What /proc tells about processes. A process is named by its id and start time together, so that a reused id is never
//! taken for it.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// A process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub started: u64,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none, or only its remains (a zombie).
    pub fn of(pid: u32) -> Option<ProcessId> {
        let stat = Stat::read(pid)?;
        (!stat.dead).then_some(ProcessId { pid, started: stat.started })
    }

    /// True while this very process runs.
    pub fn lives(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }
}

pub(super) fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Postmaster and sessions alike.
pub(super) const POSTGRES: &str = "postgres";

/// The fields of `/proc/<pid>/stat` that matter here.
pub(super) struct Stat {
    /// The program's file name, cut to 15 bytes.
    pub name: String,
    pub dead: bool,
    /// It hangs on a terminal.
    pub terminal: bool,
    pub started: u64,
}

impl Stat {
    pub fn read(pid: u32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Stat> {
        // The command name in parentheses may hold anything, also parentheses.
        let (name, fields) = text.rsplit_once(')')?;
        let (_, name) = name.split_once('(')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        let terminal = fields.nth(3)? != "0";
        let started = fields.nth(14)?.parse().ok()?;
        Some(Stat { name: name.to_owned(), dead: matches!(state, "Z" | "X"), terminal, started })
    }

    /// Of a server, or of a person: somebody may be looking around in the data directory.
    pub fn is_persons(&self) -> bool {
        self.terminal && self.name != POSTGRES
    }
}

/// A folder, whatever path leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    device: u64,
    inode: u64,
}

impl Folder {
    pub fn at(path: &Path) -> Option<Folder> {
        let found = fs::metadata(path).ok()?;
        Some(Folder { device: found.dev(), inode: found.ino() })
    }

    /// The working directory of a process; `None` for a zombie and for a process of somebody else.
    pub fn of_process(pid: u32) -> Option<Folder> {
        Folder::at(Path::new(&format!("/proc/{pid}/cwd")))
    }
}

/// Ids of all processes.
pub(super) fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Ids of the children of a process; empty when the kernel does not say.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Registers a descriptor with the runtime. `AsyncFd::new` is deprecated for types whose descriptor may change or close
/// under it; `OwnedFd` is none of them, and the newer function is unsafe.
#[expect(deprecated)]
pub(super) fn watch_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// How often a process went to sleep of its own accord.
pub(super) fn sleeps(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = Stat::parse("7 (a) b) S 3 7 7 0 -1 1 0 0 0 0 0 0 0 0 20 0 1 0 4242 9 9").unwrap();
        assert_eq!((stat.name.as_str(), stat.dead, stat.terminal, stat.started), ("a) b", false, false, 4242));
        let stat = Stat::parse("7 (bash) Z 3 7 7 34816 -1 1 0 0 0 0 0 0 0 0 20 0 1 0 4242 9 9").unwrap();
        assert!(stat.dead && stat.is_persons());
    }

    #[test]
    fn this_process_lives_and_one_that_started_at_another_time_does_not() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.lives());
        assert!(!ProcessId { started: me.started + 1, ..me }.lives());
    }
}
