//! Which keepers carry standbys, in the phase `normal`: completes copies, replaces what is lost or left over from an
//! earlier primary, fills up to `maxStandbysPerSender`, drops the excess. Only while the primary serves.

use std::time::Duration;

use stolon::model::{
    ClusterData, DbUid, KeeperUid,
    cluster::{Db, DbInitMode, DbRole},
    report::PostgresState,
};

use super::{Case, Decision, elect, specs, synchronous};
use crate::observe::Timer;

/// How a standby does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// Copying, starting, or applying a new generation.
    Converging,
    Failed,
}

pub fn tend(case: &Case<'_>, next: &mut ClusterData, plan: &mut Decision, fresh: &mut dyn FnMut() -> String) {
    let Some((master, db)) = case.master() else { return };
    repoint(next, master);
    complete(case, next);
    if !case.ready() || case.keeper(&db.spec.keeper_uid).registered.is_none() {
        return;
    }
    replace(case, next, master, plan, fresh);
    let limit = usize::from(case.spec.max_standbys_per_sender);
    excess(case, next, limit, plan);
    fill(case, next, master, limit, plan, fresh);
}

fn repoint(next: &mut ClusterData, master: &DbUid) {
    for (_, db) in next.dbs.iter_mut().filter(|(uid, db)| *uid != master && db.spec.role == DbRole::Standby) {
        if db.spec.follow_config.as_ref().and_then(|follow| follow.dbuid.as_ref()) != Some(master) {
            db.spec.follow_config = Some(elect::follow(master));
        }
    }
}

/// A standby that came up needs no copy any more.
fn complete(case: &Case<'_>, next: &mut ClusterData) {
    for (uid, db) in next.dbs.iter_mut().filter(|(_, db)| db.spec.role == DbRole::Standby) {
        let facts = case.keeper(&db.spec.keeper_uid);
        if facts.serves(uid, false) && facts.generation(uid) == Some(db.generation) {
            db.spec.init_mode = DbInitMode::None;
        }
    }
}

/// Dbs of earlier primaries, and standbys whose data are lost: the keeper gets a new db, once it is there to take it.
fn replace(
    case: &Case<'_>,
    next: &mut ClusterData,
    master: &DbUid,
    plan: &mut Decision,
    fresh: &mut dyn FnMut() -> String,
) {
    let others: Vec<Db> = next.dbs.values().filter(|db| &db.uid != master).cloned().collect();
    for db in others {
        let keeper = &db.spec.keeper_uid;
        let old = db.spec.role == DbRole::Master;
        if !old && !lost(case, &db) {
            continue;
        }
        if let Err(refusal) = usable(case, keeper) {
            plan.because(format!("keeper {keeper} can't get a new copy yet: {refusal}"));
            continue;
        }
        let what = if old { "was primary before" } else { "lost its data" };
        plan.because(format!("db {} on keeper {keeper} {what}: it is replaced by a new standby", db.uid));
        next.dbs.remove(&db.uid);
        add(case, next, master, keeper, fresh);
    }
}

/// The keeper says by itself that the database is gone.
fn lost(case: &Case<'_>, db: &Db) -> bool {
    let facts = case.keeper(&db.spec.keeper_uid);
    let empty = facts.info().is_some_and(|info| info.data.is_none());
    db.spec.init_mode == DbInitMode::None && empty && facts.state() == Some(PostgresState::Absent)
}

/// Once enough are good, those that failed and those too many go; never one that commits wait for: who is in sync has
/// every acknowledged commit.
fn excess(case: &Case<'_>, next: &mut ClusterData, limit: usize, plan: &mut Decision) {
    let health = survey(case, next);
    let named = |uid: &DbUid| synchronous::named(case).contains(uid);
    let mut good: Vec<&DbUid> =
        health.iter().filter(|(_, health)| *health == Health::Good).map(|(uid, _)| uid).collect();
    if good.len() < limit {
        return;
    }
    good.sort_by_key(|uid| !named(uid));
    let surplus: Vec<&DbUid> = good.iter().skip(limit).copied().collect();
    for (uid, health) in &health {
        if (*health != Health::Good || surplus.contains(&uid)) && !named(uid) {
            plan.because(format!(
                "standby db {uid} is not needed: {limit} good ones are enough (maxStandbysPerSender)"
            ));
            next.dbs.remove(uid);
        }
    }
}

