//! Tends a cluster that needs no change of primary: keepers, standbys, specifications, lineage and what stolon's
//! readers want. All in one commit, made only when something changed. Never runs under a mark (R6).

use stolon::model::{
    ClusterData, DbUid, ProxyUid,
    cluster::{DbInitMode, DbRole, Lineage, Phase},
    registration::ReadyKey,
};

use super::{Case, Decision, Step, init, specs, standbys, status, synchronous};

pub fn tend(case: &Case<'_>, plan: &mut Decision, fresh: &mut dyn FnMut() -> String) {
    let mut next = case.data.clone();
    status::keepers(case, &mut next, plan);
    lineage(case, &mut next);
    match case.data.cluster.status.phase {
        Phase::Initializing => init::finish(case, &mut next, plan),
        Phase::Normal => {
            primary(case, &mut next);
            standbys::tend(case, &mut next, plan, fresh);
            synchronous::tend(case, &mut next, plan);
            status::dead_keepers(case, &mut next, plan);
        }
    }
    status::dbs(case, &mut next, plan);
    proxies(case, &mut next);
    followers(&mut next);
    specs::carry(case, &mut next);
    specs::bump(case.data, &mut next);
    if &next != case.data {
        plan.commit(case, Step::Members, next, None);
    }
}

/// R11: what the promotion left behind, as the winner wrote it; it may have ended since.
pub fn lineage(case: &Case<'_>, next: &mut ClusterData) {
    let ready = case.mirror.ready.as_ref().filter(|_| case.ready()).map(|held| &held.value);
    let served = case.mirror.served.as_ref();
    let ours = |ready: &&ReadyKey| ready.epoch <= case.epoch() && case.data.dbs.contains_key(&ready.db);
    let Some(ready) = ready.or(served).filter(ours) else { return };
    let history = &mut next.cluster.status.history;
    if history.last().is_none_or(|last| last.epoch < ready.epoch) {
        history.push(Lineage {
            epoch: ready.epoch,
            timeline: ready.timeline,
            switch_lsn: ready.switch_lsn,
            db: ready.db.clone(),
        });
    }
}

fn primary(case: &Case<'_>, next: &mut ClusterData) {
    let Some(master) = next.cluster.status.master.clone().and_then(|uid| next.dbs.get_mut(&uid)) else { return };
    master.spec.role = DbRole::Master;
    master.spec.follow_config = None;
    if case.ready() {
        master.spec.init_mode = DbInitMode::None;
    }
}

/// For stolon's readers: which proxies there are, and where they route.
fn proxies(case: &Case<'_>, next: &mut ClusterData) {
    let before = next.proxy.spec.clone();
    let enabled: Vec<ProxyUid> = case.mirror.proxies.keys().cloned().collect();
    next.proxy.spec.enabled_proxies = enabled;
    next.proxy.spec.master_db_uid = next.cluster.status.master.clone().filter(|_| case.ready());
    if next.proxy.spec != before {
        next.proxy.generation = next.proxy.generation.next();
    }
}

/// Each follower has a slot on the primary.
fn followers(next: &mut ClusterData) {
    let Some(master) = next.cluster.status.master.clone() else { return };
    let follows =
        |uid: &DbUid| next.dbs[uid].spec.follow_config.as_ref().and_then(|f| f.dbuid.as_ref()) == Some(&master);
    let followers: Vec<DbUid> = next.dbs.keys().filter(|uid| **uid != master && follows(uid)).cloned().collect();
    if let Some(db) = next.dbs.get_mut(&master) {
        db.spec.followers = followers;
    }
}
