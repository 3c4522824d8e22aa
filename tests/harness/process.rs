//! A child process with its output in a file; killed when dropped.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::{proc, wait};

pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with `folder` as working directory; both outputs go to the end of `folder/NAME.log`.
    pub fn spawn(folder: &Path, name: &str, mut command: Command) -> Process {
        let log = folder.join(format!("{name}.log"));
        let open = || -> File {
            OpenOptions::new().create(true).append(true).open(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()))
        };
        command.current_dir(folder).stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap_or_else(|e| panic!("{name}: {:?}: {e}", command.get_program()));
        Process { name: name.to_owned(), log, child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        proc::signal(self.pid(), signal);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn ended(&mut self, bound: Duration) -> ExitStatus {
        let what = format!("the end of {} (log {})", self.name, self.log.display());
        wait::blocking(&what, bound, || self.child.try_wait().expect("a child can be waited for"))
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self, bound: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(bound)
    }

    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Ok when the log holds `text`: for `eventually`.
    pub fn logged(&self, text: &str) -> Result<(), String> {
        let log = self.log_text();
        match log.contains(text) {
            true => Ok(()),
            false => Err(format!("{} has no {text:?}; its end:\n{}", self.log.display(), tail(&log, 5))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program that ends by itself did.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` when a signal ended it or it had to be killed for taking too long.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

/// Runs a program to its end; one that takes longer than `bound` is killed, which shows as a missing code.
pub fn complete(folder: &Path, command: &mut Command, bound: Duration) -> Outcome {
    let files = [folder.join("complete.out"), folder.join("complete.err")];
    let create = |path: &PathBuf| File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    command.current_dir(folder).stdin(Stdio::null()).stdout(create(&files[0])).stderr(create(&files[1]));
    let start = std::time::Instant::now();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
    let code = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status.code(),
            None if start.elapsed() > bound => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let read = |path: &PathBuf| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    Outcome { code, out: read(&files[0]), err: read(&files[1]), took: start.elapsed() }
}

pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
