//! The guard's process: one thread that sleeps in poll() on its keeper, on the next keeper that may come, on the
//! postmaster and on the deadline. It must work when nothing else does, so it has no runtime, needs no disk, and tells
//! about a kill only when that is done.

use std::{
    ffi::OsString,
    fs,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, Timespec},
    mm::{MlockAllFlags, mlockall},
    net::{
        AddressFamily,
        sockopt::{socket_domain, socket_peercred},
    },
    process::{PidfdFlags, geteuid, pidfd_open, setpriority_process, setsid, umask},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use stolon::{model::Moment, task::clock};

use super::{
    SOCKET,
    core::{Guard, Next, Order, Verdict},
    frame::{self, Answer, LENGTH},
    obituary::obituary,
};
use crate::pg::{ProcessId, RunAs, kill_postgres};

/// Runs a guard to its end; `arguments` are what follows `guard` on the command line. Standard input is the connection to
/// the keeper that started it.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let outcome = match arguments.as_slice() {
        [dir] => run(Path::new(dir), None),
        [dir, user] => run(Path::new(dir), user.to_str()),
        _ => Err("a guard is started by a keeper on its directory, not by hand".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "error: guard: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path, user: Option<&str>) -> Result<(), String> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| format!("standard input: {error}"))?;
    let keeper = Line::new(connection(dir, stdin)?)?;
    let user = RunAs::resolve(user.filter(|_| geteuid().is_root()))?;
    harden(dir, user.as_ref());
    let listener = listen(dir)?;
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
        .map_err(|errno| format!("no timer: {errno}"))?;
    let mut guard = Guard::default();
    guard.keeper_came();
    let dir = dir.to_owned();
    Process { guard, keeper: Some(keeper), prolonged: None, listener, timer, postmaster: None, dir, user }.watch()
}

/// Standard input, if a keeper has started this process in its directory. Whoever did not would get no guard, only a
/// process that ends in silence.
pub(super) fn connection(dir: &Path, stdin: OwnedFd) -> Result<UnixStream, String> {
    let place = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let wanted = place(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let works_there = place(Path::new(".")).is_ok_and(|here| here == wanted);
    if !works_there || !socket_domain(&stdin).is_ok_and(|domain| domain == AddressFamily::UNIX) {
        return Err(format!("{}: a guard is started by a keeper on its directory, not by hand", dir.display()));
    }
    Ok(UnixStream::from(stdin))
}

/// Out of reach of what ends or delays a keeper: a session of its own (a signal to the keeper's process group or terminal
/// passes it by), ahead of others for the processor, last of all to be killed for want of memory, and its code in memory,
/// where a hung disk can't keep it from running. What the system does not grant is done without.
fn harden(dir: &Path, user: Option<&RunAs>) {
    let _ = setsid();
    umask(Mode::from_raw_mode(0o177));
    let _ = setpriority_process(None, -20);
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // Only what is there already, and only once it is used: the program is large, and the guard's part of it small. What
    // comes later (a thread's stack) must not fail for want of a limit.
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT);
    // A rehearsal, where no server is: what a kill needs has been used then.
    kill_postgres(&dir.join(SOCKET).join("rehearsal"), None, user);
}

