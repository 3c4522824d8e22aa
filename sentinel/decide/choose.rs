//! Who may win, and who does (R9): the highest (timeline, position), then the id, among recruits of this cluster's
//! lineage within `maxStandbyLag`; else the incumbent under the next epoch. Better no primary than a lossy one.

use std::time::Duration;

use stolon::model::{
    DbUid, KeeperUid, Lsn, WalPosition,
    cluster::{Db, DbInitMode, DbRole, Fencing},
};

use super::{Case, Decision, Facts, next_epoch, synchronous};
use crate::observe::Timer;

/// Who takes over, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Winner {
    pub db: DbUid,
    pub keeper: KeeperUid,
    /// Unset for an incumbent, which needs no recruit.
    pub position: Option<WalPosition>,
    pub why: String,
}

/// A standby that streamed this shortly before may have caught up with what the primary wrote last.
const STREAMED_LATELY: Duration = Duration::from_secs(3);

/// Standbys that could win if the present epoch ended now, and why others could not.
pub fn hopefuls(case: &Case<'_>) -> (Vec<DbUid>, Vec<String>) {
    let (mut could, mut refusals) = (Vec::new(), Vec::new());
    for (uid, db) in standbys(case) {
        match hopeful(case, uid, db) {
            Ok(()) => could.push(uid.clone()),
            Err(refusal) => refusals.push(format!("db {uid} on keeper {} can't: {refusal}", db.spec.keeper_uid)),
        }
    }
    (could, refusals)
}

pub fn hopeful(case: &Case<'_>, uid: &DbUid, db: &Db) -> Result<(), String> {
    let keeper = &db.spec.keeper_uid;
    let facts = case.keeper(keeper);
    fit(case, uid, db, facts)?;
    if !case.hears(keeper) {
        return Err("its keeper is not heard".into());
    }
    if !facts.serves(uid, db.spec.role == DbRole::Master) && db.spec.role == DbRole::Standby {
        return Err("its PostgreSQL does not run as a standby".into());
    }
    if db.spec.role == DbRole::Master {
        return Ok(());
    }
    let position = facts.position(uid).ok_or("its position is not known")?;
    on_lineage(case, position)?;
    if synchronous::in_force(case) {
        return Ok(());
    }
    let streamed = case.seen.streamed.get(keeper).is_some_and(|at| case.now.since(*at) <= STREAMED_LATELY);
    if streamed { known_position(case).map(|_| ()) } else { near_enough(case, position, Loss::UpToLag) }
}

/// The winner under a mark; `None` while somebody may still report, or when nobody is eligible.
pub fn choose(case: &Case<'_>, mark: &Fencing, plan: &mut Decision) -> Option<Winner> {
    let since = case.since(Timer::Staged(mark.epoch, mark.stage)).unwrap_or(case.now);
    let late = case.now.since(since) >= case.spec.fail_interval;
    let loss = tolerated(case, mark, plan);
    let mut recruits = Vec::new();
    let mut waiting = false;
    for (uid, db) in standbys(case).into_iter().filter(|(_, db)| db.spec.role == DbRole::Standby) {
        match recruit(case, mark, uid, db, loss) {
            Ok(position) => recruits.push((case.hears(&db.spec.keeper_uid), position, uid, db)),
            Err(Refusal::No(refusal)) => {
                plan.because(format!("db {uid} on keeper {} can't win: {refusal}", db.spec.keeper_uid));
            }
            // A handover to somebody waits for nobody else.
            Err(Refusal::NotYet) if wanted(mark, db) == Some(false) => {}
            Err(Refusal::NotYet) if !late => {
                plan.because(format!("waiting for keeper {} to report its final position", db.spec.keeper_uid));
                plan.again((case.now + case.spec.suspect_interval).min(since + case.spec.fail_interval));
                waiting = true;
            }
            Err(Refusal::NotYet) => {
                plan.because(format!("keeper {} did not report its final position in time", db.spec.keeper_uid));
            }
        }
    }
    if waiting {
        return None;
    }
    named(case, mark, recruits, plan)
}

