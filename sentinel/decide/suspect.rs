//! Is the primary gone (R14-R17)? Looks at events first, then at the `primary` key, then at silence. Suspicion only
//! starts something: it proves nothing (R25).

use std::time::Duration;

use stolon::model::{
    KeeperUid, Moment,
    cluster::Phase,
    report::{KeeperReport, PostgresState, ProbeResult},
};

use super::{Action, Case, Decision, Facts, silence};
use crate::observe::{Probe, Timer};

/// The keeper probes every second (R13): in suspect intervals, the age that says more than where it stands between two.
const TOO_OLD: u32 = 2;

/// Why a change of primary should begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    pub cause: String,
    /// The old server is known not to run: standbys need not wait for what it still sends.
    pub dead: bool,
    /// A handover that the primary's keeper asked for.
    pub planned: bool,
    /// The keeper that a handover is to.
    pub to: Option<KeeperUid>,
}

/// How long a live holder may take to put its key back (R3) before its absence counts.
const PUT_BACK_GRACE: Duration = Duration::from_secs(1);
/// Between two tries at a process that is just dying: its sockets close one after the other.
const RETRY: Duration = Duration::from_millis(100);
/// Between two knocks at a PostgreSQL whose keeper stays away (R16).
const WATCH: Duration = Duration::from_secs(1);

pub fn suspect(case: &Case<'_>, plan: &mut Decision) -> Option<Suspicion> {
    let (_, db) = case.master()?;
    let keeper = &db.spec.keeper_uid;
    let facts = case.keeper(keeper);
    if let Some(found) = told(case, keeper, facts, plan) {
        return Some(found);
    }
    if let Some(since) = left_alone(case, keeper, facts)
        && !plan.waited(case.now, since, case.spec.fail_interval)
    {
        plan.because(format!(
            "waiting failInterval for keeper {keeper}, which was ended in good order and has commits that nobody else has"
        ));
        return None;
    }
    if let Some(found) = key_gone(case, keeper, facts, plan) {
        return Some(found);
    }
    if let Some(found) = never_ready(case, keeper, plan) {
        return Some(found);
    }
    if booting(case, facts) {
        return None;
    }
    if case.hears(keeper) {
        let heard = facts.last().map_or(case.now, |(_, at)| at);
        plan.again(heard + case.spec.suspect_interval + Duration::from_millis(1));
        silence::foresee(case, keeper, heard, plan);
        return None;
    }
    if facts.peer.is_some_and(|peer| !peer.connected)
        && let Verdict::Known(found) = ended(case, keeper, facts, plan)
    {
        return found;
    }
    silence::suspect(case, keeper, plan)
}

/// What the keeper says itself.
fn told(case: &Case<'_>, keeper: &KeeperUid, facts: Facts<'_>, plan: &mut Decision) -> Option<Suspicion> {
    if case.data.keepers.get(keeper).is_some_and(|keeper| keeper.status.force_fail) {
        let cause = format!("keeper {keeper} was marked as failed by an operator");
        return Some(Suspicion { cause, dead: false, planned: false, to: None });
    }
    if facts.leaving() && facts.registered.is_some() {
        let cause = format!("keeper {keeper} was asked to end and hands over");
        return Some(Suspicion { cause, dead: false, planned: true, to: None });
    }
    if !case.hears(keeper) {
        return None;
    }
    let report = facts.report()?;
    let holds = report.authority.is_some_and(|authority| authority.epoch == case.epoch());
    let down = matches!(report.postgres.state, PostgresState::Stopped | PostgresState::Absent);
    if holds && down && case.ready() {
        let cause = format!("PostgreSQL of keeper {keeper} ended");
        return Some(Suspicion { cause, dead: true, planned: false, to: None });
    }
    unfit(case, keeper, report, plan)
}

