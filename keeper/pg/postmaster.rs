//! The server process: started as a direct child, or adopted from a former keeper; its end is known by a pidfd, its
//! progress by postmaster.pid. Dropping a `Postmaster` leaves the server alone.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::{io::unix::AsyncFd, time::timeout};

use super::{
    DataState, Instance, Killed, PgError, PmStatus, ProcessId, conf, control,
    kill::kill_postgres,
    pidfile::{PidFile, Watch},
    proc::{Folder, Stat, raw, watch_fd},
    program::neutral,
    runas::as_user,
};

/// A cheap handle of one run of the server.
#[derive(Clone, Debug)]
pub struct Postmaster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Instance,
    id: ProcessId,
    exit: AsyncFd<OwnedFd>,
    /// How it ended, in words; only of a child.
    ended: OnceLock<String>,
}

/// That the postmaster is gone. (Its sessions may outlive it by moments: `kill_all` before anything touches the data.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub id: ProcessId,
}

impl Postmaster {
    /// Starts the server; it isn't ready yet (`wait_status`). Refuses an incomplete directory and one in use; what a dead
    /// postmaster left behind is killed first. The server is a process group of its own, so that a terminal's signals don't
    /// reach it, and logs to the keeper's standard error. To be called within the runtime.
    pub fn spawn(instance: &Instance) -> Result<Postmaster, PgError> {
        Postmaster::spawn_with(instance, &[])
    }

    /// As `spawn`, with settings that overrule the files (`name=value`).
    pub(super) fn spawn_with(instance: &Instance, overruling: &[&str]) -> Result<Postmaster, PgError> {
        startable(instance)?;
        clear_the_way(instance)?;
        let mut command = Command::new(instance.binaries().path("postgres"));
        neutral(&mut command, instance.run_as());
        command.arg("-D").arg(instance.data_dir()).current_dir("/").stdin(Stdio::null()).process_group(0);
        for setting in raised(instance)?.iter().map(String::as_str).chain(overruling.iter().copied()) {
            command.args(["-c", setting]);
        }
        let failed = |problem: String| PgError::Program { program: "postgres", problem };
        let child = as_user(instance.run_as(), || command.spawn())
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let lost = || failed("it ended at once".to_owned());
        // Not reaped yet, so the id is still its own, even if it has ended.
        let exit = pidfd_open(raw(child.id()).ok_or_else(lost)?, PidfdFlags::NONBLOCK)
            .map_err(PgError::system("pidfd_open"))?;
        let id = Stat::read(child.id()).map(|stat| ProcessId { pid: child.id(), started: stat.started });
        Postmaster::new(instance, id.ok_or_else(lost)?, exit)
    }

