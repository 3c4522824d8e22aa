//! Who is inside: dials in progress and connections, by the grant that let them in. Says when an epoch is drained.

use std::collections::BTreeMap;

use stolon::model::Epoch;

/// Number of a grant: one opening of a route. Connections belong to a grant; one that is over never comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(u64);

impl Serial {
    pub(super) fn next(self) -> Serial {
        Serial(self.0 + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inside {
    epoch: Epoch,
    dials: u64,
    connections: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(BTreeMap<Serial, Inside>);

impl Ledger {
    pub fn dialing(&mut self, serial: Serial, epoch: Epoch) {
        self.0.entry(serial).or_insert(Inside { epoch, dials: 0, connections: 0 }).dials += 1;
    }

    /// A dial became a connection.
    pub fn connected(&mut self, serial: Serial) {
        if let Some(inside) = self.0.get_mut(&serial) {
            inside.dials -= 1;
            inside.connections += 1;
        }
    }

    pub fn left(&mut self, serial: Serial, connected: bool) {
        let Some(inside) = self.0.get_mut(&serial) else { return };
        if connected {
            inside.connections -= 1;
        } else {
            inside.dials -= 1;
        }
        if inside.dials + inside.connections == 0 {
            self.0.remove(&serial);
        }
    }

    pub fn connections(&self) -> u64 {
        self.0.values().map(|inside| inside.connections).sum()
    }

    /// True when nobody of an epoch up to this one is inside.
    pub fn drained(&self, epoch: Epoch) -> bool {
        self.0.values().all(|inside| inside.epoch > epoch)
    }

    /// An epoch of a grant other than `serial` that somebody is still inside of.
    pub fn others(&self, serial: Option<Serial>) -> Option<Epoch> {
        self.0.iter().find(|(known, _)| Some(**known) != serial).map(|(_, inside)| inside.epoch)
    }
}