fn fill(
    case: &Case<'_>,
    next: &mut ClusterData,
    master: &DbUid,
    limit: usize,
    plan: &mut Decision,
    fresh: &mut dyn FnMut() -> String,
) {
    let health = survey(case, next);
    let mut count = health.iter().filter(|(_, health)| *health != Health::Failed).count();
    let free: Vec<KeeperUid> = next.keepers.keys().filter(|uid| next.db_of(uid).is_none()).cloned().collect();
    for keeper in free {
        if count >= limit {
            plan.because(format!("keeper {keeper} gets no standby: {limit} are enough (maxStandbysPerSender)"));
            continue;
        }
        match usable(case, &keeper) {
            Ok(()) => {
                plan.because(format!("keeper {keeper} gets a standby"));
                add(case, next, master, &keeper, fresh);
                count += 1;
            }
            Err(refusal) => plan.because(format!("keeper {keeper} gets no standby: {refusal}")),
        }
    }
}

fn add(case: &Case<'_>, next: &mut ClusterData, master: &DbUid, keeper: &KeeperUid, fresh: &mut dyn FnMut() -> String) {
    let Ok(uid) = DbUid::parse(fresh()) else { return };
    let mut db =
        specs::new_db(&case.spec, &case.data.cluster.spec, uid.clone(), keeper, DbInitMode::Resync, DbRole::Standby);
    db.spec.follow_config = Some(elect::follow(master));
    next.dbs.insert(uid, db);
}

/// A keeper that may be told to copy the primary's data over.
fn usable(case: &Case<'_>, keeper: &KeeperUid) -> Result<(), String> {
    let facts = case.keeper(keeper);
    let info = facts.info().ok_or("it is not registered")?;
    if facts.leaving() {
        return Err("it ends".into());
    }
    let ours = case.system_id();
    match &info.data {
        Some(data) if ours == 0 || data.system_id != ours => Err(format!(
            "its data directory holds another database (system identifier {}): move it away and restart the keeper",
            data.system_id
        )),
        _ => Ok(()),
    }
}

/// Standbys with their health, the best ones first within each kind: by id.
fn survey(case: &Case<'_>, next: &ClusterData) -> Vec<(DbUid, Health)> {
    let standbys = next.dbs.values().filter(|db| db.spec.role == DbRole::Standby);
    standbys.map(|db| (db.uid.clone(), health(case, db))).collect()
}

fn health(case: &Case<'_>, db: &Db) -> Health {
    let facts = case.keeper(&db.spec.keeper_uid);
    if case.lasts(Timer::KeeperAbsent(db.spec.keeper_uid.clone()), case.spec.fail_interval) {
        return Health::Failed;
    }
    if facts.serves(&db.uid, false) && facts.generation(&db.uid) == Some(db.generation) {
        return Health::Good;
    }
    let limit =
        if db.spec.init_mode == DbInitMode::Resync { case.spec.sync_timeout } else { case.spec.convergence_timeout };
    let late = limit > Duration::ZERO && case.lasts(Timer::Behind(db.uid.clone(), db.generation), limit);
    let down =
        db.spec.init_mode == DbInitMode::None && case.lasts(Timer::Sick(db.uid.clone()), case.spec.fail_interval);
    let failing = case.lasts(Timer::Failing(db.uid.clone()), case.spec.convergence_timeout);
    if late || down || failing { Health::Failed } else { Health::Converging }
}
