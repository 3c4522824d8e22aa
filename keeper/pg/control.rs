//! What `pg_control` says: identity, timeline, and how the server ended last.

use std::{fs, path::Path};

use stolon::model::{Lsn, WalPosition};

use super::{Instance, PgError, program::Program};

/// How a server's last (or present) run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    CrashRecovery,
    ArchiveRecovery,
    Production,
}

impl ClusterState {
    /// Ended in good order: pg_rewind needs no recovery first.
    pub fn is_clean(self) -> bool {
        matches!(self, ClusterState::ShutDown | ClusterState::ShutDownInRecovery)
    }

    fn parse(text: &str) -> Option<ClusterState> {
        Some(match text {
            "starting up" => ClusterState::StartingUp,
            "shut down" => ClusterState::ShutDown,
            "shut down in recovery" => ClusterState::ShutDownInRecovery,
            "shutting down" => ClusterState::ShuttingDown,
            "in crash recovery" => ClusterState::CrashRecovery,
            "in archive recovery" => ClusterState::ArchiveRecovery,
            "in production" => ClusterState::Production,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub system_id: u64,
    pub state: ClusterState,
    /// Start of the last checkpoint record, and its timeline.
    pub checkpoint: WalPosition,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    /// A standby must replay to here before it is consistent; 0/0 on a primary.
    pub min_recovery_end: WalPosition,
    pub wal_log_hints: bool,
    pub data_checksums: bool,
}

impl Control {
    /// The furthest position that is known from the file alone: a lower bound of the end of WAL. After a clean shutdown
    /// it is the shutdown checkpoint, which is the last record.
    pub fn known_position(&self) -> WalPosition {
        self.checkpoint.max(self.min_recovery_end)
    }

    /// pg_rewind refuses a target that has neither.
    pub fn can_be_rewound(&self) -> bool {
        self.wal_log_hints || self.data_checksums
    }
}

pub(super) async fn read(instance: &Instance, data: &Path) -> Result<Control, PgError> {
    let text = Program::new(instance, "pg_controldata").arg("-D").arg(data).run().await?;
    parse(&text).map_err(|problem| PgError::Program { program: "pg_controldata", problem })
}

fn parse(text: &str) -> Result<Control, String> {
    let field = |name: &str| field(text, name).ok_or_else(|| format!("no line {name:?} in its output"));
    let number = |name: &str| field(name)?.parse::<u64>().map_err(|error| format!("{name}: {error}"));
    let lsn = |name: &str| field(name)?.parse::<Lsn>().map_err(|error| format!("{name}: {error}"));
    let timeline = |name: &str| field(name)?.parse::<u32>().map_err(|error| format!("{name}: {error}"));
    let state = field("Database cluster state")?;
    Ok(Control {
        system_id: number("Database system identifier")?,
        state: ClusterState::parse(state).ok_or_else(|| format!("unknown cluster state {state:?}"))?,
        checkpoint: WalPosition {
            timeline: timeline("Latest checkpoint's TimeLineID")?,
            lsn: lsn("Latest checkpoint location")?,
        },
        redo: lsn("Latest checkpoint's REDO location")?,
        min_recovery_end: WalPosition {
            timeline: timeline("Min recovery ending loc's timeline")?,
            lsn: lsn("Minimum recovery ending location")?,
        },
        wal_log_hints: field("wal_log_hints setting")? == "on",
        data_checksums: number("Data page checksum version")? > 0,
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Settings that a standby must have at least as large as the primary of its WAL had: their values in `pg_control`.
pub(super) fn least_settings(instance: &Instance) -> Result<Vec<(&'static str, u64)>, PgError> {
    const NAMES: [(&str, &str); 5] = [
        ("max_connections", "max_connections setting"),
        ("max_worker_processes", "max_worker_processes setting"),
        ("max_wal_senders", "max_wal_senders setting"),
        ("max_prepared_transactions", "max_prepared_xacts setting"),
        ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ];
    let text = Program::new(instance, "pg_controldata").arg("-D").arg(instance.data_dir()).run_blocking()?;
    Ok(NAMES.iter().filter_map(|(name, line)| Some((*name, field(&text, line)?.parse().ok()?))).collect())
}

/// True when `pg_control` says "in production".
pub(super) fn in_production(data: &Path) -> bool {
    const IN_PRODUCTION: u32 = 6;
    Head::read(data).is_some_and(|head| head.state == IN_PRODUCTION)
}

/// Start of the shutdown checkpoint that ended a primary in good order, which is the last record of its WAL; `None` when
/// it did not end so, or not yet. True while walsenders still wait for their standbys.
pub(super) fn shut_down_at(data: &Path) -> Option<WalPosition> {
    const SHUT_DOWN: u32 = 1;
    Head::read(data).filter(|head| head.state == SHUT_DOWN).map(|head| head.checkpoint)
}

/// The first fields of the file, which stand where they stand in PostgreSQL 11 to 18. Read directly because they are asked
/// for in the middle of promotions and handovers.
struct Head {
    state: u32,
    checkpoint: WalPosition,
}

impl Head {
    fn read(data: &Path) -> Option<Head> {
        Head::parse(&fs::read(data.join("global/pg_control")).ok()?)
    }

    fn parse(bytes: &[u8]) -> Option<Head> {
        const STATE_AT: usize = 16;
        const CHECKPOINT_AT: usize = 32;
        const TIMELINE_AT: usize = 48;
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let lsn = u64::from_ne_bytes(bytes.get(CHECKPOINT_AT..CHECKPOINT_AT + 8)?.try_into().ok()?);
        let checkpoint = WalPosition { timeline: word(TIMELINE_AT)?, lsn: Lsn(lsn) };
        Some(Head { state: word(STATE_AT)?, checkpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
pg_control version number:            1300
Database system identifier:           7576411233044857121
Database cluster state:               in archive recovery
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/3000108
Min recovery ending loc's timeline:   2
wal_log_hints setting:                on
Data page checksum version:           0
";

    #[test]
    fn the_output_of_pg_controldata_is_read_field_by_field() {
        let control = parse(TEXT).unwrap();
        assert_eq!(control.system_id, 7_576_411_233_044_857_121);
        assert_eq!(control.state, ClusterState::ArchiveRecovery);
        assert_eq!(control.known_position(), WalPosition { timeline: 2, lsn: Lsn(0x3000108) });
        assert!(control.can_be_rewound() && !control.state.is_clean());
    }

    #[test]
    fn a_missing_or_strange_field_is_named() {
        let error = parse(&TEXT.replace("Database cluster state", "Zustand")).unwrap_err();
        assert!(error.contains("Database cluster state"), "{error}");
        let error = parse(&TEXT.replace("in archive recovery", "asleep")).unwrap_err();
        assert!(error.contains("asleep"), "{error}");
    }
}
