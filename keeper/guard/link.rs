//! The keeper's end of the line to its guard: to one that a former keeper left, or to a new one.

use std::{
    ffi::OsString,
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Command,
    time::timeout,
};

use super::{
    ARGUMENT, SOCKET,
    core::{Armed, Order},
    frame::{self, Answer, LENGTH},
};

/// A guard answers within microseconds. One that takes this long is frozen or starved, and replaced well before the
/// deadline that it holds.
const ANSWER: Duration = Duration::from_secs(1);
/// For a new process.
const START: Duration = Duration::from_secs(5);

/// How a guard is started: this program again.
#[derive(Clone, Debug)]
pub struct Program {
    pub exe: PathBuf,
    /// What stands before the guard's own arguments.
    pub before: Vec<OsString>,
}

impl Program {
    /// Also when the file was replaced meanwhile, as for an upgrade.
    pub fn own() -> Program {
        let exe = std::env::current_exe().ok().filter(|path| path.exists());
        Program { exe: exe.unwrap_or_else(|| "/proc/self/exe".into()), before: Vec::new() }
    }
}

/// A guard that a former keeper left.
#[derive(Debug)]
pub struct Found {
    pub(super) link: Link,
    /// As it said when it was found.
    pub armed: Option<Armed>,
}

#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    pub pid: u32,
    process: OwnedFd,
}

impl Found {
    /// Looks for a guard on a keeper's directory. One that doesn't answer is killed: frozen, it would wake up to end a
    /// server by a deadline that has moved since.
    pub async fn look(dir: &Path) -> Option<Found> {
        let stream = connect(dir)?;
        let peer = stream.peer_cred().ok().filter(|peer| peer.uid() == geteuid().as_raw())?;
        let pid = Pid::from_raw(peer.pid()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let mut link = Link { stream, pid: pid.as_raw_nonzero().get().unsigned_abs(), process };
        match link.tell(Order::Ask).await {
            Ok(answer) => Some(Found { link, armed: answer.armed }),
            Err(problem) => {
                tracing::warn!(pid = link.pid, "the former keeper's guard is of no use and is killed: {problem}");
                link.kill();
                None
            }
        }
    }
}

/// Through the open folder, because a socket's path is short.
fn connect(dir: &Path) -> Option<UnixStream> {
    let folder = File::open(dir).ok()?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}

impl Link {
    /// Starts a guard and returns when it watches. `user`: whom PostgreSQL runs as, if not as the keeper.
    pub async fn start(program: &Program, dir: &Path, user: Option<&str>) -> Result<Link, String> {
        let (stream, theirs) = UnixStream::pair().map_err(|error| format!("no socket: {error}"))?;
        let theirs = theirs.into_std().map_err(|error| format!("no socket: {error}"))?;
        let mut command = Command::new(&program.exe);
        command.arg0("stolon-keeper").args(&program.before).arg(ARGUMENT).arg(dir).args(user).current_dir(dir);
        // Passwords may be in the environment.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.exe.display()))?;
        // Our copy of its end goes, so that its death is seen.
        drop(command);
        let pid = child.id().ok_or("it ended at once")?;
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        let process = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| format!("pidfd_open: {errno}"))?;
        let mut link = Link { stream, pid, process };
        match link.ask(Order::Ask, START).await {
            Ok(_) => Ok(link),
            Err(problem) => {
                link.kill();
                Err(problem)
            }
        }
    }

    pub async fn tell(&mut self, order: Order) -> Result<Answer, String> {
        self.ask(order, ANSWER).await
    }

    async fn ask(&mut self, order: Order, bound: Duration) -> Result<Answer, String> {
        let exchange = async {
            self.stream.write_all(&frame::order(order)).await?;
            let mut bytes = [0; LENGTH];
            self.stream.read_exact(&mut bytes).await?;
            Ok(bytes)
        };
        let bytes = timeout(bound, exchange).await;
        let bytes = bytes.map_err(|_| format!("no answer within {bound:.1?}"))?;
        let bytes = bytes.map_err(|error: std::io::Error| format!("it has ended ({error})"))?;
        frame::read_answer(&bytes).ok_or_else(|| "it speaks another version".to_owned())
    }

    /// Returns when the guard has ended. To be awaited between two orders.
    pub async fn ended(&self) {
        let mut byte = [0];
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut byte) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    }

    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}
