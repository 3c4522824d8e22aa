//! Names of the keys of one cluster, in stolon's layout: everything is below `<prefix>/<cluster>/`.

use crate::model::{ClusterName, KeeperUid, LeaseId, ProxyUid, SentinelUid};

/// Makes full key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    base: String,
}

/// What a key is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    ClusterData,
    Keeper(KeeperUid),
    Proxy(ProxyUid),
    Sentinel(SentinelUid),
    Candidate,
    Primary,
    Ready,
    Served,
    Epoch,
    /// A name that no program of this kind writes, with the reason.
    Strange(String),
}

impl Keys {
    pub fn new(prefix: &str, cluster: &ClusterName) -> Keys {
        Keys { base: format!("{}/{cluster}/", prefix.trim_end_matches('/')) }
    }

    /// What all keys of the cluster begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn cluster_data(&self) -> String {
        self.below("clusterdata")
    }

    pub fn keeper(&self, uid: &KeeperUid) -> String {
        self.below(&format!("keepers/info/{uid}"))
    }

    pub fn proxy(&self, uid: &ProxyUid) -> String {
        self.below(&format!("proxies/info/{uid}"))
    }

    pub fn sentinel(&self, uid: &SentinelUid) -> String {
        self.below(&format!("sentinels/info/{uid}"))
    }

    /// A sentinel's key in the election; its value is the sentinel's uid.
    pub fn candidate(&self, lease: LeaseId) -> String {
        self.below(&format!("sentinel-leader/{lease}"))
    }

    pub fn primary(&self) -> String {
        self.below("primary")
    }

    pub fn ready(&self) -> String {
        self.below("ready")
    }

    /// What `ready` said last; it outlives its writer.
    pub fn served(&self) -> String {
        self.below("served")
    }

    /// The highest epoch ever (R2).
    pub fn epoch(&self) -> String {
        self.below("epoch")
    }

    fn below(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// `None` for a key of somebody else.
    pub(super) fn which(&self, key: &str) -> Option<Which> {
        let name = key.strip_prefix(&self.base)?;
        let strange = |error: crate::model::ids::BadName| Which::Strange(error.to_string());
        Some(match name.split('/').collect::<Vec<_>>().as_slice() {
            ["clusterdata"] => Which::ClusterData,
            ["primary"] => Which::Primary,
            ["ready"] => Which::Ready,
            ["served"] => Which::Served,
            ["epoch"] => Which::Epoch,
            ["keepers", "info", uid] => KeeperUid::parse(*uid).map_or_else(strange, Which::Keeper),
            ["proxies", "info", uid] => ProxyUid::parse(*uid).map_or_else(strange, Which::Proxy),
            ["sentinels", "info", uid] => SentinelUid::parse(*uid).map_or_else(strange, Which::Sentinel),
            ["sentinel-leader", _] => Which::Candidate,
            _ => Which::Strange("a key of an unknown name".into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_original_and_read_back() {
        let keys = Keys::new("stolon/cluster/", &ClusterName::parse("c").unwrap());
        assert_eq!(keys.cluster_data(), "stolon/cluster/c/clusterdata");
        let uid = KeeperUid::parse("k0").unwrap();
        assert_eq!(keys.keeper(&uid), "stolon/cluster/c/keepers/info/k0");
        assert_eq!(keys.which(&keys.keeper(&uid)), Some(Which::Keeper(uid)));
        assert_eq!(keys.candidate(LeaseId(0x1f)), "stolon/cluster/c/sentinel-leader/1f");
        assert_eq!(keys.which("stolon/cluster/c/sentinel-leader/1f"), Some(Which::Candidate));
        assert!(matches!(keys.which("stolon/cluster/c/keepers/info/No"), Some(Which::Strange(_))));
        assert_eq!(keys.which("stolon/cluster/cc/clusterdata"), None);
    }
}
