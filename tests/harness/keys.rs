//! What stands in etcd about one cluster, read and typed: how the tests see what the daemons decided.

use std::collections::BTreeMap;

use stolon::model::{
    ClusterData, Epoch,
    registration::{KeeperInfo, PrimaryKey, ProxyInfo, ReadyKey, SentinelInfo},
};

use crate::etcd::Etcd;

/// All keys of a cluster at one moment.
#[derive(Debug, Default)]
pub struct Keys {
    pub data: Option<ClusterData>,
    /// `mod_revision` of the cluster data.
    pub data_revision: i64,
    pub primary: Option<PrimaryKey>,
    pub ready: Option<ReadyKey>,
    pub highest_epoch: Option<u64>,
    pub keepers: BTreeMap<String, KeeperInfo>,
    pub proxies: BTreeMap<String, ProxyInfo>,
    pub sentinels: BTreeMap<String, SentinelInfo>,
    /// Uids of the election's candidates, the leader first.
    pub election: Vec<String>,
    /// Leases of the registrations, by key.
    pub leases: BTreeMap<String, i64>,
}

impl Keys {
    /// Reads all below `base` (`PREFIX/CLUSTER/`).
    pub async fn read(etcd: &Etcd, base: &str) -> Result<Keys, String> {
        let mut keys = Keys::default();
        let mut candidates = Vec::new();
        for kv in etcd.range(base).await? {
            let name = kv.key_str().unwrap_or_default().strip_prefix(base).unwrap_or_default().to_owned();
            keys.leases.insert(name.clone(), kv.lease());
            let value = kv.value();
            match name.split('/').collect::<Vec<_>>().as_slice() {
                ["clusterdata"] => {
                    keys.data = Some(ClusterData::parse(value).map_err(|e| e.to_string())?);
                    keys.data_revision = kv.mod_revision();
                }
                ["primary"] => keys.primary = Some(json(&name, value)?),
                ["ready"] => keys.ready = Some(json(&name, value)?),
                ["epoch"] => keys.highest_epoch = String::from_utf8_lossy(value).trim().parse().ok(),
                ["keepers", "info", uid] => drop(keys.keepers.insert((*uid).to_owned(), json(&name, value)?)),
                ["proxies", "info", uid] => drop(keys.proxies.insert((*uid).to_owned(), json(&name, value)?)),
                ["sentinels", "info", uid] => drop(keys.sentinels.insert((*uid).to_owned(), json(&name, value)?)),
                ["sentinel-leader", _] => {
                    candidates.push((kv.create_revision(), String::from_utf8_lossy(value).into_owned()));
                }
                _ => {}
            }
        }
        candidates.sort();
        keys.election = candidates.into_iter().map(|(_, uid)| uid).collect();
        Ok(keys)
    }

    pub fn epoch(&self) -> u64 {
        self.data.as_ref().map_or(0, |data| data.epoch().0)
    }

    /// Uid of the keeper that serves: named in the cluster data, holding `primary`, and `ready`, all in one epoch, and
    /// no change in progress.
    pub fn serving(&self) -> Result<(String, u64), String> {
        let (data, primary, ready) = match (&self.data, &self.primary, &self.ready) {
            (Some(data), Some(primary), Some(ready)) => (data, primary, ready),
            (data, primary, ready) => {
                return Err(format!("cluster data {}, primary {primary:?}, ready {ready:?}", data.is_some()));
            }
        };
        let epoch: Epoch = data.epoch();
        let named = data.primary().map(|(_, db)| db.spec.keeper_uid.clone());
        let agree = primary.epoch == epoch && ready.epoch == epoch && primary.keeper == ready.keeper;
        if agree && named.as_ref() == Some(&primary.keeper) && data.fencing().is_none() {
            return Ok((primary.keeper.to_string(), epoch.0));
        }
        Err(format!(
            "epoch {epoch}, named {named:?}, fencing {:?}, primary {primary:?}, ready {ready:?}",
            data.fencing()
        ))
    }
}

fn json<T: serde::de::DeserializeOwned>(name: &str, value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|e| format!("key {name}: {e}: {}", String::from_utf8_lossy(value)))
}
