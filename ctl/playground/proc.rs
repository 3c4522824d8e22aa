//! PostgreSQL's processes of a folder, by /proc: a keeper that had to be killed leaves them running.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// Names of processes that work in a keeper's data directory. Somebody's shell may stand there, too.
const NAMES: [&str; 6] = ["postgres", "postmaster", "initdb", "pg_basebackup", "pg_rewind", "pg_ctl"];

/// Process ids of PostgreSQL's processes whose working directory is in `folder`.
pub fn postgres_within(folder: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    all.filter(|pid| is_postgres(*pid) && works_in(*pid, folder)).filter_map(Pid::from_raw).collect()
}

pub fn is_postgres(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| NAMES.contains(&name.trim()))
}

pub fn works_in(pid: i32, folder: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
}

pub fn kill(pid: Pid) {
    // Gone already is as good.
    let _ = kill_process(pid, Signal::KILL);
}
