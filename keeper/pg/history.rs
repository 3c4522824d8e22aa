//! Timelines: what history files say, and whether a position lies on another server's past.

use std::path::Path;

use stolon::model::{Lsn, WalPosition};

use super::PgError;

/// `timeline` was left at `lsn` for the next one of the list (or, for the last, for the timeline asked about).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    pub timeline: u32,
    pub lsn: Lsn,
}

/// Parses a history file (`00000003.history`): oldest switch first.
pub fn parse(text: &str) -> Result<Vec<Switch>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut switches: Vec<Switch> = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let timeline = words.next().and_then(|word| word.parse().ok());
        let lsn = words.next().and_then(|word| word.parse().ok());
        let (Some(timeline), Some(lsn)) = (timeline, lsn) else {
            return Err(format!("{line:?} is no line of a timeline history"));
        };
        if switches.last().is_some_and(|last| last.timeline >= timeline) {
            return Err(format!("timeline {timeline} comes after a later one"));
        }
        switches.push(Switch { timeline, lsn });
    }
    Ok(switches)
}

/// Whether a server whose WAL ends at `local` can follow one that is on timeline `upstream` with that lineage: all its
/// WAL is part of the other's past, so that no rewind is needed. On the same timeline the caller must know by itself that
/// the other is ahead, and that it is the same branch (R11: two promotions may have made one number).
pub fn follows(local: WalPosition, upstream: u32, lineage: &[Switch]) -> bool {
    if local.timeline == upstream {
        return true;
    }
    lineage.iter().any(|switch| switch.timeline == local.timeline && local.lsn <= switch.lsn)
}

/// Name of the history file of a timeline.
pub(super) fn file_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

pub(super) fn read(data: &Path, timeline: u32) -> Result<Vec<Switch>, PgError> {
    if timeline <= 1 {
        return Ok(Vec::new());
    }
    let path = data.join("pg_wal").join(file_name(timeline));
    let text = std::fs::read_to_string(&path).map_err(PgError::io("read", &path))?;
    parse(&text).map_err(|problem| PgError::Refused(format!("{}: {problem}", path.display())))
}

/// The highest timeline that has a history file in `pg_wal`.
pub(super) fn newest(data: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(data.join("pg_wal")).ok()?.flatten();
    let number = |name: &str| u32::from_str_radix(name.strip_suffix(".history").filter(|n| n.len() == 8)?, 16).ok();
    entries.filter_map(|entry| number(entry.file_name().to_str()?)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "1\t0/5000000\tno recovery target specified\n\n# a note\n2\t0/7000148\tbefore 2026\n";

    fn at(timeline: u32, lsn: u64) -> WalPosition {
        WalPosition { timeline, lsn: Lsn(lsn) }
    }

    #[test]
    fn a_history_file_reads_oldest_first() {
        let lineage = parse(TEXT).unwrap();
        assert_eq!(lineage[1], Switch { timeline: 2, lsn: Lsn(0x7000148) });
        assert!(parse("x 0/1 y").is_err() && parse("2 0/1\n1 0/2\n").is_err());
    }

    #[test]
    fn wal_past_the_switch_needs_a_rewind() {
        let lineage = parse(TEXT).unwrap();
        assert!(follows(at(1, 0x5000000), 3, &lineage));
        assert!(!follows(at(1, 0x5000001), 3, &lineage));
        assert!(follows(at(2, 0x6000000), 3, &lineage));
        assert!(!follows(at(4, 0x1), 3, &lineage), "a later timeline is not the upstream's past");
        assert!(follows(at(3, 0x9000000), 3, &lineage));
    }
}
