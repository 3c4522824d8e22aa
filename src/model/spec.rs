//! The cluster specification as the code reads it: `Spec`, total and validated, made of what operators wrote
//! (`StoredSpec`). No reader applies a default.

use std::{collections::BTreeMap, time::Duration};

pub use super::stored_spec::{
    AccessMode, ArchiveRecoverySettings, ClusterRole, ExistingConfig, NewConfig, PitrConfig, RecoveryTargetSettings,
    StandbyConfig, StandbySettings, StoredInitMode, StoredSpec, SynchronousMode,
};
use super::{KeeperUid, godur::GoDuration};

/// The specification with every default applied, valid by construction. Durations in the local clock's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub sleep_interval: Duration,
    pub request_timeout: Duration,
    pub convergence_timeout: Duration,
    pub init_timeout: Duration,
    /// Zero: no limit.
    pub sync_timeout: Duration,
    pub ready_timeout: Duration,
    pub fail_interval: Duration,
    pub dead_keeper_removal_interval: Duration,
    pub proxy_check_interval: Duration,
    pub proxy_timeout: Duration,
    pub suspect_interval: Duration,
    pub heartbeat_interval: Duration,
    /// Whole seconds, as etcd grants them.
    pub keeper_lease: Duration,
    pub sentinel_lease: Duration,
    /// Never above `proxy_timeout`.
    pub proxy_lease: Duration,
    pub max_standbys: u16,
    pub max_standbys_per_sender: u16,
    /// Bytes of WAL.
    pub max_standby_lag: u64,
    pub synchronous_replication: bool,
    /// Fewer live ones than `min` block commits (R19); 0 prefers availability.
    pub min_synchronous_standbys: u16,
    pub max_synchronous_standbys: u16,
    pub additional_wal_senders: u16,
    pub additional_slots: Vec<String>,
    pub use_pg_rewind: bool,
    pub init: Init,
    pub merge_parameters: bool,
    pub access: AccessMode,
    pub parameters: BTreeMap<String, String>,
    /// None: the default lines.
    pub hba: Option<Vec<String>>,
    pub automatic_restart: bool,
    pub strict_fencing: bool,
    pub synchronous_mode: SynchronousMode,
    /// At least 1.
    pub max_base_backups: u16,
    pub failover_slots: bool,
}

/// How the first database comes to be, with what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    New(NewConfig),
    Existing(KeeperUid),
}

/// What is wrong with a specification: the field and the rule, one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cluster specification: {0}")]
pub struct BadSpec(String);

const PROXY_TIMEOUT: Duration = Duration::from_secs(15);
const SLEEP_INTERVAL: Duration = Duration::from_secs(5);
const FAIL_INTERVAL: Duration = Duration::from_secs(20);
/// R15: silence of the primary that makes it a suspect.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// R13: a report's age must say something within the suspect interval.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
/// R1: twice etcd's election time-out of 1 s, a keepalive each second, and 1 s to kill PostgreSQL in.
pub const LEASE: Duration = Duration::from_secs(5);
/// Shorter: a leadership that lapses while etcd elects stops nobody, and until the key of a dead leader is gone nobody
/// leads. It survives a stop of two seconds.
const SENTINEL_LEASE: Duration = Duration::from_secs(3);
/// etcd grants no less than 2 s, and the margins of R1 leave nothing to live on below 3 s.
const LEAST_LEASE: Duration = Duration::from_secs(3);
/// A host that is gone keeps its authority for so long; etcd itself ends at hours.
const LONGEST_LEASE: Duration = Duration::from_secs(600);
/// Below, processes are busy with nothing else.
const LEAST_SLEEP: Duration = Duration::from_millis(100);
const LEAST_HEARTBEAT: Duration = Duration::from_millis(10);
/// Below, a scheduler that is late looks like a dead host.
const LEAST_SUSPICION: Duration = Duration::from_millis(100);
/// A silence is one of several heartbeats.
const BEATS_PER_SUSPICION: u32 = 3;
/// Each reads the whole database from the primary, beside its clients.
const MAX_BASE_BACKUPS: u16 = 2;
/// stolon's own default: 1024 * 1204 bytes (`reference`: the digits are swapped there; kept for compatibility).
const MAX_STANDBY_LAG: u32 = 1024 * 1204;

