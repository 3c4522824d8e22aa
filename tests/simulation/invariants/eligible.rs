//! Only eligible members are promoted: of this cluster, on its history, with their own consent on disk, and none better
//! was known to whoever chose.

use std::{rc::Rc, time::Duration};

use stolon::{
    model::{Epoch, Moment, WalPosition, cluster::Db},
    store::Mirror,
};
use stolon_sentinel::{
    decide::{Commit, Step},
    observe::Observations,
};

use crate::{postgres::Machine, town::Town, world::World};

/// A server is asked to promote.
pub fn promotes(town: &Rc<Town>, machine: &Machine, epoch: Epoch) {
    let world = &town.world;
    let mut found = Vec::new();
    let host = machine.host;
    {
        let (audit, disk) = (world.audit.borrow(), machine.disk.borrow());
        let Some(data) = &disk.data else { return };
        if disk.journal.promised.next() < epoch && !world.lacks(crate::rules::Rule::Promise) {
            found
                .push(format!("h{host} is promoted in epoch {epoch} with a promise of {} only", disk.journal.promised));
        }
        let last = audit.served.iter().next_back();
        if let Some((served, wal)) = last.filter(|(served, _)| **served < epoch) {
            let common = wal.iter().zip(&data.wal).take_while(|(a, b)| a == b).count();
            if common < wal.len().min(data.wal.len()) {
                found.push(format!("h{host} is promoted in epoch {epoch}, but left the history of epoch {served}"));
            }
        }
    }
    for what in found {
        world.say(host, || format!("FOUND: {what}"));
        world.audit.borrow_mut().found(world.rt.now(), "eligible", what);
    }
}

/// A leader is about to commit this, from what it has really seen.
pub fn intends(world: &World, now: Moment, commit: &Commit, mirror: &Mirror, seen: &Observations) {
    let Some(change) = &commit.change else { return };
    let epoch = change.key.epoch;
    world.audit.borrow_mut().intended.insert(epoch, change.proof);
    let (Step::Elect { .. }, Some((data, _))) = (&commit.step, mirror.data()) else { return };
    let window = world.settings.spec.suspect_interval.map_or(Duration::from_secs(1), |interval| interval.0);
    let position = |uid: &stolon::model::KeeperUid| -> Option<WalPosition> {
        let written = mirror.keepers.get(uid)?;
        let told = seen.keepers.get(uid).and_then(|peer| peer.report.as_ref()).and_then(|(report, _)| report.recruit);
        told.into_iter().chain(written.info.recruit).find(|recruit| recruit.epoch == epoch).map(|r| r.position)
    };
    let Some(own) = position(&change.key.keeper) else { return };
    // Who was not in sync may be further: what it has beyond the others was acknowledged to nobody.
    let master = data.primary().map(|(_, db)| db).filter(|db| db.spec.synchronous_replication);
    if master.is_some() && data.fencing().is_some_and(|mark| mark.to.is_some()) {
        // Who a handover was asked to has all that was acknowledged; others may have more.
        return;
    }
    let electable = |db: &&Db| {
        let named = |master: &Db| master.status.synchronous_standbys.iter().flatten().any(|uid| *uid == db.uid);
        master.is_none_or(named)
    };
    // R13: what ends a primary makes none.
    let limit = world.settings.spec.fail_interval.map_or(Duration::MAX, |limit| limit.0);
    let works = |uid: &stolon::model::KeeperUid| {
        let told = seen.keepers.get(uid).and_then(|peer| peer.report.as_ref());
        told.and_then(|(report, _)| report.postgres.probe_age).is_none_or(|age| age < limit)
    };
    let better = data.dbs.values().filter(electable).map(|db| &db.spec.keeper_uid).find(|uid| {
        let fit = mirror.keepers.get(*uid).is_some_and(|keeper| keeper.info.can_be_master && !keeper.info.leaving);
        fit && works(uid) && seen.hears(now, uid, window) && position(uid).is_some_and(|position| position > own)
    });
    if let Some(better) = better {
        let what = format!("keeper {} at {own} is to win epoch {epoch}, though {better} is further", change.key.keeper);
        world.say(0, || format!("FOUND: {what}"));
        world.audit.borrow_mut().found(world.rt.now(), "eligible", what);
    }
}
