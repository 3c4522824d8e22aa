//! A primary that says nothing (R15): who else misses it? Silence alone starts no failover before `failInterval`, and
//! none at all while its PostgreSQL answers somebody or its WAL still flows.

use std::time::Duration;

use stolon::model::{KeeperUid, Moment, report::ProbeResult};

use super::{Action, Case, Decision, suspect::Suspicion};
use crate::observe::Round;

/// What a round of witnesses takes at most (`hub::WITNESS`).
const ANSWERS: Duration = Duration::from_millis(500);

pub fn suspect(case: &Case<'_>, keeper: &KeeperUid, plan: &mut Decision) -> Option<Suspicion> {
    let since = silent_since(case, keeper)?;
    if !plan.waited(case.now, since, case.spec.suspect_interval) {
        return None;
    }
    plan.because(format!("keeper {keeper} has been silent for {:.1} s", case.now.since(since).as_secs_f64()));
    if let Some((heard, all)) = too_deaf(case) {
        plan.because(format!("this sentinel hears only {heard} of {all} keepers and proxies: it suspects nobody"));
        if case.mirror.candidates.len() > 1 {
            plan.actions.push(Action::Resign);
        }
        return None;
    }
    match case.seen.round.as_ref().filter(|round| &round.target == keeper && round.asked >= since) {
        Some(round) if !round.complete(case.now) => {
            plan.again(round.deadline);
            None
        }
        Some(round) => {
            let found = judge(case, keeper, round, since, plan);
            if plan.waited(case.now, round.asked, case.spec.suspect_interval) {
                ask(case, keeper, plan);
            }
            found
        }
        None => {
            ask(case, keeper, plan);
            None
        }
    }
}

/// The question of a verdict is asked before the silence is long enough for one, so that the answers are there when it is.
/// A heartbeat that comes after all makes them void.
pub fn foresee(case: &Case<'_>, keeper: &KeeperUid, heard: Moment, plan: &mut Decision) {
    let early = case.spec.suspect_interval.saturating_sub(ANSWERS).max(case.spec.suspect_interval / 2);
    let asked = case.seen.round.as_ref().is_some_and(|round| &round.target == keeper && round.asked >= heard);
    if plan.waited(case.now, heard, early) && !asked {
        ask(case, keeper, plan);
    }
}

fn ask(case: &Case<'_>, keeper: &KeeperUid, plan: &mut Decision) {
    if let Some((host, port)) = address(case, keeper) {
        plan.actions.push(Action::AskWitnesses { target: keeper.clone(), host, port });
    }
}

/// The registered address, else the stored one: a registration may be gone first.
fn address(case: &Case<'_>, keeper: &KeeperUid) -> Option<(String, u16)> {
    case.keeper(keeper).postgres_address().or_else(|| {
        let (_, db) = case.data.db_of(keeper)?;
        let port = db.status.port.parse().ok()?;
        (!db.status.listen_address.is_empty()).then(|| (db.status.listen_address.clone(), port))
    })
}

fn judge(case: &Case<'_>, keeper: &KeeperUid, round: &Round, since: Moment, plan: &mut Decision) -> Option<Suspicion> {
    let others: Vec<ProbeResult> = round.others.values().flatten().copied().collect();
    let answered = others.iter().chain(&round.own).any(|result| *result == ProbeResult::Answered);
    let flowed = wal_flowed(case, keeper, since);
    // A probe that was reported as too old before the silence began leaves the veto no ground.
    let stale = case.keeper(keeper).last().and_then(|(report, _)| report.postgres.probe_age);
    if (answered || flowed.is_some()) && stale.is_none_or(|age| age < case.spec.fail_interval) {
        let why = if answered { "its PostgreSQL answers" } else { "its WAL flows" };
        plan.because(format!("keeper {keeper} is silent, but {why}: no failover while its lease lasts"));
        if let Some(last) = flowed.filter(|_| !answered) {
            // No event tells that WAL has stopped to flow.
            plan.again(last + case.spec.suspect_interval + Duration::from_millis(1));
        }
        return None;
    }
    let misses = |result: &ProbeResult| *result != ProbeResult::Answered;
    let agreed = others.iter().any(misses);
    let own = round.own.as_ref().is_some_and(misses) && standby_is_cut(case, keeper);
    if agreed || own {
        let cause = format!("keeper {keeper} is silent and others can't reach its PostgreSQL either");
        return Some(Suspicion { cause, dead: false, planned: false, to: None });
    }
    plan.because(format!(
        "nobody else can say whether PostgreSQL of keeper {keeper} is reachable: waiting failInterval"
    ));
    if !plan.waited(case.now, since, case.spec.fail_interval) {
        return None;
    }
    let cause = format!("keeper {keeper} has been silent for {} s", case.spec.fail_interval.as_secs());
    Some(Suspicion { cause, dead: false, planned: false, to: None })
}

/// A standby that is heard lost the primary's WAL stream.
fn standby_is_cut(case: &Case<'_>, keeper: &KeeperUid) -> bool {
    case.data.dbs.values().map(|db| &db.spec.keeper_uid).filter(|uid| *uid != keeper && case.hears(uid)).any(|uid| {
        let facts = case.keeper(uid);
        facts.report().is_some_and(|report| !report.postgres.wal_streaming && report.postgres.state.serves())
    })
}

/// When WAL moved last at a standby, between two samples that were both taken during the silence, the later one just now.
fn wal_flowed(case: &Case<'_>, keeper: &KeeperUid, since: Moment) -> Option<Moment> {
    let window = case.spec.suspect_interval;
    case.data
        .dbs
        .values()
        .map(|db| &db.spec.keeper_uid)
        .filter(|uid| *uid != keeper && case.hears(uid))
        .filter_map(|uid| case.seen.flows.get(uid))
        .filter(|flow| flow.from > since && case.now.since(flow.to) <= window)
        .map(|flow| flow.to)
        .max()
}

/// Begin of the silence: the last report, else whatever began last of leadership and registration.
fn silent_since(case: &Case<'_>, keeper: &KeeperUid) -> Option<Moment> {
    if let Some((_, at)) = case.keeper(keeper).last() {
        return Some(at);
    }
    let registered = case.mirror.keepers.get(keeper);
    let registered =
        registered.and_then(|r| case.seen.since(&crate::observe::Timer::Registered(keeper.clone(), r.created)));
    registered.max(case.seen.leading_since)
}

/// R5: fewer than half of those registered are heard, so the fault is probably here.
pub fn too_deaf(case: &Case<'_>) -> Option<(usize, usize)> {
    let all = case.mirror.keepers.len() + case.mirror.proxies.len();
    let window = case.spec.suspect_interval;
    let proxies = case.mirror.proxies.keys().filter(|uid| case.seen.hears_proxy(case.now, uid, window)).count();
    let heard = proxies + case.mirror.keepers.keys().filter(|uid| case.hears(uid)).count();
    (all > 1 && heard * 2 < all).then_some((heard, all))
}
