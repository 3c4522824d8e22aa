//! What the gate needs of etcd and of sentinels' streams, cut out of the mirror and of views. A document that nobody
//! can have written in good order is no information: it changes nothing.

use stolon::{
    model::{ClusterUid, Epoch, KeeperUid, LeaseId, Moment, ProxyUid, Revision, view::ProxyView},
    store::Mirror,
};

/// The proxy's own registration (R1, R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub id: LeaseId,
    /// Not one byte is forwarded from here on.
    pub deadline: Moment,
    /// Routes need a mirror of this revision or a later one (R7).
    pub registered_at: Revision,
}

/// One snapshot of etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub revision: Revision,
    /// Lease that this proxy's registration hangs on; none when it is not there.
    pub registration: Option<LeaseId>,
    pub cluster: Cluster,
    pub primary: Option<Holder>,
    pub ready: Option<Ready>,
}

/// The cluster data.
#[derive(Clone, Debug, PartialEq)]
pub enum Cluster {
    Absent,
    /// Why, in one line.
    Unusable(String),
    Known {
        uid: ClusterUid,
        /// Revision of the document, by which views are ordered.
        revision: Revision,
        epoch: Epoch,
        mark: Option<Mark>,
    },
}

/// The fencing mark (R6): its epoch ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub epoch: Epoch,
    pub traceparent: String,
}

/// Who holds the key `primary`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub keeper: KeeperUid,
    pub epoch: Epoch,
    pub lease: LeaseId,
}

/// The key `ready` (R10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub keeper: KeeperUid,
    pub epoch: Epoch,
    pub lease: LeaseId,
    pub address: String,
    pub port: u16,
    pub traceparent: String,
}

/// A view that came by a sentinel's stream: it can close, never open.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub uid: ClusterUid,
    pub revision: Revision,
    pub epoch: Epoch,
    pub mark: Option<Mark>,
}

impl Facts {
    pub fn of(mirror: &Mirror, me: &ProxyUid) -> Facts {
        Facts {
            revision: mirror.revision,
            registration: mirror.proxies.get(me).map(|own| own.lease),
            cluster: cluster(mirror),
            primary: mirror.primary.as_ref().map(|held| Holder {
                keeper: held.value.keeper.clone(),
                epoch: held.value.epoch,
                lease: held.lease,
            }),
            ready: mirror.ready.as_ref().map(|held| Ready {
                keeper: held.value.keeper.clone(),
                epoch: held.value.epoch,
                lease: held.lease,
                // Dialled as it is; an IPv6 address has no brackets there.
                address: held.value.address.trim_matches(['[', ']']).to_owned(),
                port: held.value.port,
                traceparent: held.value.traceparent.clone(),
            }),
        }
    }
}

fn cluster(mirror: &Mirror) -> Cluster {
    let Some(stored) = &mirror.cluster else { return Cluster::Absent };
    let data = match &stored.data {
        Ok(data) => data,
        Err(unreadable) => return Cluster::Unusable(unreadable.to_string()),
    };
    let (epoch, fencing) = (data.epoch(), data.fencing());
    match mirror.highest_epoch {
        Some((highest, _)) if epoch > highest => {
            return Cluster::Unusable(format!("cluster data say epoch {epoch}, the highest ever was {highest}"));
        }
        _ => {}
    }
    if let Some(mark) = fencing.filter(|mark| mark.epoch > epoch) {
        return Cluster::Unusable(format!("cluster data end epoch {} while they are in epoch {epoch}", mark.epoch));
    }
    let mark = fencing.map(|mark| Mark { epoch: mark.epoch, traceparent: mark.traceparent.clone() });
    Cluster::Known { uid: data.cluster.uid.clone(), revision: stored.revision, epoch, mark }
}

impl From<&ProxyView> for Heard {
    fn from(view: &ProxyView) -> Heard {
        Heard {
            uid: view.cluster_uid.clone(),
            revision: view.revision,
            epoch: view.epoch,
            mark: view.fencing.as_ref().map(|mark| Mark { epoch: mark.epoch, traceparent: mark.traceparent.clone() }),
        }
    }
}

impl Ready {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn target(&self) -> String {
        target(&self.address, self.port)
    }
}

pub(super) fn target(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
