//! One child process: in a process group of its own (Ctrl-C is for the playground alone), its output in a log, ended by
//! the kernel when the playground dies, whatever it dies of.
//!
//! PR_SET_PDEATHSIG must be set by the child itself, and setting it between fork and exec would be unsafe code. Hence the
//! detour: the child is this program, which sets it and becomes the program that was asked for.

use std::{
    env,
    ffi::OsString,
    fs::{self, OpenOptions},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use anyhow::Context;
use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

use super::plan::Program;

const VERB: &str = "playground-child";
/// Settings for the programs that the playground's own flags must not be mixed with.
const FOREIGN: [&str; 5] = ["ETCD_", "PG", "STKEEPER_", "STSENTINEL_", "STPROXY_"];
/// SIGTERM: a keeper then ends its PostgreSQL in good order; SIGKILL would leave that running.
const LAST_WORD: Signal = Signal::TERM;

/// The parent's process id, a program and its arguments, when this process was started to become a child.
pub fn child_command() -> Option<Vec<OsString>> {
    let mut args = env::args_os().skip(1);
    (args.next()? == VERB).then(|| args.collect())
}

/// Becomes the program; comes back only with the reason why it could not.
pub fn become_child(command: Vec<OsString>) -> String {
    let [parent, program, args @ ..] = command.as_slice() else {
        return format!("{VERB} is for the playground's own use");
    };
    if let Err(error) = set_parent_process_death_signal(Some(LAST_WORD)) {
        return format!("the playground's processes could not be tied to it: {error}");
    }
    let parent = parent.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    if getppid() != parent {
        return "the playground has ended already".into();
    }
    let error = std::process::Command::new(program).args(args).exec();
    format!("{}: {error}", Path::new(program).display())
}

/// A running child. Signals go by pidfd: never to another process of the same number.
pub struct Handle {
    pub program: Program,
    pub pid: u32,
    pidfd: OwnedFd,
}

/// The child and what waits for its end; killed when dropped.
pub fn start(program: &Program, folder: &Path) -> anyhow::Result<(Handle, tokio::process::Child)> {
    let log = log_file(folder, &program.name);
    let out = OpenOptions::new().create(true).append(true).open(&log);
    let out = out.with_context(|| format!("log {}", log.display()))?;
    let mut command = tokio::process::Command::new("/proc/self/exe");
    for (name, _) in env::vars_os() {
        if FOREIGN.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.arg(VERB).arg(std::process::id().to_string()).arg(&program.path).args(&program.args);
    // etcd refuses to start on some architectures unless they are named.
    command.env("ETCD_UNSUPPORTED_ARCH", etcd_arch());
    command.current_dir(folder).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = command.process_group(0).kill_on_drop(true).spawn();
    let child = child.with_context(|| format!("{} could not be started", program.name))?;
    let pid = child.id().unwrap_or(0);
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a child without a process id")?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).context("pidfd_open")?;
    Ok((Handle { program: program.clone(), pid, pidfd }, child))
}

impl Handle {
    pub fn signal(&self, signal: Signal) {
        // Gone already is as good.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

/// Go's name of this machine's architecture.
fn etcd_arch() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

pub fn log_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// How a child ended, with the end of its log.
pub fn obituary(folder: &Path, name: &str, status: &ExitStatus) -> String {
    let log = log_file(folder, name);
    let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ");
    format!("{name} has ended ({status}); the end of {}:\n    {end}", log.display())
}

const LOG_LINES: usize = 8;

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_obituary_has_the_name_the_status_and_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..20).map(|n| format!("line {n}")).collect();
        fs::write(log_file(folder.path(), "proxy0"), lines.join("\n")).unwrap();
        let text = obituary(folder.path(), "proxy0", &ExitStatus::from_raw(9));
        assert!(text.starts_with("proxy0 has ended (signal: 9") && text.ends_with("line 19"), "{text}");
        assert!(!text.contains("line 11\n"), "{text}");
    }
}
