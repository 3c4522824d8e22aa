//! No flapping: without a fault no primary is changed. Judged where all faults have ended long ago.

use std::rc::Rc;

use super::writable::BOUND;
use crate::town::Town;

pub fn judge(town: &Rc<Town>) {
    let from = town.world.settings.healed + BOUND;
    let audit = town.world.audit.borrow();
    let late = audit.elections.iter().find(|(_, election)| election.at >= from);
    let what = late.map(|(epoch, election)| {
        let at = election.at as f64 / 1e6;
        format!("keeper {} was elected for epoch {epoch} at {at:.3} s, though all was well", election.keeper)
    });
    drop(audit);
    if let Some(what) = what {
        town.world.audit.borrow_mut().found(town.world.rt.now(), "calm", what);
    }
}
