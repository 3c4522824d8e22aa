//! One database of the cluster data: what it should be (`DbSpec`) and what was last seen of it (`DbStatus`), in stolon's
//! names. Knows nothing of the document around it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    DbUid, Generation, KeeperUid, Lsn,
    cluster::{Extra, empty_is_none, is_default, null_is_empty},
    godur::GoDuration,
    spec::{ArchiveRecoverySettings, NewConfig, PitrConfig, StandbySettings},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Db {
    pub uid: DbUid,
    pub generation: Generation,
    #[serde(default)]
    pub change_time: String,
    pub spec: DbSpec,
    #[serde(default)]
    pub status: DbStatus,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DbSpec {
    #[serde(rename = "keeperUID")]
    pub keeper_uid: KeeperUid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<GoDuration>,
    #[serde(default)]
    pub max_standbys: u16,
    #[serde(default, skip_serializing_if = "is_default")]
    pub synchronous_replication: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub use_pgrewind: bool,
    #[serde(default)]
    pub additional_wal_senders: u16,
    #[serde(default)]
    pub additional_replication_slots: Option<Vec<String>>,
    pub init_mode: DbInitMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_config: Option<NewConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitr_config: Option<PitrConfig>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub pg_parameters: BTreeMap<String, String>,
    #[serde(rename = "pgHBA", default)]
    pub pg_hba: Option<Vec<String>>,
    pub role: DbRole,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow_config: Option<FollowConfig>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub followers: Vec<DbUid>,
    /// stolon's `includeConfig`: report the parameters after the creation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub include_config: bool,
    #[serde(default)]
    pub synchronous_standbys: Option<Vec<DbUid>>,
    #[serde(default)]
    pub external_synchronous_standbys: Option<Vec<String>>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbInitMode {
    None,
    Existing,
    New,
    Pitr,
    Resync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbRole {
    /// The primary, in stolon's stored format.
    Master,
    Standby,
}

/// Whom a standby follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowConfig {
    #[serde(rename = "type")]
    pub kind: FollowType,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub dbuid: Option<DbUid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_settings: Option<StandbySettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_recovery_settings: Option<ArchiveRecoverySettings>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowType {
    Internal,
    External,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DbStatus {
    #[serde(skip_serializing_if = "is_default")]
    pub healthy: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub current_generation: Generation,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listen_address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub port: String,
    /// PostgreSQL's system identifier, in decimal; the format spells it so.
    #[serde(rename = "systemdID", skip_serializing_if = "String::is_empty")]
    pub system_id: String,
    #[serde(rename = "timelineID", skip_serializing_if = "is_default")]
    pub timeline_id: u32,
    #[serde(rename = "xLogPos", skip_serializing_if = "is_default")]
    pub xlog_pos: Lsn,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub pg_parameters: BTreeMap<String, String>,
    pub synchronous_standbys: Option<Vec<DbUid>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub older_wal_file: String,
    #[serde(flatten)]
    pub extra: Extra,
}
