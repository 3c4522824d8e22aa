//! In synchronous mode every acknowledged commit survives every failover, whichever way it was acknowledged. In asynchronous
//! mode only what the primary of the end has acknowledged itself, and nobody else has written over, must be there.

use std::{collections::BTreeSet, rc::Rc};

use super::visible;
use crate::{
    audit::{Ack, Via},
    postgres::{Mode, Rec},
    settings::Replication,
    town::Town,
};

/// A new primary serves with these records.
pub fn serves(town: &Rc<Town>, wal: &[Rec]) {
    let wal: BTreeSet<Rec> = wal.iter().copied().collect();
    look(town, &wal, |ack| promised(town, ack));
}

pub fn judge(town: &Rc<Town>) {
    let Some(last) = town.world.audit.borrow().reigns.last().copied() else { return };
    let machine = &town.machines[last.host];
    if machine.mode() != Some(Mode::Primary) {
        return;
    }
    let Some(wal) = machine.with_data(|data| data.wal.iter().copied().collect::<BTreeSet<_>>()) else { return };
    let own = |ack: &Ack| ack.commit.host == last.host && ack.commit.epoch == last.epoch;
    look(town, &wal, |ack| promised(town, ack) || own(ack));
}

/// The mode that was in force when this was acknowledged, and since, promises it.
fn promised(town: &Town, ack: &Ack) -> bool {
    let since = town.world.audit.borrow().electable;
    match town.world.settings.replication {
        Replication::Asynchronous => false,
        Replication::Synchronous { .. } => true,
        // Until an epoch ends in asynchronous mode. From then on the protocol promises nothing for what was acknowledged before:
        // the winner may be whoever is within `maxStandbyLag`, and those that had everything may be away.
        Replication::SwitchedOff { .. } => {
            town.world.audit.borrow().elections.values().all(|election| election.synchronous)
        }
        // A primary of an earlier epoch was asynchronous.
        Replication::SwitchedOn { .. } => {
            let counts = since.is_some_and(|(at, epoch)| ack.commit.at >= at && ack.commit.epoch >= epoch);
            ack.commit.waited || counts
        }
    }
}

fn look(town: &Rc<Town>, wal: &BTreeSet<Rec>, counts: impl Fn(&Ack) -> bool) {
    visible::survives(town, wal);
    let audit = town.world.audit.borrow();
    let lost: Vec<&Ack> =
        audit.acks.iter().filter(|ack| !wal.contains(&ack.commit.record)).filter(|ack| counts(ack)).collect();
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
        town.world.say(0, || format!("FOUND: {what}"));
        town.world.audit.borrow_mut().found(town.world.rt.now(), "durable", what);
    }
}
