//! The stored document as a whole: its bytes, its version, and whether what it says can be true. Knows nothing of what
//! stands beside it in the store.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    ClusterData,
    cluster::{DbRole, FORMAT_VERSION, Phase},
    spec::StoredSpec,
};

/// Why a stored document can't be used: one line, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("cluster data is not the JSON document of format version 1: {0}")]
    NotClusterData(String),
    #[error(
        "cluster data has format version {0}, this program knows only {FORMAT_VERSION}: use the version that wrote it"
    )]
    NewerFormat(u64),
    #[error("cluster data are in an impossible state: {0}")]
    Impossible(String),
}

impl ClusterData {
    /// Reads a stored document. The version is looked at first: a newer one is named as such, not as broken. What
    /// contradicts itself is not believed either: a primary must not stop for a slip of somebody's editor.
    pub fn parse(bytes: &[u8]) -> Result<ClusterData, Unreadable> {
        // Nearly always it is what it should be; only what is not deserves the second look that tells why.
        if let Ok(data) = serde_json::from_slice::<ClusterData>(bytes)
            && data.format_version == FORMAT_VERSION
        {
            data.consistent().map_err(Unreadable::Impossible)?;
            return Ok(data);
        }
        ClusterData::parse_slowly(bytes)
    }

    fn parse_slowly(bytes: &[u8]) -> Result<ClusterData, Unreadable> {
        let broken = |error: serde_json::Error| Unreadable::NotClusterData(error.to_string());
        let value: Value = serde_json::from_slice(bytes).map_err(broken)?;
        match value.get("formatVersion").and_then(Value::as_u64) {
            Some(FORMAT_VERSION) => {
                let spec = value.pointer("/cluster/spec").cloned();
                let named = |error| match spec.as_ref().and_then(StoredSpec::flaw) {
                    Some(flaw) => Unreadable::NotClusterData(format!("cluster.spec.{flaw}")),
                    None => broken(error),
                };
                let data: ClusterData = serde_json::from_value(value).map_err(named)?;
                data.consistent().map_err(Unreadable::Impossible)?;
                Ok(data)
            }
            Some(other) => Err(Unreadable::NewerFormat(other)),
            None => Err(Unreadable::NotClusterData("formatVersion is missing".into())),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("cluster data has only text keys")
    }

    /// What must hold of any cluster data by themselves; the error is one line for people.
    pub fn consistent(&self) -> Result<(), String> {
        let status = &self.cluster.status;
        let mut keepers = BTreeSet::new();
        for (uid, db) in &self.dbs {
            if uid != &db.uid {
                return Err(format!("db {uid} calls itself {}", db.uid));
            }
            if !self.keepers.contains_key(&db.spec.keeper_uid) {
                return Err(format!("db {uid} is on keeper {}, which is not among the keepers", db.spec.keeper_uid));
            }
            if !keepers.insert(&db.spec.keeper_uid) {
                return Err(format!("keeper {} has two dbs", db.spec.keeper_uid));
            }
            let followed = db.spec.follow_config.as_ref().and_then(|follow| follow.dbuid.as_ref());
            if let Some(followed) = followed.filter(|followed| !self.dbs.contains_key(*followed) || *followed == uid) {
                return Err(format!("db {uid} follows db {followed}, which is not there to follow"));
            }
            if let Some(follower) = db.spec.followers.iter().find(|follower| !self.dbs.contains_key(*follower)) {
                return Err(format!("db {uid} has the follower {follower}, which does not exist"));
            }
        }
        if let Some((uid, keeper)) = self.keepers.iter().find(|(uid, keeper)| *uid != &keeper.uid) {
            return Err(format!("keeper {uid} calls itself {}", keeper.uid));
        }
        match &status.master {
            None if status.phase == Phase::Normal => return Err("the phase is normal, but there is no master".into()),
            None => {}
            Some(master) => match self.dbs.get(master) {
                None => return Err(format!("the master is db {master}, which does not exist")),
                Some(db) if db.spec.role != DbRole::Master => {
                    return Err(format!("the master is db {master}, whose role is standby"));
                }
                Some(_) => {}
            },
        }
        match &status.fencing {
            Some(mark) if mark.epoch != status.epoch => {
                Err(format!("epoch {} is marked as ending, the present one is {}", mark.epoch, status.epoch))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_contradicts_itself_is_not_believed() {
        let text = include_bytes!("testdata/clusterdata.json");
        let edited = |path: &str, value: Value| {
            let mut document: Value = serde_json::from_slice(text).unwrap();
            *document.pointer_mut(path).unwrap() = value;
            ClusterData::parse(document.to_string().as_bytes())
        };
        assert!(matches!(
            edited("/cluster/status/master", "nobody".into()),
            Err(Unreadable::Impossible(problem)) if problem.contains("nobody")
        ));
        assert!(matches!(edited("/keepers", Value::Null), Err(Unreadable::Impossible(_))));
        let named = edited("/cluster/spec/failInterval", "-1s".into()).unwrap_err().to_string();
        assert!(named.contains("cluster.spec.failInterval"), "{named}");
    }
}
