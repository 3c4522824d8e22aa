//! The synchronous list of the primary (R18, R19, R21): `spec.synchronousStandbys` is what PostgreSQL is to have, all of it
//! waited for; `status.synchronousStandbys` are those of it that were seen in sync under this primary: the electable.
//!
//! Whatever list PostgreSQL has in force, one stored before or the present one, holds every electable standby: names are
//! added to the list first, and to the electable when the primary has confirmed them; both lose a name in one commit, and
//! PostgreSQL hears of it afterwards. So each acknowledged commit is on every electable standby, and one recruit among
//! them keeps the old primary from acknowledging more (R8).

use std::collections::BTreeSet;

use stolon::model::{
    ClusterData, DbUid, KeeperUid,
    cluster::{BLOCKING_NAME, Db, DbRole},
};

use super::{
    Case, Decision,
    choose::{Winner, within_lag},
    next_epoch, silence,
};

/// Names of a list, by db.
pub type Names = BTreeSet<DbUid>;

/// The primary's commits wait: its stored object counts, not the specification (R18).
pub fn in_force(case: &Case<'_>) -> bool {
    case.master().is_some_and(|(_, db)| db.spec.synchronous_replication)
}

/// Standbys that have every acknowledged commit: named, and seen in sync under this primary.
pub fn electable(db: &Db) -> Names {
    let named: Names = db.spec.synchronous_standbys.iter().flatten().cloned().collect();
    db.status.synchronous_standbys.iter().flatten().filter(|uid| named.contains(*uid)).cloned().collect()
}

/// Standbys that the primary's commits are to wait for.
pub fn named(case: &Case<'_>) -> Names {
    case.master().into_iter().flat_map(|(_, db)| db.spec.synchronous_standbys.iter().flatten().cloned()).collect()
}

/// R9: why a standby can't win while synchronous replication is in force.
pub fn refusal(case: &Case<'_>, uid: &DbUid) -> Option<String> {
    let (_, master) = case.master().filter(|_| in_force(case))?;
    if electable(master).contains(uid) {
        return None;
    }
    let named = master.spec.synchronous_standbys.iter().flatten().any(|name| name == uid);
    Some(match named {
        true => "it was not seen in sync yet: it may lack acknowledged commits".to_owned(),
        false => "it is no synchronous standby: it may lack acknowledged commits".to_owned(),
    })
}

/// Tends list and mode while the primary serves. Runs after the standbys were tended: dbs may have gone.
pub fn tend(case: &Case<'_>, next: &mut ClusterData, plan: &mut Decision) {
    let Some((master, before)) = case.master() else { return };
    let (wanted, on) = (case.spec.synchronous_replication, before.spec.synchronous_replication);
    // Who hears too few says of nobody that it does not live.
    let deaf = on && wanted && silence::too_deaf(case).is_some();
    if case.ready() && case.keeper(&before.spec.keeper_uid).registered.is_some() && !deaf {
        let known = electable(before);
        let (list, blocked) = match (on, wanted) {
            (_, true) => list(case, next, plan),
            // R18: first nobody is electable and PostgreSQL waits for nobody, then the other rules hold.
            (true, false) => (Names::new(), false),
            (false, false) => return carry_mode(next, on),
        };
        let mode = wanted || on && !switched_off(case, before);
        let Some(db) = next.dbs.get_mut(master) else { return };
        db.spec.synchronous_replication = mode;
        db.spec.synchronous_standbys = mode.then(|| list.iter().cloned().collect());
        db.spec.external_synchronous_standbys =
            mode.then(|| blocked.then(|| BLOCKING_NAME.to_owned()).into_iter().collect());
        let confirmed = confirmed(case, next, master);
        let Some(db) = next.dbs.get_mut(master) else { return };
        let electable: Vec<DbUid> = known.union(&confirmed).filter(|uid| list.contains(*uid)).cloned().collect();
        db.status.synchronous_standbys = mode.then_some(electable);
        return carry_mode(next, mode);
    }
    forget_gone(next, master);
    carry_mode(next, on);
}

/// The empty list is in force: commits wait for nobody.
fn switched_off(case: &Case<'_>, master: &Db) -> bool {
    let empty = master.spec.synchronous_standbys.iter().flatten().next().is_none()
        && master.spec.external_synchronous_standbys.iter().flatten().next().is_none();
    empty && case.keeper(&master.spec.keeper_uid).generation(&master.uid) == Some(master.generation)
}

