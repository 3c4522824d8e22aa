//! Rules of the sentinel's core, taken out from outside: what it sees is altered so that it finds the rule kept. Only tests
//! of the proof use this; with all rules in place nothing is altered.

use std::sync::Arc;

use stolon::{
    model::{KeeperUid, WalPosition, registration::Recruit},
    store::Mirror,
};
use stolon_sentinel::{
    decide::{Action, Commit, Decision, Step},
    observe::Observations,
};

use crate::{rules::Rule, world::World};

/// What the core is shown instead; `None` when it is shown the truth.
pub fn altered(world: &World, mirror: &Arc<Mirror>, seen: &Observations) -> Option<(Mirror, Observations)> {
    let rule = world.without.missing()?;
    let (data, _) = mirror.data()?;
    let mark = data.fencing()?;
    let old = data.primary().map(|(_, db)| db.spec.keeper_uid.clone())?;
    let (mut mirror, mut seen) = (Mirror::clone(mirror), seen.clone());
    match rule {
        Rule::Promised => promise(&mut mirror, &mut seen, &old, mark.epoch),
        Rule::KeyGone => mirror.primary = None,
        Rule::Fence => {
            for uid in mirror.proxies.keys().chain(&data.proxy.spec.enabled_proxies) {
                seen.fenced.insert(uid.clone(), mark.epoch);
            }
        }
        Rule::Choose => level(&mut mirror, &mut seen),
        _ => return None,
    }
    Some((mirror, seen))
}

fn promise(mirror: &mut Mirror, seen: &mut Observations, keeper: &KeeperUid, epoch: stolon::model::Epoch) {
    if let Some(registered) = mirror.keepers.get_mut(keeper) {
        registered.info.promised = registered.info.promised.max(epoch);
    }
    if let Some((report, _)) = seen.keepers.get_mut(keeper).and_then(|peer| peer.report.as_mut()) {
        report.promised = report.promised.max(epoch);
    }
}

/// All recruits are as good as the best.
fn level(mirror: &mut Mirror, seen: &mut Observations) {
    let told = seen.keepers.values().filter_map(|peer| peer.report.as_ref()).filter_map(|(report, _)| report.recruit);
    let written = mirror.keepers.values().filter_map(|keeper| keeper.info.recruit);
    let highest = seen.highest.values().max().copied().unwrap_or_default();
    let Some(best) = told.chain(written).map(|recruit| recruit.position).max().map(|best| best.max(highest)) else {
        return;
    };
    let same = |recruit: &mut Option<Recruit>| {
        if let Some(recruit) = recruit {
            recruit.position = WalPosition { timeline: recruit.position.timeline, ..best };
        }
    };
    mirror.keepers.values_mut().for_each(|keeper| same(&mut keeper.info.recruit));
    seen.keepers.values_mut().filter_map(|peer| peer.report.as_mut()).for_each(|(report, _)| same(&mut report.recruit));
}

/// The mark is taken off again (R6), as by a leader that does not know what it means.
pub fn without_mark(mirror: &Arc<Mirror>) -> Option<Decision> {
    let (data, from) = mirror.data()?;
    data.fencing()?;
    let mut next = stolon::model::ClusterData::clone(data);
    next.cluster.status.fencing = None;
    let commit = Commit { step: Step::Members, next, from, change: None };
    Some(Decision { actions: vec![Action::Commit(Box::new(commit))], ..Decision::default() })
}

/// R21: all of a new primary's first list is electable at once.
pub fn first_list(world: &World, decision: &mut Decision) {
    if !world.lacks(Rule::FirstList) {
        return;
    }
    for action in &mut decision.actions {
        if let Action::Commit(commit) = action
            && matches!(commit.step, Step::Elect { .. })
            && let Some(master) = commit.next.cluster.status.master.clone()
            && let Some(db) = commit.next.dbs.get_mut(&master)
        {
            db.status.synchronous_standbys.clone_from(&db.spec.synchronous_standbys);
        }
    }
}
