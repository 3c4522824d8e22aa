//! From the mark to the election (R6, R7): sets the mark, waits for proxies and promises, moves to recruiting, lets
//! `choose` find a winner. A successor of the leader goes on from whatever it finds.

use std::collections::BTreeMap;

use serde_json::Value;
use stolon::{
    model::{
        Epoch, ProxyUid,
        cluster::{Fencing, Phase, Stage},
        registration::ProxyInfo,
    },
    store::Registered,
};

use super::{Action, Case, Decision, Proof, REVOKED, Step, choose, elect, init, suspect::Suspicion, synchronous};
use crate::observe::Timer;

/// Sets the mark when somebody could win; else says why not. True when it was set.
pub fn mark(case: &Case<'_>, suspicion: Suspicion, plan: &mut Decision) -> bool {
    if case.data.cluster.status.phase == Phase::Initializing {
        return init::mark(case, &suspicion, plan);
    }
    let (hopefuls, refusals) = choose::hopefuls(case);
    if hopefuls.is_empty() && !choose::may_go_on(case) {
        plan.because(format!("{}, but no standby could take over", suspicion.cause));
        refusals.into_iter().for_each(|refusal| plan.because(refusal));
        return false;
    }
    write_mark(case, &suspicion, plan);
    true
}

pub fn write_mark(case: &Case<'_>, suspicion: &Suspicion, plan: &mut Decision) {
    let mut next = case.data.clone();
    // Synchronous: a recruit keeps the old primary from acknowledging, nothing is to be waited for before (R8).
    let straight = suspicion.dead || case.mirror.proxies.is_empty() || synchronous::in_force(case);
    let straight = straight && !suspicion.planned;
    next.cluster.status.handover = None;
    next.cluster.status.fencing = Some(Fencing {
        epoch: case.epoch(),
        stage: if straight { Stage::Recruit } else { Stage::Fence },
        planned: suspicion.planned,
        to: suspicion.to.clone(),
        reason: suspicion.cause.clone(),
        traceparent: String::new(),
    });
    // R2 (iv) asks every one of these, also after a lapse and under another leader.
    let enabled: Vec<ProxyUid> = case.mirror.proxies.keys().cloned().collect();
    if next.proxy.spec.enabled_proxies != enabled {
        next.proxy.spec.enabled_proxies = enabled;
        next.proxy.generation = next.proxy.generation.next();
    }
    plan.because(format!("{}: epoch {} ends", suspicion.cause, case.epoch()));
    plan.commit(case, Step::Mark, next, None);
}

/// One step under a mark.
pub fn advance(case: &Case<'_>, mark: &Fencing, plan: &mut Decision, fresh: &mut dyn FnMut() -> String) {
    plan.because(format!("epoch {} ends: {}", mark.epoch, mark.reason));
    let proxies = proxies_fenced(case, mark, plan);
    if mark.stage == Stage::Fence {
        if may_recruit(case, mark, proxies, plan) {
            let mut next = case.data.clone();
            if let Some(mark) = &mut next.cluster.status.fencing {
                mark.stage = Stage::Recruit;
            }
            plan.commit(case, Step::Stage, next, None);
        }
        return;
    }
    if case.data.cluster.status.phase == Phase::Initializing {
        let proof = elect::proof(case, mark, None, plan);
        // Nothing serves yet, so nothing is gained by not waiting for the keeper or its lease.
        if proof == Some(Proof::ProxiesFenced) {
            plan.because("waiting until the first keeper gives up, or its lease ends");
        } else if let (true, Some(proof)) = (proxies, proof) {
            init::choose_again(case, mark, proof, plan, fresh);
        }
        return;
    }
    let choice = choose::choose(case, mark, plan);
    if let (Some(winner), true) = (choice, proxies)
        && plan.committed().is_none()
        && let Some(proof) = elect::proof(case, mark, Some(&winner), plan)
    {
        elect::elect(case, mark, winner, proof, plan);
    }
}

