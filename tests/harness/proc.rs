//! What /proc says about processes: who works in a folder, processor time, children, states.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process(pid, signal);
    }
}

/// True while the process runs: a zombie doesn't.
pub fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The kernel's letter for the process's state (`T`: stopped).
pub fn state(pid: u32) -> Option<char> {
    fields(pid)?.first()?.chars().next()
}

/// Processor time used so far, user and system.
pub fn cpu(pid: u32) -> Option<Duration> {
    let fields = fields(pid)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// Resident memory, of which not backed by files, as the kernel puts it.
pub fn memory(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("VmRSS") || line.starts_with("RssAnon");
    status
        .lines()
        .filter(wanted)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

fn parent(pid: u32) -> Option<u32> {
    fields(pid)?.get(1)?.parse().ok()
}

/// Fields of /proc/PID/stat from the state on (the name before it may hold blanks).
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process and all that descend from it.
pub fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let of = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Processes whose working directory is in `folder`: daemons are started there, and PostgreSQL's work in their data
/// directory.
pub fn within(folder: &Path) -> Vec<u32> {
    let inside = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    all().into_iter().filter(inside).filter(|pid| alive(*pid)).collect()
}

/// Processes in a network namespace, whoever started them: the oldest first.
pub fn in_namespace(name: &str) -> Vec<u32> {
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let Some(wanted) = inode(&Path::new("/run/netns").join(name)) else { return Vec::new() };
    let there = |pid: &u32| inode(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(wanted);
    let mut found: Vec<u32> = all().into_iter().filter(there).filter(|pid| alive(*pid)).collect();
    found.sort_by_key(|pid| fields(*pid).and_then(|fields| fields.get(19)?.parse::<u64>().ok()));
    found
}

/// File name of the program that a process runs.
pub fn program(pid: u32) -> String {
    let path = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    // The kernel marks a program that was built anew meanwhile.
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.trim_end_matches(" (deleted)").to_owned()
}

pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

/// Kills every process that works in `folder`, also those that start meanwhile.
pub fn kill_within(folder: &Path) {
    for _ in 0..50 {
        let left = within(folder);
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        std::thread::sleep(Duration::from_millis(10));
    }
}
