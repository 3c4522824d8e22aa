//! A planned change of primary: somebody asks for it (`stolonctl switchover`), or the primary's keeper was asked to end. The
//! candidate is looked at first; then the primary writes a checkpoint while clients still work; then comes the mark, and
//! everything goes as in a failover, without a loss (R8).

use std::time::Duration;

use stolon::model::{
    DbUid, KeeperUid,
    cluster::{Handover, Phase},
    report::PostgresState,
};

use super::{Case, Decision, Step, choose, fence, suspect::Suspicion};
use crate::observe::Timer;

/// A handover that somebody asks for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Unset: to the standby that is furthest.
    pub to: Option<KeeperUid>,
}

/// For the checkpoint before a keeper ends: it waits only a little longer for a successor.
const PATIENCE_OF_A_LEAVER: Duration = Duration::from_secs(2);

/// One step of the handover in preparation, or of one that is wished for. True when something is to be committed.
pub fn tend(case: &Case<'_>, wish: Option<&Wish>, plan: &mut Decision) -> bool {
    match recorded(case) {
        Some(record) => prepare(case, record, plan),
        None => wish.is_some_and(|wish| grant(case, wish, plan)),
    }
}

/// The primary's keeper ends: prepared like any other handover, but nothing calls it off.
pub fn leave(case: &Case<'_>, suspicion: Suspicion, plan: &mut Decision) -> bool {
    let to = recorded(case).and_then(|record| record.to.clone());
    if case.data.cluster.status.phase == Phase::Initializing || !serving(case) || prepared(case) {
        return fence::mark(case, Suspicion { to, ..suspicion }, plan);
    }
    if choose::hopefuls(case).0.is_empty() {
        // Says why nobody could.
        return fence::mark(case, suspicion, plan);
    }
    match case.since(Timer::HandingOver(case.epoch())) {
        Some(since) if plan.waited(case.now, since, PATIENCE_OF_A_LEAVER) => {
            fence::mark(case, Suspicion { to, ..suspicion }, plan)
        }
        Some(_) => {
            plan.because(format!("{}: its checkpoint comes first", suspicion.cause));
            false
        }
        None => {
            record(case, Handover { epoch: case.epoch(), to: None, reason: suspicion.cause }, plan);
            true
        }
    }
}

fn recorded<'a>(case: &Case<'a>) -> Option<&'a Handover> {
    case.data.cluster.status.handover.as_ref().filter(|record| record.epoch == case.epoch())
}

fn grant(case: &Case<'_>, wish: &Wish, plan: &mut Decision) -> bool {
    match candidate(case, wish.to.as_ref()) {
        Err(refusal) => {
            plan.wish = Some(Err(refusal));
            false
        }
        Ok(()) => {
            let reason = match &wish.to {
                Some(keeper) => format!("a handover to keeper {keeper} was asked for"),
                None => "a handover was asked for".to_owned(),
            };
            plan.wish = Some(Ok(()));
            record(case, Handover { epoch: case.epoch(), to: wish.to.clone(), reason }, plan);
            true
        }
    }
}

fn prepare(case: &Case<'_>, record: &Handover, plan: &mut Decision) -> bool {
    if let Err(refusal) = candidate(case, record.to.as_ref()) {
        let why = format!("{}, but it is called off: {refusal}", record.reason);
        plan.because(why.clone());
        let mut next = case.data.clone();
        next.cluster.status.handover = None;
        plan.commit(case, Step::CallOff { why }, next, None);
        return true;
    }
    let since = case.since(Timer::HandingOver(case.epoch())).unwrap_or(case.now);
    if !prepared(case) && !plan.waited(case.now, since, case.spec.request_timeout) {
        plan.because(format!("{}: the primary's checkpoint comes first", record.reason));
        return false;
    }
    let suspicion = Suspicion { cause: record.reason.clone(), dead: false, planned: true, to: record.to.clone() };
    fence::mark(case, suspicion, plan)
}

/// Why the handover can't be made now; in words for who asked.
fn candidate(case: &Case<'_>, to: Option<&KeeperUid>) -> Result<(), String> {
    let Some((master, db)) = case.master() else { return Err("there is no primary".into()) };
    if case.data.cluster.status.phase == Phase::Initializing || !case.ready() || !serving(case) {
        return Err("no primary serves that could be handed over".into());
    }
    let Some(to) = to else {
        let (could, mut refusals) = choose::hopefuls(case);
        let near = |uid: &DbUid| match caught_up(case, uid) {
            Ok(()) => true,
            Err(refusal) => {
                refusals.push(format!("db {uid} can't: {refusal}"));
                false
            }
        };
        let could: Vec<DbUid> = could.into_iter().filter(near).collect();
        let refusals = if refusals.is_empty() { "there is no standby".to_owned() } else { refusals.join("; ") };
        return if could.is_empty() { Err(format!("no standby could take over: {refusals}")) } else { Ok(()) };
    };
    if *to == db.spec.keeper_uid {
        return Err(format!("keeper {to} is the primary already"));
    }
    if !case.data.keepers.contains_key(to) {
        let all: Vec<String> = case.data.keepers.keys().map(ToString::to_string).collect();
        return Err(format!("keeper {to} is none of this cluster's, which are {}", all.join(", ")));
    }
    let Some((uid, standby)) = case.data.db_of(to).filter(|(uid, _)| *uid != master) else {
        return Err(format!("keeper {to} has no standby"));
    };
    choose::hopeful(case, uid, standby).map_err(|refusal| format!("keeper {to} can't take over: {refusal}"))?;
    let streams = case.keeper(to).report().is_some_and(|report| report.postgres.wal_streaming);
    if !streams {
        return Err(format!("keeper {to} can't take over: its standby does not stream from the primary"));
    }
    caught_up(case, uid).map_err(|refusal| format!("keeper {to} can't take over: {refusal}"))
}

/// Clients wait while the candidate fetches what it lacks: what is too much for a failover is too much here.
fn caught_up(case: &Case<'_>, uid: &DbUid) -> Result<(), String> {
    let db = case.data.dbs.get(uid).ok_or("it is gone")?;
    let position = case.keeper(&db.spec.keeper_uid).position(uid).ok_or("its position is not known")?;
    choose::within_lag(case, position)
}

fn serving(case: &Case<'_>) -> bool {
    let Some((_, db)) = case.master() else { return false };
    let keeper = &db.spec.keeper_uid;
    case.hears(keeper) && case.keeper(keeper).state() == Some(PostgresState::Primary)
}

fn prepared(case: &Case<'_>) -> bool {
    let report = case.master().and_then(|(_, db)| case.keeper(&db.spec.keeper_uid).report());
    report.is_some_and(|report| report.prepared == case.epoch())
}

fn record(case: &Case<'_>, handover: Handover, plan: &mut Decision) {
    let mut next = case.data.clone();
    plan.because(format!("{}: the primary's checkpoint comes first", handover.reason));
    next.cluster.status.handover = Some(handover);
    plan.commit(case, Step::Handover, next, None);
}