/// Whether a handover is to this db's keeper; `None` when it is to nobody in particular.
fn wanted(mark: &Fencing, db: &Db) -> Option<bool> {
    mark.to.as_ref().map(|to| *to == db.spec.keeper_uid)
}

/// A handover to a keeper that can't take it goes back to the incumbent; without that, to whom a failover would choose.
fn named(
    case: &Case<'_>,
    mark: &Fencing,
    recruits: Vec<(bool, WalPosition, &DbUid, &Db)>,
    plan: &mut Decision,
) -> Option<Winner> {
    let Some(to) = &mark.to else { return best(case, recruits).or_else(|| incumbent(case, mark, plan)) };
    // An old primary that was killed while it stopped has not told its end: a recruit that is further shows what would be lost.
    let furthest = recruits.iter().map(|(_, position, ..)| position.lsn).max().unwrap_or_default();
    let lacks = |position: &WalPosition| position.lsn < furthest && !synchronous::in_force(case);
    let (asked, others): (Vec<_>, Vec<_>) =
        recruits.into_iter().partition(|(_, position, _, db)| wanted(mark, db) == Some(true) && !lacks(position));
    if let Some(winner) = best(case, asked) {
        return Some(winner);
    }
    plan.because(format!("keeper {to}, which the handover is to, can't take over"));
    incumbent(case, mark, plan).or_else(|| best(case, others))
}

/// Those that are heard come first: whoever fell silent after its recruit would not promote.
fn best(case: &Case<'_>, mut recruits: Vec<(bool, WalPosition, &DbUid, &Db)>) -> Option<Winner> {
    recruits.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)).then_with(|| a.2.cmp(b.2)));
    let (heard, position, db, spec) = recruits.first()?;
    let lag = known_position(case).map_or(0, |known| known.ahead_of(position.lsn));
    let equals = recruits.iter().filter(|other| other.0 == *heard).count();
    let kind = if equals < recruits.len() { "recruits that are heard" } else { "recruits" };
    let why = format!("highest of {equals} {kind} at {position}, {lag} bytes behind the last known position");
    Some(Winner { db: (*db).clone(), keeper: spec.spec.keeper_uid.clone(), position: Some(*position), why })
}

enum Refusal {
    No(String),
    /// May still report.
    NotYet,
}

/// What a winner may lack of the old primary's last known position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    UpToLag,
    /// Synchronous: what was not acknowledged.
    Unacknowledged,
    /// R8: the old primary stopped in good order, its shutdown checkpoint is the end.
    Nothing,
    /// Its end is not known, but its data are there.
    Unknown,
}

/// A handover loses nothing. Only when the old keeper stays away for `failInterval` after it, what holds for a failover
/// holds here too.
fn tolerated(case: &Case<'_>, mark: &Fencing, plan: &mut Decision) -> Loss {
    let failover = if synchronous::in_force(case) { Loss::Unacknowledged } else { Loss::UpToLag };
    let Some((uid, db)) = case.master() else { return failover };
    let keeper = &db.spec.keeper_uid;
    if !mark.planned || case.keeper(keeper).promised() < mark.epoch {
        return failover;
    }
    match case.since(Timer::KeeperAbsent(keeper.clone())) {
        Some(since) if plan.waited(case.now, since, case.spec.fail_interval) => failover,
        _ if case.keeper(keeper).ended_clean(uid, mark.epoch) => Loss::Nothing,
        // Killed in the middle of its stop.
        _ if synchronous::in_force(case) => Loss::Unacknowledged,
        _ => Loss::Unknown,
    }
}

