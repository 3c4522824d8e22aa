//! A snapshot of all keys of one cluster at one revision. Everything that a daemon learns from etcd (election,
//! registrations, cluster data, authority) is a pure function of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    ClusterData, Epoch, KeeperUid, LeaseId, ProxyUid, Revision, SentinelUid,
    cluster::Unreadable,
    registration::{KeeperInfo, PrimaryKey, ProxyInfo, ReadyKey, SentinelInfo},
};

/// All keys of one cluster at `revision`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// Store revision up to which this snapshot is complete.
    pub revision: Revision,
    /// etcd's own cluster id: another one is another store (R5).
    pub etcd_cluster: u64,
    /// The cluster data; `None` when the key is absent.
    pub cluster: Option<Stored>,
    pub keepers: BTreeMap<KeeperUid, Registered<KeeperInfo>>,
    pub proxies: BTreeMap<ProxyUid, Registered<ProxyInfo>>,
    pub sentinels: BTreeMap<SentinelUid, Registered<SentinelInfo>>,
    /// Keys of the election, oldest first: the first one leads.
    pub candidates: Vec<Candidate>,
    pub primary: Option<Held<PrimaryKey>>,
    pub ready: Option<Held<ReadyKey>>,
    /// The last `ready` ever written, on no lease: who has served, and by which promotion, whatever became of it (R11).
    pub served: Option<ReadyKey>,
    /// The highest epoch ever, which survives whatever rewrites the cluster data (R2).
    pub highest_epoch: Option<(Epoch, Revision)>,
    /// Keys whose value can't be read, with the reason. Each is left alone, and harms nobody else.
    pub malformed: BTreeMap<String, String>,
}

/// The cluster data's key.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// `mod_revision`: what a compare-and-swap compares.
    pub revision: Revision,
    pub bytes: Arc<Vec<u8>>,
    pub data: Result<Arc<ClusterData>, Unreadable>,
}

/// A registration, and the lease that it lives on.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered<T> {
    pub info: T,
    pub lease: LeaseId,
    pub created: Revision,
    pub modified: Revision,
}

/// A key on its holder's lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Held<T> {
    pub value: T,
    pub lease: LeaseId,
    pub modified: Revision,
}

/// One sentinel's key in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub uid: SentinelUid,
    /// Full key.
    pub key: String,
    pub lease: LeaseId,
    pub created: Revision,
}

impl Mirror {
    /// The leading sentinel: the oldest key of the election.
    pub fn leader(&self) -> Option<&Candidate> {
        self.candidates.first()
    }

    /// The cluster data, when they exist and can be read.
    pub fn data(&self) -> Option<(&Arc<ClusterData>, Revision)> {
        let stored = self.cluster.as_ref()?;
        stored.data.as_ref().ok().map(|data| (data, stored.revision))
    }
}
