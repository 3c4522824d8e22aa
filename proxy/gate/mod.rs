//! The gate: who may be forwarded, and to where (R1, R3, R7, R10). A state machine of values: the time is an argument,
//! what it knows of etcd is handed in, and it does no I/O. Whoever wants to dial the primary needs a `Leased`, which
//! only an open route gives; an epoch's end is acknowledged only when every `Leased` of it has been handed back.

pub mod door;
pub mod facts;
mod ledger;
#[cfg(test)]
mod property;
mod route;
#[cfg(test)]
mod tests;

use stolon::model::{Epoch, Moment};

use self::ledger::Ledger;
pub use self::{
    facts::{Cluster, Facts, Heard, Lease, Mark},
    ledger::Serial,
    route::{Closed, Route},
};

/// Proof that its holder may dial the primary of one epoch, or is connected to it. To be handed back by `leave`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dial that is not handed back holds the acknowledgement up for ever"]
pub struct Leased {
    serial: Serial,
    epoch: Epoch,
    connected: bool,
}

impl Leased {
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn serial(&self) -> Serial {
        self.serial
    }
}

/// The right of connections to go on: from the opening of a route until its epoch ends, or the registration does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub serial: Serial,
    pub route: Route,
    /// Not one byte is forwarded from here on; moved by each answered keepalive.
    pub until: Moment,
    /// New connections may enter. False while the keys that lead to the primary are missing, though its epoch goes on.
    pub open: bool,
    /// The epoch began before this proxy's eyes: the route is the last step of a change of primary.
    pub began: bool,
    /// Trace context of that change, as the key `ready` carries it; empty for none.
    pub traceparent: String,
}

#[derive(Clone, Debug)]
pub struct Gate {
    lease: Option<Lease>,
    facts: Option<Facts>,
    heard: Option<Heard>,
    /// Why what answers is not the store that was known, for good.
    refused: Option<String>,
    /// Highest epoch of cluster data read from etcd, and whether it followed another one before our eyes.
    seen: Epoch,
    began: bool,
    /// Highest epoch that has ended. Never falls.
    fenced: Epoch,
    acknowledged: Epoch,
    grant: Option<Grant>,
    last: Serial,
    ledger: Ledger,
    closed: Option<Closed>,
}

impl Default for Gate {
    /// Closed until it knows better.
    fn default() -> Gate {
        Gate {
            lease: None,
            facts: None,
            heard: None,
            refused: None,
            seen: Epoch::NONE,
            began: false,
            fenced: Epoch::NONE,
            acknowledged: Epoch::NONE,
            grant: None,
            last: Serial::default(),
            ledger: Ledger::default(),
            closed: Some(Closed::NotRegistered),
        }
    }
}

impl Gate {
    /// The own registration has changed, or was renewed.
    pub fn registered(&mut self, lease: Option<Lease>, now: Moment) {
        // A deadline that passed unnoticed has passed: what it covered is over before the renewal counts.
        self.settle(now);
        self.lease = lease;
        self.settle(now);
    }

    /// A newer snapshot of etcd. An older one is ignored.
    pub fn read(&mut self, facts: Facts, now: Moment) {
        if self.facts.as_ref().is_some_and(|known| known.revision > facts.revision) {
            return;
        }
        if let Cluster::Known { epoch, .. } = facts.cluster
            && epoch > self.seen
        {
            self.began = self.facts.is_some();
            self.seen = epoch;
        }
        self.facts = Some(facts);
        self.settle(now);
    }

    /// A view by a sentinel's stream. It may end an epoch before etcd's watch tells, and nothing else.
    pub fn heard(&mut self, heard: Heard, now: Moment) {
        self.heard = Some(heard);
        self.settle(now);
    }

    /// The store holds less than was seen, or is another one: it vouches for nothing any more (R5). For good.
    pub fn refuse(&mut self, why: String, now: Moment) {
        self.refused = Some(why);
        self.settle(now);
    }

    /// Time has passed; needed at `deadline`.
    pub fn tick(&mut self, now: Moment) {
        self.settle(now);
    }

    /// When to call `tick` next, if nothing else happens before.
    pub fn deadline(&self) -> Option<Moment> {
        self.grant.as_ref().map(|grant| grant.until)
    }

    /// Permission to dial the primary. Counts as a dial in progress from now on.
    pub fn enter(&mut self, now: Moment) -> Option<Leased> {
        self.settle(now);
        let grant = self.grant.as_ref().filter(|grant| grant.open)?;
        let (serial, epoch) = (grant.serial, grant.route.epoch);
        self.ledger.dialing(serial, epoch);
        Some(Leased { serial, epoch, connected: false })
    }

    /// The dial has succeeded. False when the epoch has ended meanwhile: close it, and hand `leased` back.
    #[must_use]
    pub fn connected(&mut self, leased: &mut Leased, now: Moment) -> bool {
        self.settle(now);
        let current = self.grant.as_ref().is_some_and(|grant| grant.serial == leased.serial);
        if current && !leased.connected {
            leased.connected = true;
            self.ledger.connected(leased.serial);
        }
        current
    }

    /// The dial was given up, or both ends of the connection are closed.
    pub fn leave(&mut self, leased: Leased, now: Moment) {
        self.ledger.left(leased.serial, leased.connected);
        self.settle(now);
    }

