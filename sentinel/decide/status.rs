//! What the cluster data tell about keepers and servers. Written only when it changes in a way that means something:
//! an idle cluster causes no write, and a busy one a few.

use serde_json::Value;
use stolon::model::{
    ClusterData, Generation, KeeperUid, Lsn,
    cluster::{BinaryVersion, Db, DbRole, Keeper, KeeperStatus},
    registration::KeeperInfo,
    view::OPEN_TO_ALL,
};

use super::{Case, Decision};
use crate::observe::Timer;

/// Brings keepers in: those registered for this cluster.
pub fn keepers(case: &Case<'_>, next: &mut ClusterData, plan: &mut Decision) {
    for (uid, registered) in &case.mirror.keepers {
        if case.keeper(uid).registered.is_none() {
            plan.because(format!(
                "keeper {uid} belongs to another cluster (its data directory says so): it is ignored"
            ));
            continue;
        }
        let keeper = next.keepers.entry(uid.clone()).or_insert_with(|| new_keeper(uid));
        describe(keeper, &registered.info);
        keeper.status.healthy = true;
        keeper.status.force_fail = false;
    }
    let absent = |uid: &KeeperUid| case.keeper(uid).registered.is_none();
    for (_, keeper) in next.keepers.iter_mut().filter(|(uid, _)| absent(uid)) {
        keeper.status.healthy = false;
    }
    let open = case.mirror.keepers.values().any(|keeper| keeper.info.open_to_all);
    if open {
        next.cluster.status.extra.insert(OPEN_TO_ALL.into(), Value::Bool(true));
    } else if !case.mirror.keepers.is_empty() {
        next.cluster.status.extra.remove(OPEN_TO_ALL);
    }
}

pub fn new_keeper(uid: &KeeperUid) -> Keeper {
    Keeper {
        uid: uid.clone(),
        generation: Generation(1),
        change_time: String::new(),
        spec: Default::default(),
        status: KeeperStatus::default(),
        extra: Default::default(),
    }
}

pub fn describe(keeper: &mut Keeper, info: &KeeperInfo) {
    let status = &mut keeper.status;
    status.boot_uuid.clone_from(&info.boot_uuid);
    if info.postgres_binary_version != BinaryVersion::default() {
        status.postgres_binary_version = info.postgres_binary_version;
    }
    status.can_be_master = Some(info.can_be_master);
    status.can_be_synchronous_replica = Some(info.can_be_synchronous_replica);
}

/// Forgets keepers without a db that have been away for `deadKeeperRemovalInterval`.
pub fn dead_keepers(case: &Case<'_>, next: &mut ClusterData, plan: &mut Decision) {
    let limit = case.spec.dead_keeper_removal_interval;
    let idle: Vec<_> = next.keepers.keys().filter(|uid| next.db_of(uid).is_none()).cloned().collect();
    for uid in idle {
        if let Some(since) = case.since(Timer::KeeperAbsent(uid.clone()))
            && plan.waited(case.now, since, limit)
        {
            plan.because(format!(
                "keeper {uid} has no db and has been away for {} s: it is forgotten",
                limit.as_secs()
            ));
            next.keepers.remove(&uid);
        }
    }
}

pub fn dbs(case: &Case<'_>, next: &mut ClusterData, plan: &mut Decision) {
    for (uid, db) in &mut next.dbs {
        let before = db.status.clone();
        let facts = case.keeper(&db.spec.keeper_uid);
        if let Some((host, port)) = facts.postgres_address() {
            (db.status.listen_address, db.status.port) = (host, port.to_string());
        }
        let primary = db.spec.role == DbRole::Master;
        db.status.healthy = facts.registered.is_some() && facts.serves(uid, primary);
        if let Some(generation) = facts.generation(uid) {
            db.status.current_generation = generation;
        }
        if let Some(id) = Some(facts.system_id(uid)).filter(|id| *id != 0 && case.data.dbs.contains_key(uid)) {
            db.status.system_id = id.to_string();
        }
        position(case, db, before != db.status, plan);
    }
}

/// The position goes along when something else is written; the primary's alone when it moved by a good part of
/// `maxStandbyLag`, and at most every `sleepInterval` (R9).
fn position(case: &Case<'_>, db: &mut Db, changed: bool, plan: &mut Decision) {
    let Some(position) = case.keeper(&db.spec.keeper_uid).position(&db.uid) else { return };
    let stored = db.status.xlog_pos;
    if position.lsn <= stored && position.timeline == db.status.timeline_id {
        return;
    }
    let primary = case.data.cluster.status.master.as_ref() == Some(&db.uid);
    let first = stored == Lsn(0) || position.timeline != db.status.timeline_id;
    let moved = primary && position.lsn.ahead_of(stored) > case.spec.max_standby_lag / 4;
    let since = case.since(Timer::PositionStored(db.uid.clone(), stored));
    let due = moved && since.is_some_and(|since| plan.waited(case.now, since, case.spec.sleep_interval));
    if changed || first || due {
        db.status.xlog_pos = position.lsn;
        db.status.timeline_id = position.timeline;
    } else if primary {
        // Positions don't wake a decision up: look again.
        plan.again(case.now + case.spec.sleep_interval);
    }
}