/// A keeper that lives, over a server that does not work.
fn unfit(case: &Case<'_>, keeper: &KeeperUid, report: &KeeperReport, plan: &mut Decision) -> Option<Suspicion> {
    let limit = case.spec.fail_interval;
    if let Some(age) = report.postgres.probe_age
        && case.ready()
        && report.postgres.state == PostgresState::Primary
        && age > case.spec.suspect_interval * TOO_OLD
    {
        plan.because(format!("PostgreSQL of keeper {keeper} has not taken a write for {} s", age.as_secs()));
        if age >= limit {
            let cause = format!("PostgreSQL of keeper {keeper} has not taken a write for {} s", age.as_secs());
            return Some(Suspicion { cause, dead: false, planned: false, to: None });
        }
        plan.again(case.now + (limit - age).min(WATCH));
    }
    let (uid, db) = case.master()?;
    // What lasted through an outage of etcd is its end, not a failure: the holder is just starting again (execution 16).
    let led = |since: Moment| since.max(case.seen.leading_since.unwrap_or(since));
    if let Some(since) = case.since(Timer::Sick(uid.clone())).filter(|_| case.ready())
        && plan.waited(case.now, led(since), limit)
    {
        let cause = format!("PostgreSQL of keeper {keeper} has not served for {} s", limit.as_secs());
        return Some(Suspicion { cause, dead: false, planned: false, to: None });
    }
    let failing = case.since(Timer::Failing(uid.clone()))?;
    let behind = case.since(Timer::Behind(uid.clone(), db.generation))?;
    plan.because(format!("keeper {keeper} can't converge: {}", report.failure));
    if case.ready() && plan.waited(case.now, led(failing.max(behind)), case.spec.convergence_timeout) {
        let cause = format!("keeper {keeper} did not converge in time: {}", report.failure);
        return Some(Suspicion { cause, dead: false, planned: false, to: None });
    }
    None
}

/// The authority ended, and nobody put it back: no veto holds against that.
fn key_gone(case: &Case<'_>, keeper: &KeeperUid, facts: Facts<'_>, plan: &mut Decision) -> Option<Suspicion> {
    let gone = case.since(Timer::PrimaryKeyGone(case.epoch()))?;
    plan.because(format!("keeper {keeper} has no authority for epoch {}: key `primary` is gone", case.epoch()));
    let known = facts.peer.is_some_and(|peer| peer.report.is_some());
    // Cold start (R9): the incumbent may still be booting.
    if !known && !plan.waited(case.now, case.seen.leading_since?, case.spec.fail_interval) {
        plan.because(format!(
            "waiting failInterval for keeper {keeper}, which was not heard since this sentinel began"
        ));
        return None;
    }
    let registered = facts.registered.and_then(|r| case.since(Timer::Registered(keeper.clone(), r.created)));
    // Its stream may come before its registration, when it was started again.
    let heard = facts.peer.filter(|peer| peer.report.as_ref().is_some_and(|(_, at)| *at > gone));
    let back = registered.or(heard.map(|peer| peer.since));
    let from = back.unwrap_or(gone).max(gone);
    if !plan.waited(case.now, from, PUT_BACK_GRACE) {
        return None;
    }
    let cause = format!("keeper {keeper} lost its authority for epoch {}", case.epoch());
    Some(Suspicion { cause, dead: false, planned: false, to: None })
}

/// Since when the incumbent is to be waited for though it was heard: it was asked to end and found no successor, so that all
/// were stopped, and now a standby is back first (a cold start, R9).
fn left_alone(case: &Case<'_>, keeper: &KeeperUid, facts: Facts<'_>) -> Option<Moment> {
    let gone = case.since(Timer::PrimaryKeyGone(case.epoch()))?;
    let left = facts.last().is_some_and(|(report, _)| report.leaving);
    if facts.registered.is_some() || !left {
        return None;
    }
    let others = case.mirror.keepers.iter().filter(|(uid, _)| *uid != keeper);
    let back = others.filter_map(|(uid, held)| case.since(Timer::Registered(uid.clone(), held.created))).min();
    Some(back.map_or(gone, |back| back.max(gone)))
}

