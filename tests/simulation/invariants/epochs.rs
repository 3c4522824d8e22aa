//! Epochs only grow, one at a time, and the key that remembers the highest agrees. (That no epoch has two primaries is
//! looked at when one begins.)

use std::rc::Rc;

use stolon::model::Epoch;

use super::{durable, handed_over};
use crate::town::Town;

pub fn stored(town: &Rc<Town>) {
    let mirror = town.etcd.state.borrow().newest();
    let mut audit = town.world.audit.borrow_mut();
    let Some((data, _)) = mirror.data().filter(|_| !audit.restored) else { return };
    let (now, epoch, before) = (town.world.rt.now(), data.epoch(), audit.epoch);
    if epoch < before || epoch > before.next() {
        audit.found(now, "epochs", format!("cluster data went from epoch {before} to {epoch}"));
    }
    let highest = mirror.highest_epoch.map_or(Epoch::NONE, |(highest, _)| highest);
    if highest != epoch {
        audit.found(now, "epochs", format!("cluster data are of epoch {epoch}, the highest ever is {highest}"));
    }
    audit.epoch = epoch;
    let synchronous = data.primary().map(|(_, db)| db).filter(|db| db.spec.synchronous_replication);
    if synchronous.is_some_and(|db| db.status.synchronous_standbys.iter().flatten().next().is_some()) {
        audit.electable.get_or_insert((now, epoch));
    }
    if let Some(ready) = &mirror.ready
        && audit.announced.insert(ready.value.epoch)
    {
        let host = crate::keeper::host_of(&ready.value.keeper);
        let wal = town.machines[host].with_data(|data| data.wal.clone()).unwrap_or_default();
        let announced = ready.value.epoch;
        audit.served.insert(announced, wal.clone());
        drop(audit);
        durable::serves(town, &wal);
        handed_over::serves(town, announced, &wal);
    }
}
