//! What the auditors remember of one history: who was primary when, what was acknowledged, what was decided and why, and
//! what was found wrong. Judges nothing by itself.

use std::collections::{BTreeMap, BTreeSet};

use stolon::model::{Epoch, KeeperUid};
use stolon_sentinel::decide::Proof;

use crate::{
    postgres::{Commit, Rec},
    runtime::Micros,
    settings::{Replication, Settings},
    world::HostId,
};

/// Which way a client wrote.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    Directly,
    Proxy { host: HostId, epoch: Epoch },
}

/// A commit that a client saw acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub at: Micros,
    pub via: Via,
    pub commit: Commit,
}

/// Records that a started server let clients see, up to this one.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub at: Micros,
    pub host: HostId,
    pub epoch: Epoch,
    pub record: Rec,
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Finding {
    pub at: Micros,
    pub invariant: &'static str,
    pub what: String,
}

/// A server that may take writes in an epoch from then on.
#[derive(Clone, Copy, Debug)]
pub struct Reign {
    pub at: Micros,
    pub host: HostId,
    pub epoch: Epoch,
}

/// An election that etcd has carried out.
#[derive(Clone, Debug)]
pub struct Election {
    pub at: Micros,
    pub proof: Proof,
    pub keeper: KeeperUid,
    /// The primary before, if any, was to have its commits wait for standbys, by the cluster data that ended its epoch.
    pub synchronous: bool,
    /// By a planned handover, with the promise of the old primary on this host, which could have been elected again.
    pub handed_over: Option<HostId>,
}

pub struct Audit {
    last: Rec,
    pub findings: Vec<Finding>,
    pub acks: Vec<Ack>,
    pub shown: Vec<Shown>,
    /// Since when PostgreSQL's commits have waited for standbys, or for the name that nobody has.
    pub first_list: Option<Micros>,
    /// Since when, and in which epoch, the cluster data have known a standby that may take over a synchronous primary.
    pub electable: Option<(Micros, Epoch)>,
    pub reigns: Vec<Reign>,
    /// By epoch.
    pub elections: BTreeMap<Epoch, Election>,
    /// What a leader wanted to prove its next epoch with.
    pub intended: BTreeMap<Epoch, Proof>,
    /// Epochs whose primary wrote `ready`, with the records that it had then.
    pub served: BTreeMap<Epoch, Vec<Rec>>,
    pub announced: BTreeSet<Epoch>,
    /// Highest epoch of the cluster data so far.
    pub epoch: Epoch,
    pub promised: BTreeMap<HostId, Epoch>,
    /// Which sentinel set each epoch's mark.
    pub marked: BTreeMap<Epoch, String>,
    /// Since when each host's guard has worked without a pause.
    pub thawed: BTreeMap<HostId, Micros>,
    pub synchronous: bool,
    /// The store went back on purpose: what it says of epochs is judged no more.
    pub restored: bool,
}

impl Audit {
    pub fn new(settings: &Settings) -> Audit {
        Audit {
            last: 1000,
            findings: Vec::new(),
            acks: Vec::new(),
            shown: Vec::new(),
            first_list: None,
            electable: None,
            reigns: Vec::new(),
            elections: BTreeMap::new(),
            intended: BTreeMap::new(),
            served: BTreeMap::new(),
            announced: BTreeSet::new(),
            epoch: Epoch::NONE,
            promised: BTreeMap::new(),
            marked: BTreeMap::new(),
            thawed: BTreeMap::new(),
            restored: false,
            synchronous: matches!(settings.replication, Replication::Synchronous { .. }),
        }
    }

    /// A new number for a record, a session, whatever has to be unique.
    pub fn record(&mut self) -> Rec {
        self.last += 1;
        self.last
    }

    /// A new system identifier.
    pub fn system(&mut self) -> u64 {
        7_000_000_000_000_000_000 + self.record()
    }

    pub fn found(&mut self, at: Micros, invariant: &'static str, what: String) {
        // The first findings tell; a broken world goes on finding more.
        if self.findings.len() < 20 {
            self.findings.push(Finding { at, invariant, what });
        }
    }

    pub fn reigns(&mut self, at: Micros, host: HostId, epoch: Epoch) {
        let other = self.reigns.iter().find(|reign| reign.epoch == epoch && reign.host != host);
        if let Some(other) = other {
            let what = format!("h{host} is primary in epoch {epoch}, and so was h{}", other.host);
            self.found(at, "epochs", what);
        }
        self.reigns.push(Reign { at, host, epoch });
    }

    /// A promise is on disk, as its keeper believes.
    pub fn promised(&mut self, at: Micros, host: HostId, epoch: Epoch) {
        let before = self.promised.insert(host, epoch).unwrap_or_default();
        if epoch < before {
            let what = format!("h{host} had promised epoch {before}, and says {epoch} now");
            self.found(at, "fenced", what);
        }
    }

    /// A route opens.
    pub fn routes(&mut self, at: Micros, host: HostId, epoch: Epoch) {
        if !self.announced.contains(&epoch) {
            let what =
                format!("the proxy on host {host} routes in epoch {epoch}, whose primary never said that it serves");
            self.found(at, "one primary", what);
        }
    }
}
