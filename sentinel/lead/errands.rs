//! What the loop does not wait for: knocks, redials, and calls about a proxy's lease. Each is bounded in time, each runs
//! once at a time; its result goes into the hub, which wakes the loop.

use std::{collections::BTreeSet, future::Future, time::Duration};

use stolon::{
    model::{LeaseId, report::ProbeResult},
    rpc::{dial_check, knock},
    store::{Store, StoreError},
    task::clock,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    decide::Action,
    election::{Election, Leadership},
    hub::Hub,
};

/// The own knocks and dials end before a round of witnesses does (`hub::WITNESS`).
const DEADLINE: Duration = Duration::from_millis(450);
/// At once; a keeper has two or three at most. What is not started is asked for again by the next decision.
const MOST: usize = 64;
/// After a call to etcd that came to nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// The errands under way.
pub struct Errands {
    hub: Hub,
    store: Store,
    election: Election,
    running: JoinSet<Option<LeaseId>>,
    /// Leases that are being measured or revoked.
    leases: BTreeSet<LeaseId>,
}

impl Errands {
    pub fn new(hub: &Hub, store: &Store, election: &Election) -> Errands {
        let (hub, store, election) = (hub.clone(), store.clone(), election.clone());
        Errands { hub, store, election, running: JoinSet::new(), leases: BTreeSet::new() }
    }

    /// Starts what an action asks for; commits and resignations are the loop's own business.
    pub fn start(&mut self, action: &Action, leadership: &Leadership) {
        if self.running.len() >= MOST {
            return;
        }
        match action {
            Action::AskWitnesses { target, host, port } => {
                tracing::debug!(keeper = %target, "asking everybody whether its PostgreSQL answers");
                let asked = self.hub.lock().ask(target, host, *port);
                let (target, host, port) = (target.clone(), host.clone(), *port);
                self.probe(async move { knock(&host, port, DEADLINE).await }, move |hub, result| {
                    hub.own_witness(&target, asked, result);
                });
            }
            Action::Redial { keeper, address } => {
                let (asked, keeper, address) = (clock::now(), keeper.clone(), address.clone());
                self.hub.lock().redialled(&keeper, asked, None);
                self.probe(async move { dial_check(&address, DEADLINE).await }, move |hub, result| {
                    hub.lock().redialled(&keeper, asked, Some(result));
                });
            }
            Action::KnockPostgres { keeper, host, port } => {
                let (asked, keeper, host, port) = (clock::now(), keeper.clone(), host.clone(), *port);
                self.hub.lock().knocked(&keeper, asked, None);
                self.probe(async move { knock(&host, port, DEADLINE).await }, move |hub, result| {
                    hub.lock().knocked(&keeper, asked, Some(result));
                });
            }
            Action::MeasureLease { lease, .. } if self.leases.insert(*lease) => {
                drop(self.running.spawn(measure(self.hub.clone(), self.store.clone(), *lease)));
            }
            Action::RevokeLease { proxy, lease } if self.leases.insert(*lease) => {
                tracing::warn!(%proxy, %lease, "the lease of a proxy that does not acknowledge is revoked");
                let (store, election) = (self.store.clone(), self.election.clone());
                self.running.spawn(revoke(store, election, leadership.clone(), *lease));
            }
            Action::MeasureLease { .. } | Action::RevokeLease { .. } | Action::Commit(_) | Action::Resign => {}
        }
    }

    /// Returns when one has ended; never while none runs.
    pub async fn finished(&mut self) {
        match self.running.join_next().await {
            Some(ended) => {
                if let Ok(Some(lease)) = ended {
                    self.leases.remove(&lease);
                }
            }
            None => std::future::pending().await,
        }
    }

    fn probe<F, T>(&mut self, probe: F, tell: T)
    where
        F: Future<Output = ProbeResult> + Send + 'static,
        T: FnOnce(&Hub, ProbeResult) + Send + 'static,
    {
        let hub = self.hub.clone();
        self.running.spawn(async move {
            tell(&hub, probe.await);
            None
        });
    }
}

async fn measure(hub: Hub, store: Store, lease: LeaseId) -> Option<LeaseId> {
    match store.granted_ttl(lease).await {
        // Zero for one that is gone.
        Ok(ttl) => drop(hub.lock().seen.ttls.insert(lease, ttl.unwrap_or_default())),
        Err(error) => {
            tracing::warn!(%lease, %error, "a proxy's lease could not be measured");
            sleep(PAUSE).await;
        }
    }
    Some(lease)
}

/// A revocation can't compare anything: so a linearizable reading that shows the own leadership comes right before it,
/// and it is given up when the leadership runs out.
async fn revoke(store: Store, election: Election, leadership: Leadership, lease: LeaseId) -> Option<LeaseId> {
    let attempt = async {
        let mirror = store.read().await?;
        match election.leadership(clock::now(), &mirror) {
            Some(still) if still.continues(&leadership) => store.revoke(lease).await,
            _ => Err(StoreError::Refused("another sentinel leads".into())),
        }
    };
    match timeout(leadership.remaining(clock::now()), attempt).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%lease, %error, "a proxy's lease could not be revoked");
            sleep(PAUSE).await;
        }
        Err(_) => tracing::warn!(%lease, "a proxy's lease could not be revoked in time"),
    }
    Some(lease)
}