fn recruit(case: &Case<'_>, mark: &Fencing, uid: &DbUid, db: &Db, loss: Loss) -> Result<WalPosition, Refusal> {
    let facts = case.keeper(&db.spec.keeper_uid);
    fit(case, uid, db, facts).map_err(Refusal::No)?;
    let heard = case.hears(&db.spec.keeper_uid);
    let Some(recruit) = facts.recruit(next_epoch(mark)) else {
        let serves = facts.serves(uid, false) || facts.promised() >= mark.epoch;
        // Synchronous: one of those in sync is enough (R8), who is not heard is not waited for.
        let young = !synchronous::in_force(case)
            && !case.lasts(Timer::Staged(mark.epoch, mark.stage), case.spec.suspect_interval);
        return Err(if serves && (heard || young) {
            Refusal::NotYet
        } else if heard {
            Refusal::No("its PostgreSQL does not run as a standby".into())
        } else {
            Refusal::No("its keeper is silent and has not reported its final position".into())
        });
    };
    on_lineage(case, recruit.position).map_err(Refusal::No)?;
    near_enough(case, recruit.position, loss).map_err(Refusal::No)?;
    Ok(recruit.position)
}

/// The old primary itself, or an older one that was never replaced, under the next epoch (R6). Each has promised, so
/// its server does not run.
fn incumbent(case: &Case<'_>, mark: &Fencing, plan: &mut Decision) -> Option<Winner> {
    let master = case.data.cluster.status.master.as_ref();
    let mut old: Vec<_> = case.data.dbs.iter().filter(|(_, db)| db.spec.role == DbRole::Master).collect();
    old.sort_by_key(|(uid, _)| Some(*uid) != master);
    for (uid, db) in old {
        let keeper = &db.spec.keeper_uid;
        let facts = case.keeper(keeper);
        let refusal = match facts.registered {
            None => "its keeper is not registered",
            Some(_) if facts.promised() < mark.epoch => "its keeper has not consented to the next epoch",
            Some(_) if facts.leaving() => "its keeper ends",
            Some(_) if !facts.holds(uid) => "its data directory does not hold this db",
            Some(_) if Some(uid) != master && !may_return(case) => "a later primary has served since",
            Some(_) if Some(uid) != master && synchronous::in_force(case) => {
                "a later primary may have acknowledged commits that it lacks"
            }
            Some(_) => {
                let why = "no standby is eligible, its data are intact".to_owned();
                return Some(Winner { db: uid.clone(), keeper: keeper.clone(), position: None, why });
            }
        };
        plan.because(format!("db {uid} on keeper {keeper} can't return as primary: {refusal}"));
    }
    None
}

/// The incumbent lost its key and did not put it back, as one that never began its epoch can't (R3): with its data it can be
/// elected anew, whatever standbys there are.
pub fn may_go_on(case: &Case<'_>) -> bool {
    let Some((uid, db)) = case.master().filter(|_| case.mirror.primary.is_none()) else { return false };
    let facts = case.keeper(&db.spec.keeper_uid);
    facts.registered.is_some() && !facts.leaving() && facts.holds(uid) && case.hears(&db.spec.keeper_uid)
}

/// An older primary may return only while its successor never served.
fn may_return(case: &Case<'_>) -> bool {
    let served = case.data.cluster.status.history.last().is_some_and(|last| last.epoch >= case.epoch());
    !served && case.seen.ready_seen < case.epoch()
}

fn standbys<'a>(case: &Case<'a>) -> Vec<(&'a DbUid, &'a Db)> {
    let master = case.data.cluster.status.master.as_ref();
    let later = |db: &Db| db.spec.role == DbRole::Standby || may_return(case);
    case.data.dbs.iter().filter(|(uid, db)| Some(*uid) != master && later(db)).collect()
}