    /// Finds the server that runs on this data directory, whoever started it. `None` when there is none: postmaster.pid
    /// may be left over, its id reused by a stranger.
    pub fn adopt(instance: &Instance) -> Result<Option<Postmaster>, PgError> {
        let data = instance.data_dir();
        let Some(file) = PidFile::read(&data) else { return Ok(None) };
        let (Some(pid), Some(id)) = (raw(file.pid), ProcessId::of(file.pid)) else { return Ok(None) };
        let Ok(exit) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return Ok(None) };
        let own = || id.lives() && Folder::at(&data).is_some_and(|folder| Folder::of_process(id.pid) == Some(folder));
        let works_here =
            as_user(instance.run_as(), own).map_err(PgError::system("act as the OS user of PostgreSQL"))?;
        if works_here { Postmaster::new(instance, id, exit).map(Some) } else { Ok(None) }
    }

    fn new(instance: &Instance, id: ProcessId, exit: OwnedFd) -> Result<Postmaster, PgError> {
        let exit = watch_fd(exit).map_err(PgError::io("watch the postmaster of", &instance.data_dir()))?;
        Ok(Postmaster(Arc::new(Inner { instance: instance.clone(), id, exit, ended: OnceLock::new() })))
    }

    pub fn id(&self) -> ProcessId {
        self.0.id
    }

    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.0.instance.data_dir()
    }

    /// Returns when the postmaster has ended; any number of tasks may wait. A child is reaped.
    pub async fn exited(&self) -> Exit {
        // The descriptor stays readable for ever once the process is dead.
        let _ready = self.0.exit.readable().await;
        self.reap();
        Exit { id: self.0.id }
    }

    pub fn has_exited(&self) -> bool {
        self.reap();
        !self.0.id.lives()
    }

    /// No effect on an adopted one, or one that was reaped.
    fn reap(&self) {
        let child = WaitId::PidFd(self.0.exit.get_ref().as_fd());
        if let Ok(Some(status)) = waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            let words = match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => format!("killed by signal {signal}"),
                (_, Some(code)) => format!("exit code {code}"),
                _ => return,
            };
            let _ = self.0.ended.set(words);
        }
    }

    /// How it ended, for people: its exit code or the signal. An adopted server's parent alone gets to know.
    pub fn ending(&self) -> &str {
        self.0.ended.get().map_or("not known: this keeper did not start it", String::as_str)
    }

    /// What postmaster.pid says of this run; `None` before it says anything, and after the end.
    pub fn status(&self) -> Option<PmStatus> {
        self.pid_file()?.status
    }

    /// Waits until the status is one of `wanted`; ends with `Exited` when the server does. No bound of its own.
    pub async fn wait_status(&self, wanted: &[PmStatus]) -> Result<PmStatus, PgError> {
        self.wait_pid_file(|file| file.status.filter(|status| wanted.contains(status))).await
    }

    async fn wait_pid_file<T>(&self, read: impl Fn(PidFile) -> Option<T>) -> Result<T, PgError> {
        let own = || self.pid_file().and_then(&read);
        if let Some(found) = own() {
            return Ok(found);
        }
        let watch = Watch::on(&[&self.data_dir()])?;
        loop {
            if let Some(found) = own() {
                return Ok(found);
            }
            tokio::select! {
                () = watch.changed() => {}
                _ = self.exited() => return Err(PgError::Exited("it was starting; its log says why".to_owned())),
            }
        }
    }

    fn pid_file(&self) -> Option<PidFile> {
        PidFile::read(&self.data_dir()).filter(|file| file.pid == self.0.id.pid)
    }

    /// Makes the server read its settings again (SIGHUP); one that is only starting is first given the milliseconds until
    /// it has its pid file: before, the signal would end it.
    pub async fn reload(&self) -> Result<(), PgError> {
        self.wait_pid_file(Some).await?;
        self.signal(Signal::HUP)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), PgError> {
        pidfd_send_signal(self.0.exit.get_ref(), signal)
            .map_err(|_| PgError::Exited("it was being signalled".to_owned()))
    }

    /// R4: SIGKILL to all of it; returns when all is dead. Blocks for a few milliseconds, needs nothing.
    pub fn kill_now(&self) -> Killed {
        let Inner { instance, id, .. } = &*self.0;
        let killed = kill_postgres(&instance.data_dir(), Some(*id), instance.run_as());
        self.reap();
        killed
    }

    /// `kill_now` without blocking the caller's thread. Begun, it goes through even when dropped.
    pub async fn kill_all(&self) -> Killed {
        let this = self.clone();
        let (done, result) = tokio::sync::oneshot::channel();
        // A thread of its own: the runtime's blocking pool may be full of work that hangs on the same disk.
        let thread = std::thread::Builder::new().name("kill-postgres".into()).spawn(move || {
            let _ = done.send(this.kill_now());
        });
        match thread {
            Ok(_) => match result.await {
                Ok(killed) => killed,
                Err(_) => self.kill_now(),
            },
            Err(_) => self.kill_now(),
        }
    }

    /// Fast stop before a handover. When the shutdown checkpoint is written the end of WAL stands; standbys that have not
    /// fetched it within `grace` are waited for no longer, as a frozen one would keep the server for `wal_sender_timeout`.
    /// After `deadline`, `kill_all`. All of it is gone when this returns; `Instance::shut_down_at` tells how it ended.
    pub async fn stop_for_handover(&self, deadline: Duration, grace: Duration) {
        let stopped = async {
            let watch = Watch::on(&[&self.data_dir().join("global")])?;
            self.signal(Signal::INT)?;
            while control::shut_down_at(&self.data_dir()).is_none() {
                tokio::select! {
                    () = watch.changed() => {}
                    _ = self.exited() => return Ok(()),
                }
            }
            let _late = timeout(grace, self.exited()).await;
            Ok::<(), PgError>(())
        };
        let _late = timeout(deadline, stopped).await;
        if !self.has_exited() || self.data_dir().join("postmaster.pid").exists() {
            self.kill_all().await;
        }
    }

    /// Fast stop (SIGINT): sessions end, a shutdown checkpoint is written. After `deadline`, `kill_all`. Returns true when
    /// the server ended by itself. All of it is gone when this returns.
    pub async fn fast_stop(&self, deadline: Duration) -> bool {
        let ended = self.signal(Signal::INT).is_err() || timeout(deadline, self.exited()).await.is_ok();
        // It removes its pid file in the end; one that is there tells of sessions that may have outlived it.
        if !ended || self.data_dir().join("postmaster.pid").exists() {
            self.kill_all().await;
        }
        ended
    }
}

fn startable(instance: &Instance) -> Result<(), PgError> {
    let data = instance.data_dir();
    match instance.data_state() {
        DataState::Absent => Err(PgError::Refused(format!("{}: no database", data.display()))),
        DataState::Incomplete => {
            let why = "its rewind was not finished; it must be copied anew";
            Err(PgError::Refused(format!("{}: {why}", data.display())))
        }
        DataState::Primary | DataState::Standby => match Postmaster::adopt(instance)? {
            Some(running) => {
                let pid = running.id().pid;
                Err(PgError::Refused(format!("{}: postgres runs already (pid {pid})", data.display())))
            }
            None => Ok(()),
        },
    }
}

/// A standby with smaller settings than its WAL was written with does not start: a smaller value waits until it is primary.
fn raised(instance: &Instance) -> Result<Vec<String>, PgError> {
    if !instance.is_standby() {
        return Ok(Vec::new());
    }
    let least = control::least_settings(instance)?;
    let configured = conf::numbers(&instance.data_dir())?;
    let too_small = least.iter().filter(|(name, least)| configured.get(*name).is_some_and(|value| value < least));
    Ok(too_small.map(|(name, least)| format!("{name}={least}")).collect())
}

/// Sessions of a postmaster that was killed alone finish their query first, and PostgreSQL refuses to start beside them.
fn clear_the_way(instance: &Instance) -> Result<(), PgError> {
    let data = instance.data_dir();
    let locks = [data.join("postmaster.pid"), instance.socket_lock()];
    if locks.iter().any(|lock| lock.exists()) {
        kill_postgres(&data, None, instance.run_as());
        instance.as_owner(|| locks.iter().try_for_each(|lock| PidFile::remove_misleading(lock)))?;
    }
    Ok(())
}
