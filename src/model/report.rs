//! What keepers and proxies tell sentinels with each heartbeat. Observations: they start things, they prove nothing
//! (R25), except `promised`, `recruit` and `fenced_epoch`, which are on disk or irrevocable before they are sent.

use std::{collections::BTreeMap, time::Duration};

use super::{DbUid, Epoch, Generation, Revision, WalPosition, registration::Recruit};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeeperReport {
    /// Newest cluster data that the keeper acts on; 0 for none.
    pub view_revision: Revision,
    pub promised: Epoch,
    pub authority: Option<AuthorityReport>,
    pub recruit: Option<Recruit>,
    pub leaving: bool,
    /// The epoch for whose handover the primary is prepared (R8).
    pub prepared: Epoch,
    /// Why the keeper can't converge; empty when nothing is wrong.
    pub failure: String,
    pub postgres: PostgresReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityReport {
    pub epoch: Epoch,
    pub remaining: Duration,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PostgresReport {
    pub state: PostgresState,
    pub db: Option<DbUid>,
    pub generation: Generation,
    /// 0 while unknown.
    pub system_id: u64,
    pub position: Option<WalPosition>,
    /// Age of `position` when the report was made.
    pub position_age: Duration,
    /// `position` is the end of the WAL of a primary that was stopped in good order.
    pub position_final: bool,
    /// Age of the last probe that succeeded (R13).
    pub probe_age: Option<Duration>,
    pub wal_streaming: bool,
    pub wal_advances: u64,
    /// Epoch in which the server became a primary; none on a standby.
    pub primary_epoch: Epoch,
    pub parameters: BTreeMap<String, String>,
    /// Standbys of the list in force for which a probe commit under `generation` has shown that commits wait (R18).
    pub in_sync: Vec<DbUid>,
    /// 0 when not running.
    pub pid: u32,
}

/// What a keeper's PostgreSQL is doing, by its own process and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostgresState {
    /// No database in the data directory.
    #[default]
    Absent,
    /// initdb, pg_basebackup or pg_rewind runs.
    Copying,
    /// Not running, known by its exit.
    Stopped,
    Starting,
    Standby,
    Primary,
}

impl PostgresState {
    /// True when a postmaster accepts connections.
    pub fn serves(self) -> bool {
        matches!(self, PostgresState::Standby | PostgresState::Primary)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyReport {
    pub view_revision: Revision,
    /// No connection and no dial of an epoch up to this is left, nor will be made (R7).
    pub fenced_epoch: Epoch,
    /// Epoch that new connections go to; none while there is no route.
    pub route_epoch: Option<Epoch>,
    pub connections: u64,
    pub lease_remaining: Duration,
}

/// What an observer found when it knocked at a PostgreSQL server (R15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Answered,
    Refused,
    TimedOut,
    Unreachable,
}
