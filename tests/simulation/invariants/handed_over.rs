//! A handover loses nothing, in either mode of replication (R8): what the old primary acknowledged in its epoch is on the
//! new one, whether it stopped in good order or was killed while it stopped. Judged when the old keeper gave its promise and
//! is there to be elected again; if it ends, or its registration is gone, what holds for a failover holds.

use std::rc::Rc;

use stolon::model::Epoch;

use crate::{audit::Ack, postgres::Rec, town::Town};

/// The primary of this epoch says that it serves, with these records.
pub fn serves(town: &Rc<Town>, epoch: Epoch, wal: &[Rec]) {
    let what = {
        let audit = town.world.audit.borrow();
        let Some(old) = audit.elections.get(&epoch).and_then(|election| election.handed_over) else { return };
        let of_old = |ack: &&Ack| ack.commit.host == old && ack.commit.epoch.next() == epoch;
        let lost: Vec<&Ack> =
            audit.acks.iter().filter(of_old).filter(|ack| !wal.contains(&ack.commit.record)).collect();
        lost.first().map(|first| {
            let at = first.at as f64 / 1e6;
            format!("the handover from h{old} to epoch {epoch} lost {} commits, the first of {at:.3} s", lost.len())
        })
    };
    town.world.count("handovers judged");
    if let Some(what) = what {
        town.world.say(0, || format!("FOUND: {what}"));
        town.world.audit.borrow_mut().found(town.world.rt.now(), "handed over", what);
    }
}
