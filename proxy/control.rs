//! The control task: carries to the gate what etcd, the own registration, sentinels and the clock say, and carries away
//! what follows: acknowledgements, by etcd and by streams, and the story. It decides nothing, and waits for nobody.

use std::sync::Arc;

use stolon::{
    model::{ClusterName, ProxyUid, Revision, view::ProxyView},
    rpc::{FromSentinel, Urge},
    store::{LeaseState, Mirror, Registration, Store},
    task::{Shutdown, clock, timer::Timer},
    wire::Identity,
};
use tokio::sync::{mpsc, watch};

use crate::{
    gate::{Facts, Lease},
    gatehouse::Gatehouse,
    record::Record,
    service::identity,
    story::Story,
};

pub struct Control {
    pub uid: ProxyUid,
    pub cluster: ClusterName,
    pub store: Store,
    pub house: Gatehouse,
    pub registration: Registration,
    pub record: Record,
    /// The hello of streams.
    pub names: watch::Sender<Identity>,
    pub urge: Urge,
    pub views: mpsc::Receiver<FromSentinel<ProxyView>>,
    pub story: Story,
}

impl Control {
    /// Runs until the shutdown.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), String> {
        let mut timer = Timer::new().map_err(|error| format!("no timer for the registration's deadline: {error}"))?;
        let (mut mirror, mut lease) = (self.store.mirror(), self.registration.lease());
        let mut news = self.house.news();
        // What they say so far is not known here yet.
        mirror.mark_changed();
        lease.mark_changed();
        let mut read = Revision::default();
        loop {
            let deadline = news.borrow_and_update().grant.as_ref().map(|grant| grant.until);
            let inside = tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                // Revoked by the gate itself: nobody inside has a say in it.
                () = timer.until_some(deadline) => self.house.tell_counting(|gate, now| gate.tick(now)),
                Ok(()) = mirror.changed() => {
                    let mirror = mirror.borrow_and_update().clone();
                    match (self.store.refusal(), mirror) {
                        (Some(why), _) => self.house.tell_counting(|gate, now| gate.refuse(why, now)),
                        (None, Some(mirror)) => self.read(&mirror, &mut read),
                        (None, None) => 0,
                    }
                }
                Ok(()) = lease.changed() => {
                    let lease = lease.borrow_and_update().clone();
                    self.registered(lease.as_ref());
                    0
                }
                Some(heard) = self.views.recv() => {
                    self.store.told(heard.view.revision);
                    self.house.tell_counting(|gate, now| gate.heard((&heard.view).into(), now))
                }
                Ok(()) = news.changed() => 0,
            };
            self.follow(inside);
        }
    }

    /// A newer snapshot of etcd. `seen` is the revision of the cluster data that were taken up last.
    fn read(&mut self, mirror: &Arc<Mirror>, seen: &mut Revision) -> u64 {
        let facts = Facts::of(mirror, &self.uid);
        let inside = self.house.tell_counting(|gate, now| {
            gate.read(facts, now);
        });
        if let Some((data, revision)) = mirror.data().filter(|(_, revision)| revision > seen) {
            *seen = revision;
            match ProxyView::derive(data, revision) {
                Ok(view) => {
                    if self.record.follow(data, &view) {
                        self.registration.set(self.record.value());
                    }
                    self.house.view(view);
                    self.name();
                }
                Err(error) => {
                    tracing::warn!(%revision, "the cluster specification can't be used, the former one stays: {error}")
                }
            }
        }
        inside
    }

    fn registered(&mut self, lease: Option<&LeaseState>) {
        let lease =
            lease.map(|lease| Lease { id: lease.id, deadline: lease.deadline, registered_at: lease.registered_at });
        self.house.registered(lease);
        self.name();
    }

    /// Streams are opened anew when the hello changes: another lease, or cluster data seen for the first time.
    fn name(&self) {
        let view = self.house.snapshot().view;
        let lease = self.registration.lease().borrow().as_ref().map(|lease| lease.id);
        let name = identity(&self.cluster, &self.uid, view.as_ref(), lease);
        self.names.send_if_modified(|known| {
            let changed = *known != name;
            *known = name;
            changed
        });
    }

    /// Tells everybody what the gate has come to.
    fn follow(&mut self, inside: u64) {
        let news = self.house.news().borrow().clone();
        let grows = news.acknowledged > self.story.acknowledged();
        // R7: seen in etcd without any stream; nobody waits for it without a mark.
        if news.mark.is_some() && self.record.acknowledge(news.acknowledged) {
            self.registration.set(self.record.value());
        }
        if grows {
            self.urge.now(news.mark.as_ref().map(|mark| mark.traceparent.clone()).unwrap_or_default());
        }
        self.story.follow(&news, inside, clock::now());
    }
}
