//! The end of a server, now (R4): SIGKILL to the postmaster and to every process that works in its data directory. Needs no
//! runtime, no lock and no cooperation, so that a guard process can use it as well.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{
    Instance, RunAs,
    proc::{self, Folder, ProcessId, Stat, raw},
    runas::as_user,
};

/// How a kill went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Killed {
    pub processes: usize,
    pub took: Duration,
    /// Some process was still there at the end of the bound (in an uninterruptible write, say): it dies as soon as the
    /// kernel lets it, and can do nothing before.
    pub lingering: usize,
}

/// A process that refuses to vanish is waited for this long in all.
const BOUND: Duration = Duration::from_secs(2);

/// Kills the server that runs on `data_dir`, whoever started it: first the postmaster is stopped, so that it forks no more;
/// then every process with that working directory (sessions are process groups of their own) but a person's shell, and the
/// postmaster's children, again until none is found; then the postmaster. Takes a few milliseconds; blocks.
pub fn kill_postgres(data_dir: &Path, postmaster: Option<ProcessId>, run_as: Option<&RunAs>) -> Killed {
    // As the server's own user: root without CAP_SYS_PTRACE (a container) can't see where a process works.
    as_user(run_as, || Killer::new(data_dir, postmaster).run())
        .unwrap_or_else(|_| Killer::new(data_dir, postmaster).run())
}

impl Instance {
    /// Kills what works in the data directory without a postmaster that is known. Blocks, as `kill_postgres`.
    pub fn kill_leftovers(&self) -> Killed {
        kill_postgres(&self.data_dir(), None, self.run_as())
    }
}

struct Killer {
    began: Instant,
    folder: Option<Folder>,
    postmaster: Option<(ProcessId, OwnedFd)>,
    victims: BTreeMap<u32, OwnedFd>,
    count: usize,
}

impl Killer {
    fn new(data_dir: &Path, postmaster: Option<ProcessId>) -> Killer {
        let postmaster = postmaster.and_then(|id| open(id.pid).filter(|_| id.lives()).map(|fd| (id, fd)));
        let folder = Folder::at(data_dir);
        Killer { began: Instant::now(), folder, postmaster, victims: BTreeMap::new(), count: 0 }
    }

    fn run(mut self) -> Killed {
        self.signal_postmaster(Signal::STOP);
        while self.began.elapsed() < BOUND && self.strike() {
            self.wait_for_victims();
        }
        self.signal_postmaster(Signal::KILL);
        if let Some((id, fd)) = self.postmaster.take() {
            self.victims.insert(id.pid, fd);
            self.count += 1;
        }
        self.wait_for_victims();
        // Without the postmaster's id, or if it was no longer there: what its end left behind.
        while self.began.elapsed() < BOUND && self.strike() {
            self.wait_for_victims();
        }
        Killed { processes: self.count, took: self.began.elapsed(), lingering: self.victims.len() }
    }

    fn signal_postmaster(&self, signal: Signal) {
        if let Some((_, fd)) = &self.postmaster {
            let _ = pidfd_send_signal(fd, signal);
        }
    }

    /// Kills everything that is found now. Returns false when nothing was.
    fn strike(&mut self) -> bool {
        let postmaster = self.postmaster.as_ref().map(|(id, _)| id.pid);
        let children = postmaster.map(proc::children).unwrap_or_default();
        let me = std::process::id();
        let mut found = false;
        for pid in proc::all().filter(|pid| *pid != me && Some(*pid) != postmaster) {
            let is_victim =
                || children.contains(&pid) || self.folder.is_some() && Folder::of_process(pid) == self.folder;
            if !is_victim() || Stat::read(pid).is_none_or(|stat| stat.dead || stat.is_persons()) {
                continue;
            }
            found = true;
            // Opened first and looked at again, so that a reused id is never hit.
            let Some(fd) = open(pid).filter(|_| is_victim()) else { continue };
            if pidfd_send_signal(&fd, Signal::KILL).is_ok() && self.victims.insert(pid, fd).is_none() {
                self.count += 1;
            }
        }
        found
    }

    /// Waits until every victim is dead, within the bound.
    fn wait_for_victims(&mut self) {
        while !self.victims.is_empty() {
            let Some(left) = BOUND.checked_sub(self.began.elapsed()) else { return };
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut fds: Vec<_> =
                self.victims.values().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
            if poll(&mut fds, Some(&timeout)).is_err() {
                return;
            }
            let dead: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            let mut dead = dead.into_iter();
            self.victims.retain(|_, _| !dead.next().unwrap_or(false));
        }
    }
}

fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(raw(pid)?, PidfdFlags::empty()).ok()
}