/// What must hold of any winner.
fn fit(case: &Case<'_>, uid: &DbUid, db: &Db, facts: Facts<'_>) -> Result<(), String> {
    if let Some(refusal) = synchronous::refusal(case, uid) {
        return Err(refusal);
    }
    let info = facts.info().ok_or("its keeper is not registered")?;
    if !info.can_be_master {
        return Err("its keeper runs with --can-be-master=false".into());
    }
    if case.data.keepers.get(&db.spec.keeper_uid).is_some_and(|keeper| keeper.status.force_fail) {
        return Err("its keeper is marked as failed by an operator".into());
    }
    if facts.leaving() {
        return Err("its keeper ends".into());
    }
    // What ends a primary makes none (R13): two full disks would hand the role to and fro.
    if let Some(age) = facts.report().and_then(|report| report.postgres.probe_age)
        && age >= case.spec.fail_interval
    {
        return Err(format!("its PostgreSQL has not worked for {} s", age.as_secs()));
    }
    if db.spec.init_mode != DbInitMode::None && !facts.serves(uid, false) && facts.promised() < case.epoch() {
        return Err("its copy is not complete".into());
    }
    let (ours, theirs) = (case.system_id(), facts.system_id(uid));
    if theirs == 0 || ours == 0 {
        return Err("its system identifier, or the cluster's, is not known".into());
    }
    if ours != theirs {
        return Err(format!("its system identifier is {theirs}, the cluster's is {ours}"));
    }
    Ok(())
}

/// R9, R11: the position lies on the branch that led to the present primary.
fn on_lineage(case: &Case<'_>, position: WalPosition) -> Result<(), String> {
    let history = &case.data.cluster.status.history;
    let Some(last) = history.last() else { return Ok(()) };
    if position.timeline > last.timeline && last.epoch >= case.epoch() {
        return Err(format!("timeline {} is none of this cluster's", position.timeline));
    }
    // What a later winner left behind is history no more: one that was behind made a number again, or a lower one.
    let gone = |at: usize| history[at + 1..].iter().any(|later| later.timeline < history[at].timeline);
    let left = history.iter().enumerate().filter(|(at, entry)| entry.timeline > position.timeline && !gone(*at));
    match left.map(|(_, entry)| entry).min_by_key(|entry| entry.switch_lsn) {
        Some(next) if position.lsn > next.switch_lsn => Err(format!(
            "at {position} it left the lineage, which went to timeline {} at {}",
            next.timeline, next.switch_lsn
        )),
        _ => Ok(()),
    }
}

fn near_enough(case: &Case<'_>, position: WalPosition, loss: Loss) -> Result<(), String> {
    match loss {
        Loss::Nothing => match known_position(case)?.ahead_of(position.lsn) {
            0 => Ok(()),
            behind => Err(format!(
                "it is {behind} bytes behind the old primary, which stopped in good order: a handover loses nothing"
            )),
        },
        Loss::Unknown => {
            Err("the old primary did not stop in good order, so it may have acknowledged more: a handover \
                              loses nothing"
                .into())
        }
        Loss::UpToLag => within_lag(case, position),
        // Every acknowledged commit is on every standby in sync, however far the primary got (R18).
        Loss::Unacknowledged => Ok(()),
    }
}

/// At most `maxStandbyLag` behind the last known position of the primary.
pub fn within_lag(case: &Case<'_>, position: WalPosition) -> Result<(), String> {
    let (behind, limit) = (known_position(case)?.ahead_of(position.lsn), case.spec.max_standby_lag);
    if behind > limit {
        return Err(format!("it is {behind} bytes behind the primary, maxStandbyLag is {limit}"));
    }
    Ok(())
}

/// The highest position of the present primary that anybody remembers (R9).
fn known_position(case: &Case<'_>) -> Result<Lsn, String> {
    let none = "no position of the primary is known: an operator has to decide";
    let (uid, db) = case.master().ok_or(none)?;
    let told = case.keeper(&db.spec.keeper_uid).position(uid).max(case.seen.highest.get(uid).copied());
    let known = told.map_or(Lsn(0), |position| position.lsn).max(db.status.xlog_pos);
    if known == Lsn(0) { Err(none.into()) } else { Ok(known) }
}