fn listen(dir: &Path) -> Result<UnixListener, String> {
    // Relative, because a socket's path is short; this process works in `dir`.
    let failed = |error: std::io::Error| format!("{}: {error}", dir.join(SOCKET).display());
    match fs::remove_file(SOCKET) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

struct Process {
    guard: Guard,
    keeper: Option<Line>,
    /// When the keeper last moved the deadline away, or set one.
    prolonged: Option<Moment>,
    listener: UnixListener,
    timer: OwnedFd,
    /// The one that the guard is armed for.
    postmaster: Option<(ProcessId, OwnedFd)>,
    /// The keeper's.
    dir: PathBuf,
    user: Option<RunAs>,
}

impl Process {
    fn watch(mut self) -> Result<(), String> {
        loop {
            // Orders first, so that one that came in time is in force; `Guard` lets none in that came too late.
            self.hear();
            match self.guard.next(clock::now()) {
                Next::Exit => return Ok(()),
                Next::Kill => {
                    self.kill();
                    continue;
                }
                Next::Wait => {}
            }
            if self.find_postmaster() {
                self.set_timer();
                self.sleep()?;
                self.meet();
            }
            self.see_end();
        }
    }

    fn sleep(&self) -> Result<(), String> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let postmaster = self.postmaster.as_ref().map(|(_, fd)| fd.as_fd());
        let keeper = self.keeper.as_ref().map(|line| line.stream.as_fd());
        let fixed = [self.timer.as_fd(), self.listener.as_fd()];
        let mut fds: Vec<_> = fixed.into_iter().chain(postmaster).chain(keeper).map(readable).collect();
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(format!("poll: {errno}")),
        }
    }

    /// Reads all orders that are there, and answers each.
    fn hear(&mut self) {
        while let Some(line) = &mut self.keeper {
            match line.next() {
                Ok(None) => return,
                Ok(Some(bytes)) => {
                    let Some(order) = frame::read_order(&bytes) else { return self.lose_keeper() };
                    let now = clock::now();
                    let verdict = self.guard.told(order, now);
                    if verdict == Verdict::Taken && matches!(order, Order::Arm(_) | Order::Extend(_)) {
                        self.prolonged = Some(now);
                    }
                    let answer = frame::answer(Answer { verdict, armed: self.guard.armed() });
                    // A keeper that does not read its answers is as good as gone.
                    if line.stream.write_all(&answer).is_err() {
                        return self.lose_keeper();
                    }
                }
                Err(_) => return self.lose_keeper(),
            }
        }
    }

    fn lose_keeper(&mut self) {
        if let Some(line) = self.keeper.take() {
            // Standard input is the same connection.
            let _ = line.stream.shutdown(Shutdown::Both);
        }
        self.guard.keeper_gone();
    }

    /// The next keeper takes the place of the former one: the lock on the directory lets in one at a time.
    fn meet(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let me = geteuid();
            let known = socket_peercred(&stream).is_ok_and(|peer| peer.uid == me || peer.uid.is_root());
            if let (true, Ok(line)) = (known, Line::new(stream)) {
                self.keeper = Some(line);
                self.guard.keeper_came();
            }
        }
    }

    /// Watches the postmaster that the guard is armed for. Returns false when that one has ended already.
    fn find_postmaster(&mut self) -> bool {
        let wanted = self.guard.armed().and_then(|armed| armed.postmaster);
        if self.postmaster.as_ref().map(|(id, _)| *id) == wanted {
            return true;
        }
        self.postmaster = wanted.and_then(|id| {
            let pid = i32::try_from(id.pid).ok().and_then(rustix::process::Pid::from_raw)?;
            let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            id.lives().then_some((id, fd))
        });
        let gone = wanted.filter(|_| self.postmaster.is_none());
        if let Some(id) = gone {
            self.ended(id);
        }
        gone.is_none()
    }

    fn see_end(&mut self) {
        if let Some((id, _)) = self.postmaster.as_ref().filter(|(id, _)| !id.lives()) {
            let id = *id;
            self.postmaster = None;
            self.ended(id);
        }
    }

    fn ended(&mut self, id: ProcessId) {
        if self.guard.postgres_ended(id) == Next::Kill {
            self.kill();
        }
    }

    fn kill(&mut self) {
        let began = clock::now();
        let postmaster = self.postmaster.take().map(|(id, _)| id);
        let armed = self.guard.armed();
        let killed = kill_postgres(&self.dir.join("postgres"), postmaster, self.user.as_ref());
        self.guard.killed();
        // Its keeper may have been quicker: then there is nothing to tell.
        if killed.processes > 0 {
            let line = obituary(&self.dir, postmaster, armed, self.prolonged, began, killed);
            // Whoever reads the log may be gone.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn set_timer(&self) {
        let at = self.guard.armed().map_or(Moment::default(), |armed| armed.until).since_boot();
        let setting = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            // Zero disarms it.
            it_value: Timespec { tv_sec: at.as_secs().cast_signed(), tv_nsec: at.subsec_nanos().into() },
        };
        // Can't fail: the descriptor is a timer, and the time is one.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting);
    }
}

/// A connection to a keeper, with the part of a frame that has come.
struct Line {
    stream: UnixStream,
    part: [u8; LENGTH],
    filled: usize,
}

impl Line {
    fn new(stream: UnixStream) -> Result<Line, String> {
        stream.set_nonblocking(true).map_err(|error| format!("the keeper's connection: {error}"))?;
        Ok(Line { stream, part: [0; LENGTH], filled: 0 })
    }

    /// The next whole frame; `None` when there is none yet. An error is the connection's end.
    fn next(&mut self) -> std::io::Result<Option<[u8; LENGTH]>> {
        loop {
            match self.stream.read(&mut self.part[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.filled == LENGTH {
                self.filled = 0;
                return Ok(Some(self.part));
            }
        }
    }
}