/// Cold start (R9): without its key, and not heard since this sentinel began, the incumbent may still be booting. That nobody
/// reaches it says nothing then; `key_gone` asks again.
fn booting(case: &Case<'_>, facts: Facts<'_>) -> bool {
    let known = facts.peer.is_some_and(|peer| peer.report.is_some());
    let young = case.seen.leading_since.is_none_or(|since| case.now.since(since) < case.spec.fail_interval);
    young && !known && case.since(Timer::PrimaryKeyGone(case.epoch())).is_some()
}

/// A winner that does not come up.
fn never_ready(case: &Case<'_>, keeper: &KeeperUid, plan: &mut Decision) -> Option<Suspicion> {
    let since = case.since(Timer::NotReady(case.epoch()))?;
    plan.because(format!("waiting for keeper {keeper} to serve as the primary of epoch {}", case.epoch()));
    let first = case.data.cluster.status.phase == Phase::Initializing;
    let limit = if first { case.spec.init_timeout } else { case.spec.ready_timeout };
    let failing = case.master().and_then(|(uid, _)| case.since(Timer::Failing(uid.clone())));
    let failed = failing.is_some_and(|since| plan.waited(case.now, since, case.spec.convergence_timeout));
    if !plan.waited(case.now, since, limit) && !failed {
        return None;
    }
    let cause = format!("keeper {keeper} did not become ready to serve in epoch {}", case.epoch());
    Some(Suspicion { cause, dead: false, planned: false, to: None })
}

enum Verdict {
    Known(Option<Suspicion>),
    /// Nothing but silence to go by.
    Unknown,
}

/// The stream ended: is the process gone, and PostgreSQL with it (R14, R16)?
fn ended(case: &Case<'_>, keeper: &KeeperUid, facts: Facts<'_>, plan: &mut Decision) -> Verdict {
    let Some(ended) = facts.peer.map(|peer| peer.since) else { return Verdict::Unknown };
    let young = case.now.since(ended) < case.spec.suspect_interval;
    match case.seen.redials.get(keeper).copied() {
        Some(Probe { result: Some(ProbeResult::Refused), .. }) => crashed(case, keeper, facts, plan, young),
        redial => {
            let address = facts.info().map(|info| info.grpc_address.clone()).filter(|address| !address.is_empty());
            if let Some(address) = address
                && due(case, redial, if young { RETRY } else { WATCH }, plan)
            {
                plan.actions.push(Action::Redial { keeper: keeper.clone(), address });
            }
            Verdict::Unknown
        }
    }
}

/// The keeper's process is gone.
fn crashed(case: &Case<'_>, keeper: &KeeperUid, facts: Facts<'_>, plan: &mut Decision, young: bool) -> Verdict {
    let knock = case.seen.knocks.get(keeper).copied();
    if let Some((host, port)) = facts.postgres_address()
        && due(case, knock, if young { RETRY } else { WATCH }, plan)
    {
        plan.actions.push(Action::KnockPostgres { keeper: keeper.clone(), host, port });
    }
    match knock.and_then(|knock| knock.result) {
        Some(ProbeResult::Refused) => {
            let cause = format!("keeper {keeper} and its PostgreSQL ended");
            Verdict::Known(Some(Suspicion { cause, dead: true, planned: false, to: None }))
        }
        Some(ProbeResult::Answered) => {
            plan.because(format!("keeper {keeper} is gone, its PostgreSQL runs: no failover while its lease lasts"));
            Verdict::Known(None)
        }
        Some(_) => Verdict::Unknown,
        None => Verdict::Known(None),
    }
}

/// True when a probe should be made now; else asks again when it should.
fn due(case: &Case<'_>, last: Option<Probe>, pause: Duration, plan: &mut Decision) -> bool {
    last.is_none_or(|last| plan.waited(case.now, last.asked, pause) && (last.result.is_some() || pause > RETRY))
}
