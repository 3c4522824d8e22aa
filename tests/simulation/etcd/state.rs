//! The state machine: keys, leases and revisions, and a mirror of each revision, made by the mirror's own code from the very
//! bytes that the daemons wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use stolon::{
    model::{ClusterName, LeaseId, Moment, Revision},
    store::{Change, Condition, Entry, Is, Keys, Mirror, Txn},
};

use super::Said;
use crate::rules::{Rule, Without};

struct Lease {
    granted: u64,
    deadline: Moment,
    keys: BTreeSet<String>,
}

pub struct State {
    pub keys: Keys,
    pub revision: i64,
    pub compacted: i64,
    entries: BTreeMap<String, Entry>,
    leases: BTreeMap<i64, Lease>,
    last_lease: i64,
    /// Cluster data were written by one whose key of the election was gone.
    pub deposed: bool,
    /// By revision, from 1 on.
    mirrors: Vec<Arc<Mirror>>,
}

impl Default for State {
    fn default() -> State {
        let keys = Keys::new("sim", &ClusterName::parse("c").expect("a valid name"));
        let first = Mirror { revision: Revision(1), etcd_cluster: 7, ..Mirror::default() };
        State {
            keys,
            revision: 1,
            compacted: 0,
            entries: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0x1000,
            deposed: false,
            mirrors: vec![Arc::new(first)],
        }
    }
}

impl State {
    pub fn newest(&self) -> Arc<Mirror> {
        self.at(self.revision)
    }

    pub fn at(&self, revision: i64) -> Arc<Mirror> {
        self.mirrors[usize::try_from(revision - 1).unwrap_or(0)].clone()
    }

    pub fn grant(&mut self, now: Moment, seconds: u64) -> Said {
        self.last_lease += 0x11;
        let deadline = now + Duration::from_secs(seconds);
        self.leases.insert(self.last_lease, Lease { granted: seconds, deadline, keys: BTreeSet::new() });
        Said::Granted(LeaseId(self.last_lease), seconds)
    }

    pub fn alive(&mut self, now: Moment, lease: LeaseId) -> Said {
        match self.leases.get_mut(&lease.0) {
            Some(lease) => {
                lease.deadline = now + Duration::from_secs(lease.granted);
                Said::Ttl(lease.granted)
            }
            None => Said::Ttl(0),
        }
    }

    pub fn ttl(&self, lease: LeaseId) -> Said {
        Said::Ttl(self.leases.get(&lease.0).map_or(0, |lease| lease.granted))
    }

    pub fn expired(&self, now: Moment) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| LeaseId(*id)).collect()
    }

    /// A new leader: each lease begins anew.
    pub fn prolong(&mut self, now: impl Fn() -> Moment) {
        for lease in self.leases.values_mut() {
            lease.deadline = now() + Duration::from_secs(lease.granted);
        }
    }

    pub fn revoke(&mut self, lease: LeaseId) {
        let Some(lease) = self.leases.remove(&lease.0) else { return };
        if lease.keys.is_empty() {
            return;
        }
        let mut mirror = self.next();
        for key in lease.keys {
            self.entries.remove(&key);
            mirror.remove(&self.keys, &key);
        }
        self.mirrors.push(Arc::new(mirror));
    }

    fn next(&mut self) -> Mirror {
        let mut mirror = Mirror::clone(&self.newest());
        self.revision += 1;
        mirror.revision = Revision(self.revision);
        mirror
    }

    pub fn transact(&mut self, txn: &Txn, without: Without) -> Said {
        if !txn.when.iter().all(|condition| ignored(condition, without) || self.holds(condition)) {
            return Said::Conflict;
        }
        let dead = |change: &Change| matches!(change, Change::Put { lease, .. } if !lease.is_none() && !self.leases.contains_key(&lease.0));
        if txn.then.iter().any(dead) {
            // "requested lease not found"
            return Said::Unavailable;
        }
        let election = |condition: &&Condition| String::from_utf8_lossy(&condition.key).contains("/sentinel-leader/");
        let writes = |change: &Change| matches!(change, Change::Put { key, .. } if key.ends_with(b"/clusterdata"));
        let stale = txn.when.iter().filter(election).any(|condition| !self.holds(condition));
        self.deposed |= stale && txn.then.iter().any(writes);
        let mut mirror = self.next();
        for change in &txn.then {
            self.change(change, &mut mirror);
        }
        self.mirrors.push(Arc::new(mirror));
        Said::Done(Revision(self.revision))
    }

    fn change(&mut self, change: &Change, mirror: &mut Mirror) {
        match change {
            Change::Put { key, value, lease } => {
                let key = String::from_utf8_lossy(key).into_owned();
                let created = self.entries.get(&key).map_or(Revision(self.revision), |entry| entry.created);
                self.detach(&key);
                let modified = Revision(self.revision);
                let entry = Entry { key: key.clone(), value: value.clone(), lease: *lease, created, modified };
                self.entries.insert(key.clone(), Entry { value: Vec::new(), ..entry.clone() });
                mirror.put(&self.keys, entry);
                if let Some(lease) = self.leases.get_mut(&lease.0) {
                    lease.keys.insert(key);
                }
            }
            Change::Delete { key } => {
                let key = String::from_utf8_lossy(key).into_owned();
                self.detach(&key);
                self.entries.remove(&key);
                mirror.remove(&self.keys, &key);
            }
        }
    }

    fn detach(&mut self, key: &str) {
        if let Some(old) = self.entries.get(key)
            && let Some(lease) = self.leases.get_mut(&old.lease.0)
        {
            lease.keys.remove(key);
        }
    }

    fn holds(&self, condition: &Condition) -> bool {
        let key = String::from_utf8_lossy(&condition.key);
        let entry = self.entries.get(key.as_ref());
        match condition.is {
            Is::Modified(revision) => entry.map_or(Revision(0), |entry| entry.modified) == revision,
            Is::Created(revision) => entry.map_or(Revision(0), |entry| entry.created) == revision,
            Is::On(lease) => entry.is_some_and(|entry| entry.lease == lease),
        }
    }

    /// An older copy of the store is put in place (R5): what came after it never was.
    pub fn restore(&mut self, revision: i64) {
        self.mirrors.truncate(usize::try_from(revision).unwrap_or(0));
        self.revision = revision;
        let mirror = self.newest();
        self.entries.retain(|_, entry| entry.created <= mirror.revision);
    }
}

/// What etcd does not compare, in a world without a rule.
fn ignored(condition: &Condition, without: Without) -> bool {
    let key = String::from_utf8_lossy(&condition.key);
    let lacks = |rule| without.lacks(rule);
    key.contains("/sentinel-leader/") && (lacks(Rule::ElectionKey) || lacks(Rule::Leadership))
        || key.ends_with("/clusterdata") && lacks(Rule::ClusterData)
        || key.ends_with("/primary") && lacks(Rule::KeyGone)
}