/// Standbys leave the old primary when nothing more can come from it.
fn may_recruit(case: &Case<'_>, mark: &Fencing, proxies: bool, plan: &mut Decision) -> bool {
    let promised = case.master().is_some_and(|(_, db)| case.keeper(&db.spec.keeper_uid).promised() >= mark.epoch);
    // Without its key, an old primary that was to stop in good order did not.
    if promised || proxies && (!mark.planned || case.mirror.primary.is_none()) {
        return true;
    }
    if mark.planned {
        plan.because("waiting for the old primary to stop in good order");
    }
    let since = case.since(Timer::Marked(mark.epoch)).unwrap_or(case.now);
    proxies && plan.waited(case.now, since, case.spec.fail_interval)
}

/// R7: every proxy registered at or after the mark has acknowledged, or is gone for sure.
fn proxies_fenced(case: &Case<'_>, mark: &Fencing, plan: &mut Decision) -> bool {
    if case.mirror.revision < case.revision {
        return false;
    }
    let mut done = true;
    for (uid, proxy) in &case.mirror.proxies {
        if fenced(case, uid) < mark.epoch {
            done = false;
            plan.because(format!("waiting for proxy {uid} to cut its connections of epoch {}", mark.epoch));
            lapse(case, mark, uid, proxy, plan);
        }
    }
    for (uid, ttl) in revoked(case) {
        if fenced(case, &uid) >= mark.epoch || case.mirror.proxies.contains_key(&uid) {
            continue;
        }
        let gone = case.since(Timer::ProxyGone(uid.clone())).unwrap_or(case.now);
        if !plan.waited(case.now, gone, ttl) {
            done = false;
            plan.because(format!("waiting until proxy {uid}, whose lease was revoked, must have noticed"));
        }
    }
    done
}

/// The highest epoch that a proxy acknowledged, by its stream or by etcd.
pub fn fenced(case: &Case<'_>, uid: &ProxyUid) -> Epoch {
    let told = case.seen.fenced.get(uid).copied().unwrap_or_default();
    told.max(case.mirror.proxies.get(uid).map_or(Epoch::NONE, |proxy| proxy.info.fenced_epoch))
}

/// A proxy that does not acknowledge: its lease is measured, the revocation recorded, then done.
fn lapse(case: &Case<'_>, mark: &Fencing, uid: &ProxyUid, proxy: &Registered<ProxyInfo>, plan: &mut Decision) {
    let since = case.since(Timer::Marked(mark.epoch)).unwrap_or(case.now);
    let registered = case.since(Timer::ProxyRegistered(uid.clone(), proxy.created)).unwrap_or(case.now);
    if !plan.waited(case.now, since.max(registered), case.spec.proxy_timeout) {
        return;
    }
    let lease = proxy.lease;
    let Some(ttl) = case.seen.ttls.get(&lease) else {
        plan.actions.push(Action::MeasureLease { proxy: uid.clone(), lease });
        return;
    };
    if revoked(case).contains_key(uid) {
        plan.actions.push(Action::RevokeLease { proxy: uid.clone(), lease });
        return;
    }
    if plan.committed().is_some() {
        return;
    }
    let mut next = case.data.clone();
    let record = next.cluster.status.extra.entry(REVOKED.into()).or_insert_with(|| Value::Object(Default::default()));
    if let Some(record) = record.as_object_mut() {
        record.insert(uid.to_string(), Value::from(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
    }
    plan.commit(case, Step::Lapse, next, None);
}

fn revoked(case: &Case<'_>) -> BTreeMap<ProxyUid, std::time::Duration> {
    let record = case.data.cluster.status.extra.get(REVOKED).and_then(Value::as_object);
    let entries = record.into_iter().flatten();
    entries
        .filter_map(|(uid, ttl)| {
            let ttl = std::time::Duration::from_millis(ttl.as_u64()?);
            Some((ProxyUid::parse(uid.as_str()).ok()?, ttl))
        })
        .collect()
}