impl StoredSpec {
    /// Applies every default and checks every rule.
    pub fn resolve(&self) -> Result<Spec, BadSpec> {
        let or = |value: Option<GoDuration>, default: Duration| value.map_or(default, |d| d.0);
        let secs = Duration::from_secs;
        if self.role == Some(ClusterRole::Standby) {
            return Err(BadSpec("role standby is not supported by this version: only master is".into()));
        }
        let spec = Spec {
            sleep_interval: or(self.sleep_interval, SLEEP_INTERVAL),
            request_timeout: or(self.request_timeout, secs(10)),
            convergence_timeout: or(self.convergence_timeout, secs(30)),
            init_timeout: or(self.init_timeout, secs(300)),
            sync_timeout: or(self.sync_timeout, Duration::ZERO),
            ready_timeout: or(self.db_wait_ready_timeout, secs(60)),
            fail_interval: or(self.fail_interval, FAIL_INTERVAL),
            dead_keeper_removal_interval: or(self.dead_keeper_removal_interval, secs(48 * 3600)),
            proxy_check_interval: or(self.proxy_check_interval, secs(5)),
            proxy_timeout: or(self.proxy_timeout, PROXY_TIMEOUT),
            suspect_interval: or(self.suspect_interval, SUSPECT_INTERVAL),
            heartbeat_interval: or(self.heartbeat_interval, HEARTBEAT_INTERVAL),
            keeper_lease: or(self.keeper_lease_duration, LEASE),
            sentinel_lease: or(self.sentinel_lease_duration, SENTINEL_LEASE),
            proxy_lease: or(self.proxy_lease_duration, LEASE).min(whole_seconds(or(self.proxy_timeout, PROXY_TIMEOUT))),
            max_standbys: self.max_standbys.unwrap_or(20),
            max_standbys_per_sender: self.max_standbys_per_sender.unwrap_or(3),
            max_standby_lag: self.max_standby_lag.unwrap_or(MAX_STANDBY_LAG).into(),
            synchronous_replication: self.synchronous_replication.unwrap_or(false),
            min_synchronous_standbys: self.min_synchronous_standbys.unwrap_or(1),
            max_synchronous_standbys: self.max_synchronous_standbys.unwrap_or(1),
            additional_wal_senders: self.additional_wal_senders.unwrap_or(5),
            additional_slots: self.additional_master_replication_slots.clone().unwrap_or_default(),
            use_pg_rewind: self.use_pgrewind.unwrap_or(false),
            init: self.resolve_init()?,
            merge_parameters: self.merge_pg_parameters.unwrap_or(true),
            access: self.default_su_repl_access_mode.unwrap_or_default(),
            parameters: self.pg_parameters.clone().unwrap_or_default(),
            hba: self.pg_hba.clone(),
            automatic_restart: self.automatic_pg_restart.unwrap_or(false),
            strict_fencing: self.strict_fencing.unwrap_or(false),
            synchronous_mode: self.synchronous_mode.unwrap_or_default(),
            max_base_backups: self.max_base_backups.unwrap_or(MAX_BASE_BACKUPS),
            failover_slots: self.failover_slots.unwrap_or(false),
        };
        spec.check()?;
        Ok(spec)
    }

    fn resolve_init(&self) -> Result<Init, BadSpec> {
        match self.init_mode {
            None => Err(BadSpec("initMode is missing: write \"new\" or \"existing\"".into())),
            Some(StoredInitMode::New) => Ok(Init::New(self.new_config.clone().unwrap_or_default())),
            Some(StoredInitMode::Existing) => match &self.existing_config {
                Some(existing) => Ok(Init::Existing(existing.keeper_uid.clone())),
                None => Err(BadSpec("existingConfig.keeperUID is missing (initMode is existing)".into())),
            },
            Some(StoredInitMode::Pitr) => Err(BadSpec("initMode pitr is not supported by this version".into())),
        }
    }
}

