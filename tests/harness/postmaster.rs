//! A PostgreSQL server as its data directory shows it: the postmaster, and the System V segment of shared memory that it
//! leaves in the kernel when it is killed. The machine has a few thousand of those, and one goes only when a server is
//! started in the same directory again; so whoever takes a folder away takes the segments of its servers along.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::proc;

/// A server's segment, as its lock file and the kernel name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    id: u64,
    key: u32,
    postmaster: u32,
}

/// Segments of servers that were looked at: a directory may be replaced by a copy before its scene ends.
static SEEN: Mutex<Vec<(PathBuf, Segment)>> = Mutex::new(Vec::new());

/// The postmaster of a data directory; `None` when it doesn't run.
pub fn running(data: &Path) -> Option<u32> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    if let Some(segment) = Segment::named(&file) {
        let mut seen = SEEN.lock().unwrap_or_else(|e| e.into_inner());
        if !seen.iter().any(|(_, known)| *known == segment) {
            seen.push((data.to_owned(), segment));
        }
    }
    file.lines().next()?.trim().parse().ok().filter(|pid| proc::alive(*pid))
}

impl Segment {
    /// That of a server that runs on this data directory, or was killed there.
    pub fn of(data: &Path) -> Option<Segment> {
        Segment::named(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    /// Line 1 of postmaster.pid is the postmaster, line 7 the segment's key and number.
    fn named(file: &str) -> Option<Segment> {
        let lines: Vec<&str> = file.lines().collect();
        let mut segment = lines.get(6)?.split_whitespace().map(str::parse::<u64>);
        let (key, id) = (segment.next()?.ok()?, segment.next()?.ok()?);
        // A key is of 32 bits, and written as if it were of 64.
        Some(Segment { id, key: key as u32, postmaster: lines[0].trim().parse().ok()? })
    }

    /// How many processes have it; `None` when there is no such segment, or another one has its number now.
    pub fn attached(&self) -> Option<u32> {
        self.attached_in(&fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default())
    }

    /// Columns: key, shmid, perms, size, cpid, lpid, nattch.
    fn attached_in(&self, table: &str) -> Option<u32> {
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = |row: &Vec<&str>| {
            row.len() > 6
                && row[0].parse::<i64>().is_ok_and(|key| key as u32 == self.key)
                && row[1].parse() == Ok(self.id)
                && row[4].parse() == Ok(self.postmaster)
        };
        rows.into_iter().find(ours)?[6].parse().ok()
    }

    /// Takes it away when its server's last process is gone; true when there is none left.
    pub fn sweep(&self) -> bool {
        if self.attached() == Some(0) {
            self.remove();
        }
        self.attached().is_none()
    }

    fn remove(&self) {
        // Somebody may have been quicker.
        let _ = Command::new("ipcrm").args(["-m", &self.id.to_string()]).output();
    }
}

/// Takes away what the servers on data directories below a folder left: only segments that these servers made, and only
/// those that no process has any more.
pub fn release(folder: &Path) {
    let mut left: Vec<Segment> = Vec::new();
    data_directories(folder, &mut |data| left.extend(Segment::of(data)));
    SEEN.lock().unwrap_or_else(|e| e.into_inner()).retain(|(data, segment)| {
        let there = data.starts_with(folder);
        left.extend(there.then_some(*segment));
        !there || segment.attached() > Some(0)
    });
    left.iter().filter(|segment| segment.attached() == Some(0)).for_each(Segment::remove);
}

fn data_directories(folder: &Path, found: &mut dyn FnMut(&Path)) {
    if folder.join("PG_VERSION").exists() {
        return found(folder);
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            data_directories(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "4711\n/data\n1700000000\n5432\n/tmp\n127.0.0.1\n18446744071562067969    393217\nready   \n";
    const TABLE: &str = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid\n-2147483647     393217   600                    56  4711  4720      3   106   112\n";

    #[test]
    fn a_segment_is_known_by_number_key_and_maker() {
        let ours = Segment::named(FILE).unwrap();
        assert_eq!(ours.attached_in(TABLE), Some(3));
        for other in [
            TABLE.replace("393217", "393218"),
            TABLE.replace("-2147483647", "-2147483646"),
            TABLE.replace("4711", "4712"),
        ] {
            assert_eq!(ours.attached_in(&other), None, "{other}");
        }
        assert_eq!(Segment::named("4711\n/data\n1700000000\n5432\n"), None, "a server that is about to start");
    }
}
