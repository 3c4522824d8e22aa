//! A data directory: records, timelines, settings, and how the last run ended.

use stolon::model::{Lsn, WalPosition};

use crate::world::HostId;

/// A record's number, unique in the world: two histories that hold the same one share it.
pub type Rec = u64;

/// Position after so many records.
pub fn lsn(records: usize) -> Lsn {
    Lsn(1000 + 100 * records as u64)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub system_id: u64,
    pub wal: Vec<Rec>,
    /// Timelines with the number of records before each; the last one is the present.
    pub timelines: Vec<(u32, usize)>,
    /// Starts in recovery.
    pub standby: bool,
    pub upstream: Option<HostId>,
    /// `synchronous_standby_names` in the file, all of them named; the server has what it read last.
    pub synchronous: Vec<String>,
    /// pg_hba.conf lets internal users in only (R20).
    pub restricted: bool,
    /// This server's own name, which it streams under.
    pub name: String,
    /// The last run ended in good order.
    pub clean: bool,
    /// A copy or rewind was begun and not finished.
    pub incomplete: bool,
    /// Records before the last checkpoint's, as the control file says.
    pub checkpoint: usize,
}

impl Data {
    /// `first` is the record that initdb leaves.
    pub fn create(system_id: u64, first: Rec) -> Data {
        Data {
            system_id,
            wal: vec![first],
            timelines: vec![(1, 0)],
            standby: false,
            upstream: None,
            synchronous: Vec::new(),
            restricted: false,
            name: String::new(),
            clean: true,
            incomplete: false,
            checkpoint: 0,
        }
    }

    pub fn timeline(&self) -> u32 {
        self.timelines.last().map_or(1, |(timeline, _)| *timeline)
    }

    /// Where the present timeline left its parent; 0 for the first.
    pub fn switch(&self) -> Lsn {
        match self.timelines.last() {
            Some((_, start)) if self.timelines.len() > 1 => lsn(*start),
            _ => Lsn(0),
        }
    }

    pub fn position(&self) -> WalPosition {
        WalPosition { timeline: self.timeline(), lsn: lsn(self.wal.len()) }
    }

    /// What the control file knows: after a clean stop the start of the last record, else a lower bound.
    pub fn known_position(&self) -> WalPosition {
        let records = if self.clean { self.wal.len().saturating_sub(1) } else { self.checkpoint };
        WalPosition { timeline: self.timeline(), lsn: lsn(records) }
    }

    /// Records that two histories have in common.
    pub fn common(&self, other: &Data) -> usize {
        // Almost always one is the beginning of the other.
        let shorter = self.wal.len().min(other.wal.len());
        if shorter == 0 || self.wal[shorter - 1] == other.wal[shorter - 1] {
            return shorter;
        }
        self.wal.iter().zip(&other.wal).take_while(|(a, b)| a == b).count()
    }

    /// What a walsender of `self` says to a standby that asks for WAL from its own end: PostgreSQL looks at timelines by
    /// number, and at positions, and nothing else.
    pub fn serves(&self, standby: &Data) -> bool {
        let wanted = standby.timeline();
        let Some(at) = self.timelines.iter().position(|(timeline, _)| *timeline == wanted) else { return false };
        let end = self.timelines.get(at + 1).map_or(self.wal.len(), |(_, start)| *start);
        self.system_id == standby.system_id && standby.wal.len() <= end
    }
}