/// A db that was removed is nobody's synchronous standby.
fn forget_gone(next: &mut ClusterData, master: &DbUid) {
    let there: Names = next.dbs.keys().cloned().collect();
    let Some(db) = next.dbs.get_mut(master) else { return };
    for list in [&mut db.spec.synchronous_standbys, &mut db.status.synchronous_standbys].into_iter().flatten() {
        list.retain(|uid| there.contains(uid));
    }
}

/// Standbys of a synchronous cluster run with the blocking name (R21).
fn carry_mode(next: &mut ClusterData, mode: bool) {
    for db in next.dbs.values_mut().filter(|db| db.spec.role == DbRole::Standby) {
        db.spec.synchronous_replication = mode;
    }
}

/// What PostgreSQL is to wait for, and whether the blocking name belongs to it (R19).
fn list(case: &Case<'_>, next: &ClusterData, plan: &mut Decision) -> (Names, bool) {
    let Some((_, master)) = case.master() else { return (Names::new(), true) };
    let (min, max) = (usize::from(case.spec.min_synchronous_standbys), usize::from(case.spec.max_synchronous_standbys));
    let there = |uid: &&DbUid| next.dbs.get(*uid).is_some_and(|db| db.spec.role == DbRole::Standby);
    let named: Names = master.spec.synchronous_standbys.iter().flatten().filter(there).cloned().collect();
    let electable: Names = electable(master).iter().filter(there).cloned().collect();
    let lives = |uid: &DbUid| lives(case, next, uid);
    // Those in sync stay first: to exchange one costs waiting commits.
    let mut wanted: Vec<DbUid> = electable.iter().filter(|uid| lives(uid)).cloned().collect();
    wanted.extend(named.difference(&electable).filter(|uid| lives(uid)).cloned());
    let fresh = next.dbs.keys().filter(|uid| !named.contains(*uid) && lives(uid) && may_join(case, next, uid));
    wanted.extend(fresh.cloned());
    wanted.truncate(max);
    let mut list: Names = wanted.into_iter().collect();
    let settled = list.intersection(&electable).count() >= min;
    for uid in electable.iter().filter(|uid| !list.contains(*uid)).cloned().collect::<Vec<_>>() {
        // Enough others are in sync: it leaves. Else it is kept: who has everything must stay electable.
        if !settled {
            list.insert(uid);
        }
    }
    tell(case, next, &named, &electable, &list, plan);
    let blocked = list.len() < min;
    let live = list.iter().filter(|uid| lives(uid)).count();
    if live < min {
        plan.because(format!(
            "{live} of at least {min} synchronous standbys live (minSynchronousStandbys): commits wait until there are more"
        ));
    }
    (list, blocked)
}

fn tell(case: &Case<'_>, next: &ClusterData, before: &Names, had: &Names, after: &Names, plan: &mut Decision) {
    let keeper = |uid: &DbUid| {
        let db = next.dbs.get(uid).or_else(|| case.data.dbs.get(uid));
        db.map_or_else(String::new, |db| format!(" on keeper {}", db.spec.keeper_uid))
    };
    for uid in after.difference(before) {
        plan.because(format!("db {uid}{} becomes a synchronous standby", keeper(uid)));
    }
    for uid in before.difference(after) {
        let why = if had.contains(uid) {
            "others are enough (min- and maxSynchronousStandbys)"
        } else {
            "it was not in sync yet"
        };
        plan.because(format!("db {uid}{} is no synchronous standby any more: {why}", keeper(uid)));
    }
}

/// It streams from the primary, and its keeper says so. While a leader is new, silence says nothing.
fn lives(case: &Case<'_>, next: &ClusterData, uid: &DbUid) -> bool {
    let Some(db) = next.dbs.get(uid).filter(|db| db.spec.role == DbRole::Standby) else { return false };
    let facts = case.keeper(&db.spec.keeper_uid);
    let young = case.seen.leading_since.is_none_or(|since| case.now.since(since) < case.spec.suspect_interval);
    let streams = case.hears(&db.spec.keeper_uid)
        && facts.serves(uid, false)
        && facts.report().is_some_and(|report| report.postgres.wal_streaming);
    may_be(case, &db.spec.keeper_uid) && (streams || young && case.data.dbs.contains_key(uid))
}

fn may_be(case: &Case<'_>, keeper: &KeeperUid) -> bool {
    let failed = case.data.keepers.get(keeper).is_some_and(|keeper| keeper.status.force_fail);
    case.keeper(keeper).info().is_some_and(|info| info.can_be_synchronous_replica) && !failed
}

