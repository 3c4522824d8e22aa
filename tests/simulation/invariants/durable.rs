//! In synchronous mode every acknowledged commit survives. In asynchronous mode only what the primary of the end has
//! acknowledged itself, and nobody else has written over, must be there.

use std::rc::Rc;

use crate::{audit::Via, postgres::Mode, town::Town};

pub fn judge(town: &Rc<Town>) {
    let audit = town.world.audit.borrow();
    let Some(last) = audit.reigns.last().copied() else { return };
    let machine = &town.machines[last.host];
    if machine.mode() != Some(Mode::Primary) {
        return;
    }
    let Some(wal) = machine.with_data(|data| data.wal.iter().copied().collect::<std::collections::BTreeSet<_>>())
    else {
        return;
    };
    let counts =
        |ack: &&crate::audit::Ack| audit.synchronous || ack.commit.host == last.host && ack.commit.epoch == last.epoch;
    let lost: Vec<_> = audit.acks.iter().filter(counts).filter(|ack| !wal.contains(&ack.commit.record)).collect();
    let what = lost.first().map(|first| {
        let via = match first.via {
            Via::Directly => "directly",
            Via::Proxy { .. } => "through a proxy",
        };
        format!(
            "{} acknowledged commits are lost; the first, on h{} in epoch {}, was acknowledged {via} at {:.3} s",
            lost.len(),
            first.commit.host,
            first.commit.epoch,
            first.at as f64 / 1e6
        )
    });
    drop(audit);
    if let Some(what) = what {
        town.world.audit.borrow_mut().found(town.world.rt.now(), "durable", what);
    }
}
