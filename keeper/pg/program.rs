//! Runs PostgreSQL's helper programs as the right OS user. Dropped, a run kills its program with all its children.

use std::{
    ffi::OsStr,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, Stdio},
};

use rustix::process::{PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncReadExt, unix::AsyncFd},
    net::unix::pipe,
};

use super::{
    Instance, PgError, RunAs,
    proc::{raw, watch_fd},
    runas::as_user,
};

/// A helper program to be run.
pub(super) struct Program<'a> {
    instance: &'a Instance,
    name: &'static str,
    command: Command,
    input: Vec<u8>,
}

impl<'a> Program<'a> {
    pub fn new(instance: &'a Instance, name: &'static str) -> Program<'a> {
        let mut command = Command::new(instance.binaries().path(name));
        neutral(&mut command, instance.run_as());
        command.env("LC_ALL", "C").env("PGPASSFILE", instance.passfile()).current_dir("/");
        Program { instance, name, command, input: Vec::new() }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// What the program reads from its standard input: less than a pipe holds (64 KiB).
    pub fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self
    }

    /// Runs to the end and returns the standard output; a failure is an error with the program's own complaint.
    pub async fn run(mut self) -> Result<String, PgError> {
        let failed = |problem: String| PgError::Program { program: self.name, problem };
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let spawned = as_user(self.instance.run_as(), || self.command.spawn());
        let child = spawned.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let mut running = Running::new(child).map_err(|error| failed(error.to_string()))?;
        let (out, complaint) = running.talk(&self.input).await.map_err(|error| failed(error.to_string()))?;
        let status = running.end().await.map_err(|error| failed(error.to_string()))?;
        if status.success() { Ok(out) } else { Err(failed(problem(&complaint, &status.to_string()))) }
    }

    /// For a program that ends within milliseconds and reads nothing.
    pub fn run_blocking(mut self) -> Result<String, PgError> {
        let failed = |problem: String| PgError::Program { program: self.name, problem };
        let output = as_user(self.instance.run_as(), || self.command.stdin(Stdio::null()).output());
        let output = output.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(failed(problem(&String::from_utf8_lossy(&output.stderr), &output.status.to_string())))
    }
}

/// Removes what would mislead PostgreSQL's programs, and gives them the right home.
pub(super) fn neutral(command: &mut Command, user: Option<&RunAs>) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    if let Some(user) = user {
        command.env("HOME", user.home()).env("USER", user.name()).env("LOGNAME", user.name());
    }
}

struct Running {
    child: Child,
    exit: AsyncFd<OwnedFd>,
    ended: bool,
}

impl Running {
    fn new(child: Child) -> std::io::Result<Running> {
        let pid = raw(child.id()).ok_or_else(|| std::io::Error::other("no process id"))?;
        let exit = watch_fd(pidfd_open(pid, PidfdFlags::NONBLOCK)?)?;
        Ok(Running { child, exit, ended: false })
    }

    async fn talk(&mut self, input: &[u8]) -> std::io::Result<(String, String)> {
        if let Some(mut stdin) = self.child.stdin.take() {
            // A program that ended already has said why on its standard error.
            let _ = stdin.write_all(input);
        }
        let (mut out, mut complaint) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else { return Ok(Default::default()) };
        let mut stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
        let mut stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
        tokio::try_join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut complaint))?;
        Ok((String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&complaint).into_owned()))
    }

    async fn end(&mut self) -> std::io::Result<std::process::ExitStatus> {
        let _ready = self.exit.readable().await?;
        self.ended = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(group) = raw(self.child.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Dead within milliseconds; bounded, because a program in an uninterruptible write would hold the caller.
        let mut fds =
            [rustix::event::PollFd::from_borrowed_fd(self.exit.get_ref().as_fd(), rustix::event::PollFlags::IN)];
        let bound = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&bound)).is_ok_and(|ready| ready > 0) {
            let _ = self.child.wait();
        }
    }
}

/// The line that says most: the last that speaks of an error, else the last.
fn problem(complaint: &str, status: &str) -> String {
    let lines = || complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling =
        |line: &&str| ["error:", "ERROR:", "FATAL:", "fatal:", "PANIC:"].iter().any(|word| line.contains(word));
    let line = lines().rfind(telling).or_else(|| lines().next_back());
    line.map_or_else(|| status.to_owned(), |line| format!("{line} ({status})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_that_counts_is_not_the_farewell() {
        let text = "pg_basebackup: error: connection refused\npg_basebackup: removing data directory \"x\"\n";
        assert_eq!(problem(text, "exit status: 1"), "pg_basebackup: error: connection refused (exit status: 1)");
        assert_eq!(problem("", "signal: 9"), "signal: 9");
    }
}