impl Spec {
    fn check(&self) -> Result<(), BadSpec> {
        let refuse = |text: String| Err(BadSpec(text));
        let (check, timeout) = (self.proxy_check_interval, self.proxy_timeout);
        if check >= timeout {
            return refuse(format!(
                "proxyCheckInterval is {check:?}: it must be below proxyTimeout, which is {timeout:?}"
            ));
        }
        for (name, value, least) in [
            ("sleepInterval", self.sleep_interval, LEAST_SLEEP),
            ("heartbeatInterval", self.heartbeat_interval, LEAST_HEARTBEAT),
            ("suspectInterval", self.suspect_interval, LEAST_SUSPICION),
        ] {
            if value < least {
                return refuse(format!("{name} is {value:?}: it must be at least {least:?}"));
            }
        }
        self.check_timings()?;
        if self.max_synchronous_standbys == 0 || self.max_synchronous_standbys < self.min_synchronous_standbys {
            return refuse(format!(
                "maxSynchronousStandbys is {}: it must be at least 1, and at least minSynchronousStandbys, which is {}",
                self.max_synchronous_standbys, self.min_synchronous_standbys
            ));
        }
        if self.max_standbys_per_sender == 0 {
            return refuse("maxStandbysPerSender must be at least 1".into());
        }
        if self.max_base_backups == 0 {
            return refuse("maxBaseBackups must be at least 1".into());
        }
        if self.max_standbys == 0 {
            return refuse("maxStandbys must be at least 1".into());
        }
        for slot in &self.additional_slots {
            let plain = slot.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            if slot.is_empty() || !plain || slot.starts_with("stolon_") {
                return refuse(format!(
                    "additionalMasterReplicationSlots: {slot:?} is no valid name (a-z, 0-9, _, not starting with stolon_)"
                ));
            }
        }
        for line in self.hba.iter().flatten() {
            if line.contains(['\n', '\r']) {
                return refuse("pgHBA: an entry holds a line break".into());
            }
        }
        for (name, value) in &self.parameters {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
            if name.is_empty() || !plain || value.contains(['\n', '\r', '\0']) {
                return refuse(format!("pgParameters: {name:?} is no parameter name, or its value holds a line break"));
            }
        }
        Ok(())
    }
}

impl Spec {
    /// heartbeatInterval < suspectInterval <= failInterval, and leases that R1's margins leave something of.
    fn check_timings(&self) -> Result<(), BadSpec> {
        let refuse = |text: String| Err(BadSpec(text));
        let (beat, suspect) = (self.heartbeat_interval, self.suspect_interval);
        if beat.saturating_mul(BEATS_PER_SUSPICION) > suspect {
            return refuse(format!(
                "heartbeatInterval is {beat:?}: it must be at most a third of suspectInterval, which is {suspect:?}"
            ));
        }
        if suspect > self.fail_interval {
            let limit = self.fail_interval;
            return refuse(format!(
                "suspectInterval is {suspect:?}: it must not be above failInterval, which is {limit:?}"
            ));
        }
        let leases = [
            ("keeperLeaseDuration", self.keeper_lease),
            ("sentinelLeaseDuration", self.sentinel_lease),
            ("proxyLeaseDuration (or proxyTimeout, which caps it)", self.proxy_lease),
        ];
        for (name, lease) in leases {
            if lease < LEAST_LEASE || lease > LONGEST_LEASE || lease.subsec_nanos() != 0 {
                return refuse(format!(
                    "{name} is {lease:?}: it must be whole seconds, at least {LEAST_LEASE:?}, at most {LONGEST_LEASE:?}"
                ));
            }
        }
        Ok(())
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_specification_has_stolons_defaults_and_rewinds() {
        let spec = StoredSpec::automatic().resolve().unwrap();
        assert_eq!(spec.fail_interval, Duration::from_secs(20));
        assert_eq!(spec.max_standby_lag, 1_232_896);
        assert!(spec.use_pg_rewind);
    }

    #[test]
    fn each_broken_rule_is_named() {
        for (text, word) in [
            (r#"{}"#, "initMode"),
            (r#"{"initMode":"existing"}"#, "existingConfig"),
            (r#"{"initMode":"new","proxyCheckInterval":"15s"}"#, "proxyCheckInterval"),
            (r#"{"initMode":"new","maxStandbysPerSender":0}"#, "maxStandbysPerSender"),
            (r#"{"initMode":"new","minSynchronousStandbys":2}"#, "maxSynchronousStandbys is 1"),
            (r#"{"initMode":"new","heartbeatInterval":"500ms"}"#, "suspectInterval, which is 1s"),
            (r#"{"initMode":"new","suspectInterval":"30s"}"#, "failInterval, which is 20s"),
            (r#"{"initMode":"new","keeperLeaseDuration":"2s"}"#, "keeperLeaseDuration"),
            (r#"{"initMode":"new","proxyCheckInterval":"1s","proxyTimeout":"2500ms"}"#, "proxyTimeout"),
            (r#"{"initMode":"new","additionalMasterReplicationSlots":["a-b"]}"#, "a-b"),
            (r#"{"initMode":"new","pgHBA":["host all\nall"]}"#, "pgHBA"),
        ] {
            let spec: StoredSpec = serde_json::from_str(text).unwrap();
            let error = spec.resolve().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
