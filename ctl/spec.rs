//! `spec`: the cluster specification as it is stored, or with every default filled in.

use anyhow::anyhow;
use stolon::model::{
    godur::GoDuration,
    spec::{BadSpec, ClusterRole, StoredSpec},
};

use crate::{cli::SpecArgs, store};

pub async fn run(args: &SpecArgs) -> anyhow::Result<()> {
    let mirror = store::read(&args.access.store).await?;
    let stored = store::cluster_data(&args.access.store, &mirror)?;
    let data = stored.data.as_ref().map_err(|unreadable| anyhow!("{unreadable}"))?;
    let spec = if args.defaults { with_defaults(&data.cluster.spec)? } else { data.cluster.spec.clone() };
    store::print(&serde_json::to_string_pretty(&spec)?)?;
    Ok(())
}

/// Every field that has a default, filled in. Fields without one (`newConfig`, `pgParameters` and the like) stay as they
/// are stored.
fn with_defaults(stored: &StoredSpec) -> Result<StoredSpec, BadSpec> {
    let spec = stored.resolve()?;
    let duration = |duration| Some(GoDuration(duration));
    Ok(StoredSpec {
        sleep_interval: duration(spec.sleep_interval),
        request_timeout: duration(spec.request_timeout),
        convergence_timeout: duration(spec.convergence_timeout),
        init_timeout: duration(spec.init_timeout),
        sync_timeout: duration(spec.sync_timeout),
        db_wait_ready_timeout: duration(spec.ready_timeout),
        fail_interval: duration(spec.fail_interval),
        dead_keeper_removal_interval: duration(spec.dead_keeper_removal_interval),
        proxy_check_interval: duration(spec.proxy_check_interval),
        proxy_timeout: duration(spec.proxy_timeout),
        heartbeat_interval: duration(spec.heartbeat_interval),
        keeper_lease_duration: duration(spec.keeper_lease),
        sentinel_lease_duration: duration(spec.sentinel_lease),
        proxy_lease_duration: duration(spec.proxy_lease),
        min_synchronous_standbys: Some(spec.min_synchronous_standbys),
        max_synchronous_standbys: Some(spec.max_synchronous_standbys),
        suspect_interval: duration(spec.suspect_interval),
        max_standbys: Some(spec.max_standbys),
        max_standbys_per_sender: Some(spec.max_standbys_per_sender),
        max_standby_lag: u32::try_from(spec.max_standby_lag).ok(),
        synchronous_replication: Some(spec.synchronous_replication),
        role: stored.role.or(Some(ClusterRole::Master)),
        additional_wal_senders: Some(spec.additional_wal_senders),
        additional_master_replication_slots: Some(spec.additional_slots),
        use_pgrewind: Some(spec.use_pg_rewind),
        merge_pg_parameters: Some(spec.merge_parameters),
        default_su_repl_access_mode: Some(spec.access),
        automatic_pg_restart: Some(spec.automatic_restart),
        strict_fencing: Some(spec.strict_fencing),
        synchronous_mode: Some(spec.synchronous_mode),
        max_base_backups: Some(spec.max_base_backups),
        failover_slots: Some(spec.failover_slots),
        ..stored.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_defaults_every_field_stands_there_and_none_changes() {
        let stored: StoredSpec =
            serde_json::from_str(r#"{"initMode":"new","failInterval":"7s","invented":1,"pgParameters":{"a":"b"}}"#)
                .unwrap();
        let all = serde_json::to_value(with_defaults(&stored).unwrap()).unwrap();
        for (field, value) in [
            ("failInterval", serde_json::json!("7s")),
            ("sleepInterval", "5s".into()),
            ("syncTimeout", "0s".into()),
            ("maxStandbyLag", 1_232_896.into()),
            ("synchronousReplication", false.into()),
            ("defaultSUReplAccessMode", "all".into()),
            ("invented", 1.into()),
        ] {
            assert_eq!(all[field], value, "{field}");
        }
        assert_eq!(all["pgParameters"]["a"], "b");
        let again: StoredSpec = serde_json::from_value(all).unwrap();
        assert_eq!(again.resolve().unwrap(), stored.resolve().unwrap());
    }
}
