//! An operator: edits the stored specification as `stolonctl update` does, and asks for handovers as `stolonctl switchover` does.

use std::rc::Rc;

use stolon::{
    model::{ClusterData, KeeperUid},
    store::{Outcome, Txn},
};
use stolon_sentinel::decide::Wish;

use crate::{
    keeper,
    runtime::Micros,
    settings::Replication,
    store::Store,
    town::Town,
    world::{MS, SEC},
};

/// A handover that nobody grants or refuses is wished for no longer.
const PATIENCE: Micros = 5 * SEC;

/// What this history's operator will do.
pub fn plan(town: &Rc<Town>) {
    let settings = &town.world.settings;
    match settings.replication {
        Replication::SwitchedOn { at, min, max } => switch(town, at, true, min, max),
        Replication::SwitchedOff { at, min, max } => switch(town, at, false, min, max),
        Replication::Asynchronous | Replication::Synchronous { .. } => {}
    }
    for _ in 0..settings.handovers {
        let at = town.world.within(settings.calm, settings.healed);
        let own = town.clone();
        town.world.rt.call_at(at, move || {
            let to = own.world.percent(60).then(|| own.world.rng.borrow_mut().below(own.world.settings.databases));
            wish(&own, to.map(keeper::uid));
            // The answer got lost: the same is asked again, of whoever leads then.
            if own.world.percent(25) {
                let (again, later) = (own.clone(), own.world.within(50 * MS, 3 * SEC));
                own.world.rt.call_in(later, move || {
                    again.world.count("handovers asked for twice");
                    wish(&again, to.map(keeper::uid));
                });
            }
        });
    }
}

/// Asks the leading sentinel, once.
pub fn wish(town: &Rc<Town>, to: Option<KeeperUid>) {
    let world = &town.world;
    let Some(sentinel) = town.leader().and_then(|host| town.sentinel(host)) else {
        return world.count("handovers that nobody could be asked for");
    };
    world.say(sentinel.host, || {
        format!("operator: asks for a handover to {}", to.as_ref().map_or("anybody", KeeperUid::as_str))
    });
    world.count("handovers asked for");
    sentinel.wishes(Some(Wish { to }));
    world.rt.call_in(PATIENCE, move || sentinel.wishes(None));
}

/// Stores another mode at that time, and goes on trying until it is stored.
pub fn switch(town: &Rc<Town>, at: Micros, on: bool, min: u16, max: u16) {
    let (world, host) = (town.world.clone(), town.world.settings.databases);
    let process = world.process(host, "client");
    let store = Store::open(&town.etcd, host, &process);
    let own = world.clone();
    world.rt.spawn(&process, async move {
        own.rt.sleep(at.saturating_sub(own.rt.now())).await;
        while !edit(&store, on, min, max).await {
            own.rt.sleep(own.within(100 * MS, 300 * MS)).await;
        }
        own.count(if on { "synchronous replication switched on" } else { "synchronous replication switched off" });
        own.say(host, || format!("operator: synchronous replication is {}", if on { "on" } else { "off" }));
    });
}

async fn edit(store: &Store, on: bool, min: u16, max: u16) -> bool {
    let Ok(mirror) = store.read().await else { return false };
    let Some((data, revision)) = mirror.data() else { return false };
    let mut next = ClusterData::clone(data);
    next.cluster.spec.synchronous_replication = Some(on);
    next.cluster.spec.min_synchronous_standbys = Some(min);
    next.cluster.spec.max_synchronous_standbys = Some(max);
    let Ok(bytes) = serde_json::to_vec(&next) else { return false };
    let key = store.keys().cluster_data();
    let txn = Txn::new().when_revision(key.as_str(), revision).put(key.as_str(), bytes);
    matches!(store.transact(&txn).await, Ok(Outcome::Done(_)))
}
