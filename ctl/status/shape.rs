//! What `status -f json` prints: a stable shape. The original's fields keep their names (`listen_address`, `pg_healthy`,
//! `master_keeper_uid` and so on); new ones are in camel case. A field that nobody can tell is null.

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub cluster: Cluster,
    pub keepers: Vec<Keeper>,
    pub sentinels: Vec<Sentinel>,
    pub proxies: Vec<Proxy>,
    /// What stands in the way, or what the cluster waits for; one line each.
    pub problems: Vec<String>,
    pub source: Source,
}

/// Who told it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Uid of the sentinel that answered; null when none did and etcd alone was read.
    pub sentinel: Option<String>,
    /// True when that sentinel leads: only then are all reports there.
    pub leader: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cluster {
    /// The primary serves, and no change of primary is in progress.
    pub available: bool,
    pub master_keeper_uid: Option<String>,
    pub master_db_uid: Option<String>,
    pub name: String,
    pub uid: Option<String>,
    /// `initializing` or `normal`.
    pub phase: Option<String>,
    pub epoch: Option<u64>,
    /// etcd's revision of the cluster data.
    pub revision: Option<i64>,
    pub primary: Option<Primary>,
    pub fencing: Option<Fencing>,
}

/// The server that is primary, or is becoming it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Primary {
    pub keeper: String,
    pub db: String,
    /// PostgreSQL's address, `host:port`.
    pub address: Option<String>,
    /// How long its keeper has held the authority, in milliseconds, as that keeper tells.
    pub held_for_ms: Option<u64>,
    #[serde(flatten)]
    pub position: Position,
}

/// A position in the write-ahead log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    pub timeline: Option<u32>,
    /// As PostgreSQL writes it (`0/3000148`).
    pub lsn: Option<String>,
}

/// The change of primary in progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fencing {
    /// The epoch that ends.
    pub epoch: u64,
    /// `fence` or `recruit`.
    pub stage: String,
    pub planned: bool,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Keeper {
    pub uid: String,
    pub listen_address: String,
    pub healthy: bool,
    pub pg_healthy: bool,
    pub pg_wanted_generation: i64,
    pub pg_current_generation: i64,
    pub db: Option<String>,
    /// `primary` or `standby`.
    pub role: Option<String>,
    pub registered: bool,
    #[serde(rename = "grpcAddress")]
    pub grpc_address: Option<String>,
    /// What its PostgreSQL does: `absent`, `copying`, `stopped`, `starting`, `standby` or `primary`.
    pub state: Option<String>,
    #[serde(flatten)]
    pub position: Position,
    /// Bytes of WAL behind the primary; null for the primary itself.
    pub lag: Option<u64>,
    /// A standby receives WAL now.
    pub streaming: Option<bool>,
    /// `in sync` (it has every acknowledged commit and may take over), `named` (commits wait for it), or null.
    pub synchronous: Option<String>,
    /// The keeper was asked to end.
    pub leaving: bool,
    /// Why it can't do what it should.
    pub failure: Option<String>,
    /// Postmaster's process id.
    pub pid: Option<u32>,
    #[serde(rename = "reportAgeMs")]
    pub report_age_ms: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sentinel {
    pub uid: String,
    pub leader: bool,
    pub grpc_address: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    pub uid: String,
    pub generation: i64,
    pub listen_address: Option<String>,
    pub grpc_address: Option<String>,
    /// Epoch of the primary that new connections go to; null for nowhere, and while nobody tells.
    pub route_epoch: Option<u64>,
    pub connections: Option<u64>,
    pub report_age_ms: Option<u64>,
}

/// None for an empty text: nobody should have to know that "" means nothing.
pub fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
