//! Since when each condition holds. A condition that ends is forgotten; one that begins is dated by the local clock.

use std::collections::BTreeSet;

use stolon::{
    model::{
        ClusterData, DbUid, Epoch, Generation, KeeperUid, Lsn, Moment, ProxyUid, Revision,
        cluster::{DbRole, Stage},
    },
    store::Mirror,
};

use super::Observations;
use crate::decide::{Case, REVOKED};

/// A condition of the mirror and the reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A registration (with its create revision) is there.
    Registered(KeeperUid, Revision),
    ProxyRegistered(ProxyUid, Revision),
    /// A keeper of the cluster data isn't registered.
    KeeperAbsent(KeeperUid),
    /// Cluster data name the primary of this epoch, and `primary` does not.
    PrimaryKeyGone(Epoch),
    /// A handover of this epoch is being prepared.
    HandingOver(Epoch),
    Marked(Epoch),
    Staged(Epoch, Stage),
    /// The primary of this epoch hasn't written `ready`.
    NotReady(Epoch),
    Ready(Epoch),
    /// A proxy whose lease was revoked by a leader isn't registered.
    ProxyGone(ProxyUid),
    /// The db's keeper hasn't applied this generation.
    Behind(DbUid, Generation),
    /// The db's server isn't serving.
    Sick(DbUid),
    /// The db's keeper says that it can't converge.
    Failing(DbUid),
    /// The stored position of the primary.
    PositionStored(DbUid, Lsn),
}

impl Observations {
    /// Since when a condition holds; unset when it does not.
    pub fn since(&self, timer: &Timer) -> Option<Moment> {
        self.timers.get(timer).copied()
    }

    /// Brings the timers in line with a mirror. To be called before each decision, by leaders and others alike.
    pub fn settle(&mut self, now: Moment, mirror: &Mirror) {
        let holding = self.conditions(now, mirror);
        self.timers.retain(|timer, _| holding.contains(timer));
        for timer in holding {
            self.timers.entry(timer).or_insert(now);
        }
        let epoch = mirror.data().map_or(Epoch::NONE, |(data, _)| data.epoch());
        if self.last_epoch.is_some_and(|last| epoch > last) {
            self.witnessed = epoch;
        }
        self.last_epoch = Some(epoch);
        let ready = mirror.ready.as_ref().map_or(Epoch::NONE, |ready| ready.value.epoch);
        let served = mirror.served.as_ref().map_or(Epoch::NONE, |served| served.epoch);
        self.ready_seen = self.ready_seen.max(ready).max(served);
        self.forget(mirror);
    }

    /// Peers that are neither registered nor connected tell nothing more; acknowledgements are kept.
    fn forget(&mut self, mirror: &Mirror) {
        let named = |uid: &KeeperUid| mirror.data().is_some_and(|(data, _)| data.keepers.contains_key(uid));
        self.keepers.retain(|uid, peer| peer.connected || mirror.keepers.contains_key(uid) || named(uid));
        self.proxies.retain(|uid, peer| peer.connected || mirror.proxies.contains_key(uid));
        let peers = &self.keepers;
        let known = |uid: &KeeperUid| peers.contains_key(uid) || mirror.keepers.contains_key(uid) || named(uid);
        self.streamed.retain(|uid, _| known(uid));
        self.samples.retain(|uid, _| known(uid));
        self.flows.retain(|uid, _| known(uid));
        self.knocks.retain(|uid, _| known(uid));
        self.redials.retain(|uid, _| known(uid));
        let leases: BTreeSet<_> = mirror.proxies.values().map(|proxy| proxy.lease).collect();
        self.ttls.retain(|lease, _| leases.contains(lease));
        let exists = |uid: &DbUid| mirror.data().is_none_or(|(data, _)| data.dbs.contains_key(uid));
        self.highest.retain(|uid, _| exists(uid));
        let fencing = mirror.data().is_some_and(|(data, _)| data.fencing().is_some());
        let peers = &self.proxies;
        self.fenced.retain(|uid, _| fencing || peers.contains_key(uid));
    }

    fn conditions(&self, now: Moment, mirror: &Mirror) -> BTreeSet<Timer> {
        let mut holding: BTreeSet<Timer> = BTreeSet::new();
        holding.extend(mirror.keepers.iter().map(|(uid, keeper)| Timer::Registered(uid.clone(), keeper.created)));
        holding.extend(mirror.proxies.iter().map(|(uid, proxy)| Timer::ProxyRegistered(uid.clone(), proxy.created)));
        let Some((data, _)) = mirror.data() else { return holding };
        let absent = data.keepers.keys().filter(|uid| !mirror.keepers.contains_key(uid));
        holding.extend(absent.cloned().map(Timer::KeeperAbsent));
        holding.extend(primary_conditions(data, mirror));
        let revoked = data.cluster.status.extra.get(REVOKED).and_then(|v| v.as_object());
        for uid in revoked.into_iter().flat_map(|map| map.keys()).filter_map(|uid| ProxyUid::parse(uid.as_str()).ok()) {
            if !mirror.proxies.contains_key(&uid) {
                holding.insert(Timer::ProxyGone(uid));
            }
        }
        if let Ok(case) = Case::new(now, mirror, self, data) {
            holding.extend(db_conditions(&case));
        }
        holding
    }
}

fn primary_conditions(data: &ClusterData, mirror: &Mirror) -> Vec<Timer> {
    let epoch = data.epoch();
    let mut holding = Vec::new();
    if data.cluster.status.handover.as_ref().is_some_and(|handover| handover.epoch == epoch) {
        holding.push(Timer::HandingOver(epoch));
    }
    if let Some(mark) = data.fencing() {
        holding.push(Timer::Marked(mark.epoch));
        holding.push(Timer::Staged(mark.epoch, mark.stage));
    }
    let Some((uid, db)) = data.primary() else { return holding };
    let held = mirror.primary.as_ref().is_some_and(|held| held.value.epoch == epoch && &held.value.db == uid);
    if !held {
        holding.push(Timer::PrimaryKeyGone(epoch));
    }
    let ready = mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch == epoch && &ready.value.db == uid);
    holding.push(if ready { Timer::Ready(epoch) } else { Timer::NotReady(epoch) });
    holding.push(Timer::PositionStored(uid.clone(), db.status.xlog_pos));
    holding
}

fn db_conditions(case: &Case<'_>) -> BTreeSet<Timer> {
    let mut holding = BTreeSet::new();
    for (uid, db) in &case.data.dbs {
        let facts = case.keeper(&db.spec.keeper_uid);
        if facts.generation(uid) != Some(db.generation) {
            holding.insert(Timer::Behind(uid.clone(), db.generation));
        }
        if !facts.serves(uid, db.spec.role == DbRole::Master) {
            holding.insert(Timer::Sick(uid.clone()));
        }
        if !facts.failure().is_empty() {
            holding.insert(Timer::Failing(uid.clone()));
        }
    }
    holding
}