/// Named only when it is nearly there: commits wait for it from then on. It has its settings, the blocking name among them.
fn may_join(case: &Case<'_>, next: &ClusterData, uid: &DbUid) -> bool {
    let Some(db) = next.dbs.get(uid) else { return false };
    let facts = case.keeper(&db.spec.keeper_uid);
    let streams = facts.report().is_some_and(|report| report.postgres.wal_streaming);
    let known = case.data.dbs.get(uid).is_some_and(|known| facts.generation(uid) == Some(known.generation));
    let near = facts.position(uid).is_some_and(|position| within_lag(case, position).is_ok());
    streams && known && near
}

/// Names that the primary has confirmed under the list that is stored, and whose own settings would make a new primary
/// wait (R21).
fn confirmed(case: &Case<'_>, next: &ClusterData, master: &DbUid) -> Names {
    let Some(before) = case.data.dbs.get(master).filter(|db| db.spec.synchronous_replication) else {
        return Names::new();
    };
    let facts = case.keeper(&before.spec.keeper_uid);
    let Some(report) = facts.report().filter(|_| facts.generation(master) == Some(before.generation)) else {
        return Names::new();
    };
    let named: Names = before.spec.synchronous_standbys.iter().flatten().cloned().collect();
    let ours = report.postgres.primary_epoch == case.epoch();
    let blocks = |uid: &DbUid| {
        let db = case.data.dbs.get(uid).filter(|db| db.spec.synchronous_replication && next.dbs.contains_key(uid));
        db.is_some_and(|db| case.keeper(&db.spec.keeper_uid).generation(uid) == Some(db.generation))
    };
    report.postgres.in_sync.iter().filter(|uid| ours && named.contains(*uid) && blocks(uid)).cloned().collect()
}

/// R21: the list of a new primary: standbys that are reachable now and have nothing that they would have to rewind, those in
/// sync before first. In sync from the beginning are only recruits that were in sync under the old primary, too: they have
/// every acknowledged commit. Too few: the blocking name.
pub fn first_list(case: &Case<'_>, winner: &Winner, next: &mut ClusterData) {
    let mode = case.spec.synchronous_replication;
    let Some(position) = winner.position else {
        // The incumbent goes on: what it had acknowledged is where it was.
        return;
    };
    let known = case.master().filter(|_| in_force(case)).map(|(_, db)| electable(db)).unwrap_or_default();
    let epoch = case.epoch().next();
    let reachable = case.data.dbs.iter().filter(|(uid, db)| {
        let facts = case.keeper(&db.spec.keeper_uid);
        // Who has not reported its final position yet may follow as well; a wrong guess costs commits that wait.
        let last = facts.recruit(epoch).map(|recruit| recruit.position).or_else(|| facts.position(uid));
        let behind = last.is_some_and(|last| last <= position);
        let standing = **uid != winner.db && db.spec.role == DbRole::Standby && facts.serves(uid, false);
        standing && behind && case.hears(&db.spec.keeper_uid) && may_be(case, &db.spec.keeper_uid)
    });
    let mut list: Vec<DbUid> = reachable.map(|(uid, _)| uid.clone()).collect();
    list.sort_by_key(|uid| !known.contains(uid));
    list.truncate(usize::from(case.spec.max_synchronous_standbys));
    let blocked = list.len() < usize::from(case.spec.min_synchronous_standbys);
    if let Some(db) = next.dbs.get_mut(&winner.db) {
        db.spec.synchronous_replication = mode;
        db.status.synchronous_standbys =
            mode.then(|| list.iter().filter(|uid| known.contains(*uid)).cloned().collect());
        db.spec.synchronous_standbys = mode.then_some(list);
        db.spec.external_synchronous_standbys =
            mode.then(|| blocked.then(|| BLOCKING_NAME.to_owned()).into_iter().collect());
    }
    carry_mode(next, mode);
}

/// R2 (ii), R8: a recruit among the electable blocks every list that may be in force.
pub fn blocks_all_lists(case: &Case<'_>, mark: &stolon::model::cluster::Fencing, winner: &Winner) -> bool {
    let Some((_, master)) = case.master().filter(|_| in_force(case)) else { return false };
    let recruited = |uid: &DbUid| {
        let keeper = case.data.dbs.get(uid).map(|db| &db.spec.keeper_uid);
        keeper.is_some_and(|keeper| case.keeper(keeper).recruit(next_epoch(mark)).is_some())
    };
    winner.position.is_some() && electable(master).iter().any(recruited)
}
