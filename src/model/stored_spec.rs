//! The cluster specification as operators write it and as it is stored: `StoredSpec`, every field optional, unknown ones
//! kept. What an absent field means, and which values go together, is no matter of this file (`spec`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KeeperUid, godur::GoDuration};

/// Specification as stored and as given by operators: stolon's names and forms, format version 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoredSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep_interval: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convergence_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_wait_ready_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_interval: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_keeper_removal_interval: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_check_interval: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_timeout: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_standbys: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_standbys_per_sender: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_standby_lag: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_replication: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_synchronous_standbys: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_synchronous_standbys: Option<u16>,
    pub additional_wal_senders: Option<u16>,
    pub additional_master_replication_slots: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_pgrewind: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_mode: Option<StoredInitMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_pg_parameters: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<ClusterRole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_config: Option<NewConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing_config: Option<ExistingConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pitr_config: Option<PitrConfig>,
    /// What a standby cluster follows (`role` standby).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby_config: Option<StandbyConfig>,
    #[serde(rename = "defaultSUReplAccessMode", skip_serializing_if = "Option::is_none")]
    pub default_su_repl_access_mode: Option<AccessMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pg_parameters: Option<BTreeMap<String, String>>,
    #[serde(rename = "pgHBA")]
    pub pg_hba: Option<Vec<String>>,
    pub automatic_pg_restart: Option<bool>,
    /// New: silence of the primary after which it is suspected (R15).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect_interval: Option<GoDuration>,
    /// New: between two heartbeats of a keeper or a proxy (R13).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<GoDuration>,
    /// New: durations of the leases in etcd (R1, R5); each counts from the next lease that is granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeper_lease_duration: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_lease_duration: Option<GoDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_lease_duration: Option<GoDuration>,
    /// New: never count an acknowledgement of the proxies as a fence of direct connections (R2 iv).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_fencing: Option<bool>,
    /// New: which standbys of the list a commit waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_mode: Option<SynchronousMode>,
    /// New: base backups that are taken from the primary at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_base_backups: Option<u16>,
    /// New: logical slots that are marked for failover are kept on standbys, too (PostgreSQL 17 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover_slots: Option<bool>,
    /// Whatever another version wrote; kept as it is.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// Whether the cluster has a primary of its own, or is a copy of another cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterRole {
    #[default]
    Master,
    Standby,
}

/// Which standbys of the list a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SynchronousMode {
    /// Each: stolon's way. Any of them alone has every acknowledged commit.
    #[default]
    All,
    /// Any `minSynchronousStandbys` of them: one that is slow delays nobody.
    Quorum,
}

/// How the first database of a cluster comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredInitMode {
    New,
    Existing,
    Pitr,
}

/// initdb's choices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NewConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locale: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub encoding: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub data_checksums: bool,
}

/// Which keeper's database becomes the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExistingConfig {
    #[serde(rename = "keeperUID")]
    pub keeper_uid: KeeperUid,
}

/// A first database restored from a backup, up to a point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PitrConfig {
    /// Shell command that fills the data directory `%d`; `%%` is a percent sign. Exit code 0 only when it is complete.
    pub data_restore_command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_recovery_settings: Option<ArchiveRecoverySettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_target_settings: Option<RecoveryTargetSettings>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// PostgreSQL's `restore_command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArchiveRecoverySettings {
    pub restore_command: String,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// PostgreSQL's `recovery_target*` (section 20.5.6 of its manual); an empty text is unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecoveryTargetSettings {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_target: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_target_lsn: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_target_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_target_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_target_xid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_target_timeline: String,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// What the leading server of a standby cluster follows: another cluster's stream, its archive, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StandbyConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby_settings: Option<StandbySettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_recovery_settings: Option<ArchiveRecoverySettings>,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// PostgreSQL's `primary_conninfo`, `primary_slot_name` and `recovery_min_apply_delay`; an empty text is unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StandbySettings {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub primary_conninfo: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub primary_slot_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub recovery_min_apply_delay: String,
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// From where superuser and replication connections are admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    #[default]
    All,
    Strict,
}

impl StoredSpec {
    /// The specification of a cluster that was initialised by itself.
    pub fn automatic() -> StoredSpec {
        StoredSpec { init_mode: Some(StoredInitMode::New), use_pgrewind: Some(true), ..StoredSpec::default() }
    }

    /// Why a JSON document is no specification: the field that can't be read, and the reason; `None` when all can.
    pub fn flaw(document: &Value) -> Option<String> {
        let fields = document.as_object()?;
        fields.iter().find_map(|(name, value)| {
            let alone = Value::Object([(name.clone(), value.clone())].into_iter().collect());
            let error = serde_json::from_value::<StoredSpec>(alone).err()?;
            Some(format!("{name}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_survives_a_round_trip() {
        let text = r#"{"initMode":"new","invented":{"a":1}}"#;
        let spec: StoredSpec = serde_json::from_str(text).unwrap();
        let back: Value = serde_json::to_value(&spec).unwrap();
        assert_eq!(back["invented"]["a"], 1);
    }

    #[test]
    fn a_field_that_cant_be_read_is_named() {
        let flaw = |text: &str| StoredSpec::flaw(&serde_json::from_str(text).unwrap());
        let found = flaw(r#"{"initMode":"new","failInterval":"-1s","sleepInterval":"1s"}"#).unwrap();
        assert!(found.starts_with("failInterval: ") && found.contains("-1s"), "{found}");
        assert!(flaw(r#"{"initMode":"neu"}"#).is_some_and(|found| found.starts_with("initMode: ")));
        assert_eq!(flaw(r#"{"initMode":"new","invented":{"a":1}}"#), None);
    }
}
