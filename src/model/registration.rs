//! What each daemon keeps in etcd on its lease: its registration (stolon's JSON, our fields beside), and the two keys
//! that only the keeper with authority may hold: `primary` and `ready`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ClusterUid, DbUid, Epoch, Generation, KeeperUid, Lsn, ProxyUid, SentinelUid, WalPosition,
    cluster::{BinaryVersion, Extra},
};

/// `keepers/info/<uid>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeeperInfo {
    /// A fresh text at each write (stolon's own sign of freshness).
    #[serde(rename = "infoUID")]
    pub info_uid: String,
    pub uid: KeeperUid,
    #[serde(rename = "clusterUID", default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<ClusterUid>,
    /// New at each start of the keeper process.
    #[serde(rename = "bootUUID")]
    pub boot_uuid: String,
    pub postgres_binary_version: BinaryVersion,
    #[serde(default)]
    pub postgres_state: Option<PostgresInfo>,
    #[serde(default = "yes")]
    pub can_be_master: bool,
    #[serde(default = "yes")]
    pub can_be_synchronous_replica: bool,
    /// Advertised PostgreSQL address, also before there is a database.
    #[serde(default)]
    pub pg_address: String,
    #[serde(default)]
    pub pg_port: u16,
    /// Advertised gRPC address, `host:port`.
    #[serde(default)]
    pub grpc_address: String,
    /// System identifier of the database in the data directory; unset when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataDir>,
    /// The promise on disk (R8): never primary in an epoch up to this, never following a primary of one.
    #[serde(default, skip_serializing_if = "Epoch::is_none")]
    pub promised: Epoch,
    /// Final position under the promise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recruit: Option<Recruit>,
    /// Asked to end, waits for a successor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Clients need no credentials; a proxy must then stay on loopback.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_to_all: bool,
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataDir {
    #[serde(rename = "systemID")]
    pub system_id: u64,
    /// The db object that it belonged to last; unset for a foreign one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<DbUid>,
}

/// A standby that left its primary for good, consenting to `epoch` (R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recruit {
    pub epoch: Epoch,
    #[serde(flatten)]
    pub position: WalPosition,
}

/// stolon's view of a running PostgreSQL, written when it changes (never periodically).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostgresInfo {
    pub uid: DbUid,
    pub generation: Generation,
    pub listen_address: String,
    pub port: String,
    pub healthy: bool,
    #[serde(rename = "systemID")]
    pub system_id: String,
    #[serde(rename = "timelineID")]
    pub timeline_id: u32,
    #[serde(rename = "xLogPos")]
    pub xlog_pos: Lsn,
    /// New: that is the end of the WAL of a primary that was stopped in good order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub position_final: bool,
    #[serde(default)]
    pub pg_parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub synchronous_standbys: Vec<DbUid>,
    #[serde(default)]
    pub older_wal_file: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// `proxies/info/<uid>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyInfo {
    #[serde(rename = "infoUID")]
    pub info_uid: String,
    #[serde(rename = "UID")]
    pub uid: ProxyUid,
    #[serde(rename = "Generation")]
    pub generation: Generation,
    /// Nanoseconds.
    #[serde(rename = "ProxyTimeout")]
    pub proxy_timeout: u64,
    /// No connection and no dial of an epoch up to this is left, nor will be made (R7).
    #[serde(rename = "fencedEpoch", default, skip_serializing_if = "Epoch::is_none")]
    pub fenced_epoch: Epoch,
    #[serde(rename = "listenAddress", default)]
    pub listen_address: String,
    #[serde(rename = "grpcAddress", default)]
    pub grpc_address: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// `sentinels/info/<uid>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SentinelInfo {
    #[serde(rename = "UID")]
    pub uid: SentinelUid,
    #[serde(rename = "grpcAddress", default)]
    pub grpc_address: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Key `primary`, on the lease of the keeper with authority (R1); put by the leader's transaction (R2), or put back by
/// the holder (R3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrimaryKey {
    pub keeper: KeeperUid,
    pub db: DbUid,
    pub epoch: Epoch,
    /// W3C trace context of the failover that made it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

/// Key `ready` (R10): the winner serves. Only then do proxies route. On the winner's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyKey {
    pub keeper: KeeperUid,
    pub db: DbUid,
    pub epoch: Epoch,
    /// Advertised PostgreSQL address that proxies dial.
    pub address: String,
    pub port: u16,
    pub timeline: u32,
    /// Where that timeline left its parent; 0 for a first one or an unchanged timeline.
    #[serde(rename = "switchLSN", default)]
    pub switch_lsn: Lsn,
    /// W3C trace context of the failover that made it; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_records_are_readable() {
        let keeper = r#"{"infoUID":"4a216136","uid":"keeper0","clusterUID":"2f576e79","bootUUID":"3fc2","postgresBinaryVersion":{"Maj":15,"Min":18},"postgresState":{"uid":"ab8aab47","generation":4,"listenAddress":"127.0.0.1","port":"15432","healthy":true,"systemID":"7711173073378985024","timelineID":1,"xLogPos":50615872},"canBeMaster":true,"canBeSynchronousReplica":true}"#;
        let info: KeeperInfo = serde_json::from_str(keeper).unwrap();
        assert_eq!(info.postgres_state.unwrap().xlog_pos, Lsn(50_615_872));
        let proxy = r#"{"infoUID":"33bd5ce3","UID":"85df7a12","Generation":2,"ProxyTimeout":15000000000}"#;
        assert_eq!(serde_json::from_str::<ProxyInfo>(proxy).unwrap().generation, Generation(2));
        assert!(serde_json::from_str::<SentinelInfo>(r#"{"UID":"125e311b"}"#).is_ok());
    }
}
