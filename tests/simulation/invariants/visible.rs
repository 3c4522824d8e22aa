//! R20: what the restart of a synchronous primary uncovers (L3: commits that still waited become visible) is shown to nobody
//! but internal users before the standbys have it: whatever a client could read then survives.

use std::{collections::BTreeSet, rc::Rc};

use crate::{postgres::Rec, town::Town};

/// `wal`: what the primary of this moment has.
pub fn survives(town: &Rc<Town>, wal: &BTreeSet<Rec>) {
    let mut audit = town.world.audit.borrow_mut();
    if !audit.synchronous {
        return;
    }
    let lost = audit.shown.iter().find(|shown| !wal.contains(&shown.record)).copied();
    if let Some(lost) = lost {
        let what = format!(
            "what clients could read on h{} in epoch {} from {:.3} s on, after it had started again, is lost",
            lost.host,
            lost.epoch,
            lost.at as f64 / 1e6
        );
        audit.found(town.world.rt.now(), "visible", what);
    }
}
