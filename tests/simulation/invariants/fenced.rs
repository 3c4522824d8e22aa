//! Fenced is earned, never remembered: when an election is carried out, what proves the old epoch over is true at that
//! instant, and R7 holds for every proxy there is.

use std::rc::Rc;

use stolon::{model::cluster::Db, store::Mirror};
use stolon_sentinel::decide::Proof;

use crate::{
    audit::Election,
    keeper::host_of,
    postgres::Mode,
    town::Town,
    world::{HostId, MS},
};

pub fn stored(town: &Rc<Town>) {
    let mirror = town.etcd.state.borrow().newest();
    let Some((data, _)) = mirror.data() else { return };
    let before = town.world.audit.borrow().epoch;
    let Some((_, db)) = data.primary().filter(|_| data.epoch() > before) else { return };
    let revision = town.etcd.state.borrow().revision;
    let previous = town.etcd.state.borrow().at(revision - 1);
    let old = previous.data().and_then(|(data, _)| data.primary().map(|(_, db)| host_of(&db.spec.keeper_uid)));
    let now = town.world.rt.now();
    let proof = town.world.audit.borrow().intended.get(&data.epoch()).copied().unwrap_or(Proof::First);
    let master = previous.data().and_then(|(data, _)| data.primary().map(|(_, db)| db.spec.synchronous_replication));
    let (keeper, synchronous) = (db.spec.keeper_uid.clone(), master.unwrap_or(true));
    let handed_over = handed_over(&previous, db, proof);
    let election = Election { at: now, proof, keeper, synchronous, handed_over };
    town.world.audit.borrow_mut().elections.insert(data.epoch(), election);
    town.world.count("elections carried out");
    if let Some(old) = old {
        let found = routes(town).or_else(|| false_proof(town, old, proof));
        if let Some(what) = found {
            town.world.say(old, || format!("FOUND: {what}"));
            town.world.audit.borrow_mut().found(now, "fenced", format!("epoch {before} ended, but {what}"));
        }
    }
}

fn handed_over(previous: &Mirror, winner: &Db, proof: Proof) -> Option<HostId> {
    let (data, _) = previous.data()?;
    let planned = data.fencing().is_some_and(|mark| mark.planned) && proof == Proof::Promised;
    let (_, old) = data.primary().filter(|_| planned)?;
    let there = previous.keepers.get(&old.spec.keeper_uid).is_some_and(|keeper| !keeper.info.leaving);
    (there && old.spec.keeper_uid != winner.spec.keeper_uid).then(|| host_of(&old.spec.keeper_uid))
}

/// R7: nobody is inside any more.
fn routes(town: &Rc<Town>) -> Option<String> {
    let proxies = town.proxies.iter().filter_map(|proxy| proxy.borrow().clone());
    proxies.filter(|proxy| proxy.process.alive()).find_map(|proxy| {
        let now = proxy.now();
        let open = proxy.open.borrow().iter().any(|pass| pass.holds(now));
        open.then(|| format!("the proxy on host {} still forwards", proxy.host))
    })
}

fn false_proof(town: &Rc<Town>, old: HostId, proof: Proof) -> Option<String> {
    let machine = &town.machines[old];
    let epoch = town.world.audit.borrow().epoch;
    let promised = machine.disk.borrow().journal.promised;
    let runs = machine
        .primary()
        .filter(|server| server.process.runs() && server.epoch.get() <= epoch && server.mode.get() == Mode::Primary);
    match proof {
        Proof::Promised if promised < epoch => Some(format!("the promise of h{old} is not on its disk")),
        Proof::Promised if runs.is_some() => Some(format!("h{old} promised, and still takes writes")),
        Proof::KeyGone if runs.is_some() && guarded(town, old) => {
            Some(format!("the lease of h{old} is over, and it still takes writes"))
        }
        _ => None,
    }
}

/// The guard of the old primary has worked for a while: what R12 excuses does not hold.
fn guarded(town: &Rc<Town>, host: HostId) -> bool {
    let thawed = town.world.audit.borrow().thawed.get(&host).copied();
    town.guards[host].process.borrow().runs() && thawed.is_none_or(|at| town.world.rt.now() > at + 200 * MS)
}