    /// The grant that connections live on; none: whatever is open must be cut.
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    /// Why new connections find no way; none while they do.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// No connection and no dial of an epoch up to this one is left, nor will there be one (R7). Never falls.
    pub fn acknowledged(&self) -> Epoch {
        self.acknowledged
    }

    /// Connections that are forwarded, or being cut.
    pub fn connections(&self) -> u64 {
        self.ledger.connections()
    }

    /// The mark that is in force, as far as this proxy knows.
    pub fn mark(&self) -> Option<&Mark> {
        let read = match &self.facts {
            Some(Facts { cluster: Cluster::Known { mark, .. }, .. }) => mark.as_ref(),
            _ => None,
        };
        read.or_else(|| self.news().and_then(|heard| heard.mark.as_ref()))
    }

    fn settle(&mut self, now: Moment) {
        self.fence();
        self.revoke(now);
        if self.ledger.drained(self.fenced) {
            self.acknowledged = self.fenced;
        }
        match self.judge(now) {
            Ok(route) => self.open(route),
            Err(closed) => self.close(closed),
        }
    }

    /// What was heard, when it is newer than what was read of the same cluster.
    fn news(&self) -> Option<&Heard> {
        let heard = self.heard.as_ref()?;
        match &self.facts.as_ref()?.cluster {
            Cluster::Known { uid, revision, .. } if *uid == heard.uid && heard.revision > *revision => Some(heard),
            _ => None,
        }
    }

    /// A mark ends its epoch, a newer epoch ends all before it. A stream alone ends nothing beyond the epoch that etcd
    /// has shown: a peer that errs can cost this proxy its connections, not its future.
    fn fence(&mut self) {
        let mut ended = Epoch::NONE;
        if let Some(Facts { cluster: Cluster::Known { epoch, mark, .. }, .. }) = &self.facts {
            ended = ended_by(*epoch, mark.as_ref());
        }
        if let Some(heard) = self.news() {
            ended = ended.max(ended_by(heard.epoch, heard.mark.as_ref()).min(self.seen));
        }
        self.fenced = self.fenced.max(ended);
    }

    fn revoke(&mut self, now: Moment) {
        let Some(grant) = &self.grant else { return };
        let held = self.standing(now).is_ok();
        let went_back = match self.facts.as_ref().map(|facts| &facts.cluster) {
            Some(Cluster::Known { epoch, uid, .. }) => *epoch < self.seen || *uid != grant.route.cluster,
            _ => false,
        };
        if !held || went_back || grant.route.epoch <= self.fenced {
            self.grant = None;
        }
    }

    fn standing(&self, now: Moment) -> Result<&Facts, Closed> {
        match &self.refused {
            Some(why) => Err(Closed::Refused(why.clone())),
            None => route::standing(self.lease.as_ref(), self.facts.as_ref(), now),
        }
    }

    fn judge(&self, now: Moment) -> Result<Route, Closed> {
        let facts = self.standing(now)?;
        let route = route::judge(facts, self.seen, self.fenced)?;
        let same = self.grant.as_ref().filter(|grant| grant.route == route).map(|grant| grant.serial);
        match self.ledger.others(same) {
            Some(epoch) => Err(Closed::Draining(epoch)),
            None => Ok(route),
        }
    }

    fn open(&mut self, route: Route) {
        let Some(until) = self.lease.map(|lease| lease.deadline) else { return };
        self.closed = None;
        match &mut self.grant {
            Some(grant) if grant.route == route => (grant.until, grant.open) = (until, true),
            _ => {
                self.last = self.last.next();
                let began = std::mem::take(&mut self.began);
                let ready = self.facts.as_ref().and_then(|facts| facts.ready.as_ref());
                let traceparent = ready.map(|ready| ready.traceparent.clone()).unwrap_or_default();
                self.grant = Some(Grant { serial: self.last, route, until, open: true, began, traceparent });
            }
        }
    }

    fn close(&mut self, closed: Closed) {
        if let Some(grant) = &mut self.grant {
            grant.until = self.lease.map_or(grant.until, |lease| lease.deadline);
            // What can't be read says nothing: the keys beside it still lead to the primary, or they don't.
            let blind = matches!(closed, Closed::Unusable(_));
            grant.open = blind && grant.open && self.facts.as_ref().is_some_and(|facts| leads(facts, &grant.route));
            if matches!(closed, Closed::Draining(_)) {
                // The primary moved within its epoch: what leads to its former address is cut first.
                self.grant = None;
            }
        }
        let open = self.grant.as_ref().is_some_and(|grant| grant.open);
        self.closed = (!open).then_some(closed);
    }
}

/// The highest epoch that is over when the cluster is in `epoch`.
fn ended_by(epoch: Epoch, mark: Option<&Mark>) -> Epoch {
    let before = Epoch(epoch.0.saturating_sub(1));
    mark.map_or(before, |mark| mark.epoch.max(before))
}

fn leads(facts: &Facts, route: &Route) -> bool {
    facts.primary.as_ref().zip(facts.ready.as_ref()).is_some_and(|(primary, ready)| {
        primary.epoch == route.epoch && ready.epoch == route.epoch && primary.lease == ready.lease
    })
}
