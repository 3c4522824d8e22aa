//! Keys and events become a mirror. Each value is parsed once, when it comes; one that can't be read is named and harms
//! no other.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Candidate, Held, Mirror, Registered, Stored, keys::Keys, keys::Which};
use crate::model::{ClusterData, Epoch, LeaseId, Revision, SentinelUid};

/// One key as it stands.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    pub lease: LeaseId,
    pub created: Revision,
    pub modified: Revision,
}

impl Mirror {
    /// Takes a key in; `revision` is the caller's business.
    pub fn put(&mut self, keys: &Keys, entry: Entry) {
        self.malformed.remove(&entry.key);
        if let Err(problem) = self.take(keys, &entry) {
            self.remove(keys, &entry.key);
            self.malformed.insert(entry.key, problem);
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, keys: &Keys, key: &str) {
        self.malformed.remove(key);
        match keys.which(key) {
            Some(Which::ClusterData) => self.cluster = None,
            Some(Which::Keeper(uid)) => drop(self.keepers.remove(&uid)),
            Some(Which::Proxy(uid)) => drop(self.proxies.remove(&uid)),
            Some(Which::Sentinel(uid)) => drop(self.sentinels.remove(&uid)),
            Some(Which::Candidate) => self.candidates.retain(|candidate| candidate.key != key),
            Some(Which::Primary) => self.primary = None,
            Some(Which::Ready) => self.ready = None,
            Some(Which::Served) => self.served = None,
            Some(Which::Epoch) => self.highest_epoch = None,
            Some(Which::Strange(_)) | None => {}
        }
    }

    /// Lease that a registration's key hangs on; `None` when it is not there.
    pub fn lease_of(&self, keys: &Keys, key: &str) -> Option<LeaseId> {
        self.written_on(keys, key).map(|(lease, _)| lease)
    }

    /// The same, with the revision that wrote its value.
    pub fn written_on(&self, keys: &Keys, key: &str) -> Option<(LeaseId, Revision)> {
        fn of<T>(registered: &Registered<T>) -> (LeaseId, Revision) {
            (registered.lease, registered.modified)
        }
        match keys.which(key)? {
            Which::Keeper(uid) => self.keepers.get(&uid).map(of),
            Which::Proxy(uid) => self.proxies.get(&uid).map(of),
            Which::Sentinel(uid) => self.sentinels.get(&uid).map(of),
            _ => None,
        }
    }

    fn take(&mut self, keys: &Keys, entry: &Entry) -> Result<(), String> {
        match keys.which(&entry.key) {
            None => {}
            Some(Which::Strange(problem)) => return Err(problem),
            Some(Which::ClusterData) => self.cluster = Some(stored(entry)),
            Some(Which::Keeper(uid)) => drop(self.keepers.insert(uid, registered(entry)?)),
            Some(Which::Proxy(uid)) => drop(self.proxies.insert(uid, registered(entry)?)),
            Some(Which::Sentinel(uid)) => drop(self.sentinels.insert(uid, registered(entry)?)),
            Some(Which::Candidate) => self.candidate(entry)?,
            Some(Which::Primary) => self.primary = Some(held(entry)?),
            Some(Which::Ready) => self.ready = Some(held(entry)?),
            Some(Which::Served) => self.served = Some(json(&entry.value)?),
            Some(Which::Epoch) => {
                let text = String::from_utf8_lossy(&entry.value);
                let epoch = text.trim().parse().map_err(|_| format!("{text:?} is no epoch"))?;
                self.highest_epoch = Some((Epoch(epoch), entry.modified));
            }
        }
        Ok(())
    }

    fn candidate(&mut self, entry: &Entry) -> Result<(), String> {
        let uid = SentinelUid::parse(String::from_utf8_lossy(&entry.value)).map_err(|error| error.to_string())?;
        self.candidates.retain(|candidate| candidate.key != entry.key);
        let (key, lease, created) = (entry.key.clone(), entry.lease, entry.created);
        self.candidates.push(Candidate { uid, key, lease, created });
        self.candidates.sort_by_key(|candidate| candidate.created);
        Ok(())
    }
}

fn stored(entry: &Entry) -> Stored {
    let data = ClusterData::parse(&entry.value).map(Arc::new);
    Stored { revision: entry.modified, bytes: Arc::new(entry.value.clone()), data }
}

fn registered<T: DeserializeOwned>(entry: &Entry) -> Result<Registered<T>, String> {
    let info = json(&entry.value)?;
    Ok(Registered { info, lease: entry.lease, created: entry.created, modified: entry.modified })
}

fn held<T: DeserializeOwned>(entry: &Entry) -> Result<Held<T>, String> {
    Ok(Held { value: json(&entry.value)?, lease: entry.lease, modified: entry.modified })
}

fn json<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| format!("its value can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClusterName, KeeperUid};

    fn keys() -> Keys {
        Keys::new("p", &ClusterName::parse("c").unwrap())
    }

    fn entry(name: &str, value: &str, revision: i64) -> Entry {
        let (key, value) = (format!("p/c/{name}"), value.as_bytes().to_vec());
        Entry { key, value, lease: LeaseId(7), created: Revision(revision), modified: Revision(revision) }
    }

    #[test]
    fn an_unreadable_value_is_named_and_takes_the_former_one_away() {
        let mut mirror = Mirror::default();
        mirror.put(&keys(), entry("primary", r#"{"keeper":"k0","db":"d","epoch":3}"#, 1));
        assert_eq!(mirror.primary.as_ref().unwrap().value.epoch, Epoch(3));
        mirror.put(&keys(), entry("primary", "{", 2));
        assert!(mirror.primary.is_none() && mirror.malformed.contains_key("p/c/primary"));
        mirror.remove(&keys(), "p/c/primary");
        assert!(mirror.malformed.is_empty());
    }

    #[test]
    fn the_oldest_candidate_leads_whatever_the_order_of_arrival() {
        let mut mirror = Mirror::default();
        mirror.put(&keys(), entry("sentinel-leader/b", "s2", 9));
        mirror.put(&keys(), entry("sentinel-leader/a", "s1", 5));
        assert_eq!(mirror.leader().unwrap().uid.as_str(), "s1");
        mirror.remove(&keys(), "p/c/sentinel-leader/a");
        assert_eq!(mirror.leader().unwrap().uid.as_str(), "s2");
    }

    #[test]
    fn cluster_data_that_cant_be_read_stay_with_their_reason() {
        let mut mirror = Mirror::default();
        mirror.put(&keys(), entry("clusterdata", r#"{"formatVersion":2}"#, 4));
        let stored = mirror.cluster.as_ref().unwrap();
        assert!(stored.data.is_err() && stored.revision == Revision(4));
        assert!(mirror.data().is_none() && mirror.malformed.is_empty());
        mirror.put(&keys(), entry("keepers/info/k0", "nonsense", 5));
        assert!(!mirror.keepers.contains_key(&KeeperUid::parse("k0").unwrap()) && mirror.malformed.len() == 1);
    }
}
