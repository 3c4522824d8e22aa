//! Whether there is a route, from the facts at hand: a function of values, with the reason when there is none. Knows
//! nothing of connections.

use std::fmt;

use stolon::model::{ClusterUid, Epoch, KeeperUid, Moment, Revision};

use super::facts::{Cluster, Facts, Lease, target};

/// Where connections go. It carries the epoch: a changed revision of the view alone cuts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub epoch: Epoch,
    pub cluster: ClusterUid,
    pub keeper: KeeperUid,
    pub address: String,
    pub port: u16,
}

impl Route {
    /// `host:port` to dial.
    pub fn target(&self) -> String {
        target(&self.address, self.port)
    }
}

/// Why new connections find no way, in one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// What answers is not the store that was known (R5).
    Refused(String),
    NotRegistered,
    /// Past the own registration's deadline (R3).
    Expired,
    NothingRead,
    /// The registration is newer than what was read of the cluster (R7).
    Outdated {
        read: Revision,
        registered_at: Revision,
    },
    /// The own registration is not in etcd: nobody would wait for this proxy.
    Unregistered,
    NoClusterData,
    Unusable(String),
    /// The store holds less than was seen here (R5).
    WentBack {
        seen: Epoch,
        found: Epoch,
    },
    Fenced(Epoch),
    NeverPrimary,
    NoAuthority(Epoch),
    OtherAuthority {
        epoch: Epoch,
        primary: Epoch,
    },
    NotReady(Epoch),
    Draining(Epoch),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Refused(why) => f.write_str(why),
            Closed::NotRegistered => f.write_str("this proxy is not registered in etcd"),
            Closed::Expired => f.write_str("this proxy's registration has run out: etcd has not answered in time"),
            Closed::NothingRead => f.write_str("nothing has been read from etcd yet"),
            Closed::Outdated { read, registered_at } => {
                write!(f, "read etcd up to revision {read} only, registered at {registered_at}")
            }
            Closed::Unregistered => f.write_str("this proxy's registration is missing in etcd"),
            Closed::NoClusterData => {
                f.write_str("there is no cluster data: no sentinel has initialised the cluster yet")
            }
            Closed::Unusable(why) => f.write_str(why),
            Closed::WentBack { seen, found } => write!(
                f,
                "etcd holds epoch {found}, this proxy has seen epoch {seen}: if the store was restored, restart the proxy"
            ),
            Closed::Fenced(epoch) => write!(f, "epoch {epoch} has ended, its successor is being chosen"),
            Closed::NeverPrimary => f.write_str("the cluster has not had a primary yet"),
            Closed::NoAuthority(epoch) => write!(f, "no keeper holds the authority of epoch {epoch}"),
            Closed::OtherAuthority { epoch, primary } => {
                write!(f, "the cluster is in epoch {epoch}, the authority in etcd is of epoch {primary}")
            }
            Closed::NotReady(epoch) => write!(f, "the primary of epoch {epoch} does not serve yet"),
            Closed::Draining(epoch) => write!(f, "connections of epoch {epoch} are still being cut"),
        }
    }
}

/// The own right to route anything at all.
pub(super) fn standing<'a>(lease: Option<&Lease>, facts: Option<&'a Facts>, now: Moment) -> Result<&'a Facts, Closed> {
    let lease = lease.ok_or(Closed::NotRegistered)?;
    if now >= lease.deadline {
        return Err(Closed::Expired);
    }
    let facts = facts.ok_or(Closed::NothingRead)?;
    if facts.revision < lease.registered_at {
        return Err(Closed::Outdated { read: facts.revision, registered_at: lease.registered_at });
    }
    if facts.registration != Some(lease.id) {
        return Err(Closed::Unregistered);
    }
    Ok(facts)
}

/// The route that the cluster's keys show. `seen` is the highest epoch of cluster data so far, `fenced` the highest
/// that has ended.
pub(super) fn judge(facts: &Facts, seen: Epoch, fenced: Epoch) -> Result<Route, Closed> {
    let (uid, epoch, mark) = match &facts.cluster {
        Cluster::Absent => return Err(Closed::NoClusterData),
        Cluster::Unusable(why) => return Err(Closed::Unusable(why.clone())),
        Cluster::Known { uid, epoch, mark, .. } => (uid, *epoch, mark),
    };
    if epoch < seen {
        return Err(Closed::WentBack { seen, found: epoch });
    }
    if let Some(mark) = mark {
        return Err(Closed::Fenced(mark.epoch));
    }
    if epoch.is_none() {
        return Err(Closed::NeverPrimary);
    }
    if epoch <= fenced {
        return Err(Closed::Fenced(epoch));
    }
    served(facts, uid, epoch)
}

/// The keys `primary` and `ready`: of this epoch, of one keeper, on one lease (R10).
fn served(facts: &Facts, uid: &ClusterUid, epoch: Epoch) -> Result<Route, Closed> {
    let primary = facts.primary.as_ref().ok_or(Closed::NoAuthority(epoch))?;
    if primary.epoch != epoch {
        return Err(Closed::OtherAuthority { epoch, primary: primary.epoch });
    }
    let same = |ready: &&super::facts::Ready| {
        ready.epoch == epoch && ready.lease == primary.lease && ready.keeper == primary.keeper
    };
    let ready = facts.ready.as_ref().filter(same).ok_or(Closed::NotReady(epoch))?;
    Ok(Route {
        epoch,
        cluster: uid.clone(),
        keeper: ready.keeper.clone(),
        address: ready.address.clone(),
        port: ready.port,
    })
}
