//! The cluster data: the one JSON document in etcd that says who is primary and what every database should be. stolon's
//! format, version 1 (`master`, `keeperUID` and so on are its names), with new fields beside; unknown ones are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ClusterUid, DbUid, Epoch, Generation, KeeperUid, Lsn, ProxyUid, spec::StoredSpec};
pub use super::{
    db::{Db, DbInitMode, DbRole, DbSpec, DbStatus, FollowConfig, FollowType},
    document::Unreadable,
};

/// The name that no server has (stolon's): in `synchronous_standby_names`, it makes commits wait for good (R19, R21).
pub const BLOCKING_NAME: &str = "stolonfakestandby";

/// The only format version that this program reads and writes.
pub const FORMAT_VERSION: u64 = 1;

/// Fields of other versions of this program, kept as they are.
pub type Extra = BTreeMap<String, Value>;

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterData {
    pub format_version: u64,
    #[serde(default)]
    pub change_time: String,
    pub cluster: Cluster,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub keepers: BTreeMap<KeeperUid, Keeper>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub dbs: BTreeMap<DbUid, Db>,
    pub proxy: Proxies,
    #[serde(flatten)]
    pub extra: Extra,
}

impl ClusterData {
    /// The db that is (or is becoming) primary, with its keeper.
    pub fn primary(&self) -> Option<(&DbUid, &Db)> {
        self.cluster.status.master.as_ref().and_then(|uid| self.dbs.get_key_value(uid))
    }

    /// The db assigned to a keeper.
    pub fn db_of(&self, keeper: &KeeperUid) -> Option<(&DbUid, &Db)> {
        self.dbs.iter().find(|(_, db)| &db.spec.keeper_uid == keeper)
    }

    /// How a standby stands to the primary's synchronous list: `in sync` (it may win), `named` (commits wait for it), or not
    /// at all.
    pub fn synchronous(&self, uid: &DbUid) -> Option<&'static str> {
        let (_, master) = self.primary().filter(|(_, db)| db.spec.synchronous_replication)?;
        let among = |list: &Option<Vec<DbUid>>| list.iter().flatten().any(|name| name == uid);
        match (among(&master.spec.synchronous_standbys), among(&master.status.synchronous_standbys)) {
            (true, true) => Some("in sync"),
            (true, false) => Some("named"),
            (false, _) => None,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.cluster.status.epoch
    }

    pub fn fencing(&self) -> Option<&Fencing> {
        self.cluster.status.fencing.as_ref()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub uid: ClusterUid,
    pub generation: Generation,
    #[serde(default)]
    pub change_time: String,
    pub spec: StoredSpec,
    pub status: ClusterStatus,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    #[serde(default, skip_serializing_if = "is_default")]
    pub current_generation: Generation,
    pub phase: Phase,
    /// db uid of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub master: Option<DbUid>,
    /// New: epoch of that primary.
    #[serde(default, skip_serializing_if = "Epoch::is_none")]
    pub epoch: Epoch,
    /// New: the mark of a change of primary in progress (R6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<Fencing>,
    /// New: a handover that was asked for and is being prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
    /// New: what each promotion left behind, oldest first (R11).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Lineage>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Initializing,
    Normal,
}

/// The fencing mark (R6): epoch `epoch` ends. While it stands, members and synchronous sets are frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fencing {
    pub epoch: Epoch,
    pub stage: Stage,
    /// A handover that was asked for: the old primary stops in good order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub planned: bool,
    /// The keeper that a handover is to; unset for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<KeeperUid>,
    /// For people.
    #[serde(default)]
    pub reason: String,
    /// W3C trace context of the failover; empty when nobody traces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

/// A handover before its mark: the primary of `epoch` writes a checkpoint while clients still work (R8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    pub epoch: Epoch,
    /// The keeper that is to take over; unset for the one that is furthest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<KeeperUid>,
    /// For people.
    #[serde(default)]
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Proxies fence first; what the old primary still acknowledges may reach the standbys.
    Fence,
    /// Standbys leave the old primary and report their final position.
    Recruit,
}

/// One promotion (R11).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    pub epoch: Epoch,
    pub timeline: u32,
    /// Where the timeline left its parent; 0 for a cluster's first.
    #[serde(rename = "switchLSN")]
    pub switch_lsn: Lsn,
    pub db: DbUid,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keeper {
    pub uid: KeeperUid,
    pub generation: Generation,
    #[serde(default)]
    pub change_time: String,
    #[serde(default)]
    pub spec: Extra,
    pub status: KeeperStatus,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeeperStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub healthy: bool,
    pub last_healthy_time: String,
    #[serde(rename = "bootUUID", skip_serializing_if = "String::is_empty")]
    pub boot_uuid: String,
    pub postgres_binary_version: BinaryVersion,
    #[serde(skip_serializing_if = "is_default")]
    pub force_fail: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_be_master: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_be_synchronous_replica: Option<bool>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// Version of the PostgreSQL programs that a keeper runs: 15.18 is major 15, minor 18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BinaryVersion {
    #[serde(rename = "Maj")]
    pub major: u32,
    #[serde(rename = "Min")]
    pub minor: u32,
}

/// The proxies' part. Kept for stolon's readers; this program routes by `primary` and `ready` (R10).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxies {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    pub generation: Generation,
    pub change_time: String,
    pub spec: ProxiesSpec,
    pub status: Extra,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxiesSpec {
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub master_db_uid: Option<DbUid>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub enabled_proxies: Vec<ProxyUid>,
    #[serde(flatten)]
    pub extra: Extra,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

pub(super) fn empty_is_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<DbUid>, D::Error> {
    match Option::<String>::deserialize(from)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => DbUid::parse(text).map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURED: &str = include_str!("testdata/clusterdata.json");

    #[test]
    fn a_document_of_the_original_reads_and_writes_back_field_for_field() {
        let data = ClusterData::parse(CAPTURED.as_bytes()).unwrap();
        let back: Value = serde_json::from_slice(&data.to_json()).unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(CAPTURED).unwrap());
    }

    #[test]
    fn unknown_fields_at_every_level_are_kept() {
        let mut value: Value = serde_json::from_str(CAPTURED).unwrap();
        for path in ["", "/cluster", "/cluster/spec", "/cluster/status", "/keepers/keeper0", "/proxy/spec"] {
            value.pointer_mut(path).unwrap()["invented"] = 7.into();
        }
        let data = ClusterData::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&data.to_json()).unwrap(), value);
    }

    #[test]
    fn a_newer_format_is_named_and_garbage_is_not_taken_for_one() {
        assert_eq!(ClusterData::parse(br#"{"formatVersion":2}"#), Err(Unreadable::NewerFormat(2)));
        for bad in ["", "{", "[]", "null", r#"{"formatVersion":1}"#, r#"{"formatVersion":"1"}"#] {
            let error = ClusterData::parse(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, Unreadable::NotClusterData(_)), "{bad}: {error}");
        }
    }
}
