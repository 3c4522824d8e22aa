//! The network: per direction and kind of traffic, whether messages pass, how long they take, and how many get lost.

use std::cell::{Cell, RefCell};

use crate::{
    rng::Rng,
    runtime::Micros,
    world::{HostId, MS},
};

/// Kinds of traffic that can be cut one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Etcd,
    /// Streams and dials to sentinels and keepers.
    Grpc,
    /// Clients' sessions, and knocks.
    Sql,
    /// Streaming replication, rewinds, base backups.
    Wal,
}

pub const CLASSES: [Class; 4] = [Class::Etcd, Class::Grpc, Class::Sql, Class::Wal];

#[derive(Default)]
struct Link {
    cut: [Cell<u32>; 4],
    loss: Cell<u64>,
    slow: Cell<Micros>,
}

pub struct Net {
    hosts: usize,
    links: Vec<Link>,
    /// Both ends of each link that is cut somehow, for the event log.
    pub cuts: RefCell<u64>,
}

impl Net {
    pub fn new(hosts: usize) -> Net {
        Net { hosts, links: (0..hosts * hosts).map(|_| Link::default()).collect(), cuts: RefCell::new(0) }
    }

    fn link(&self, from: HostId, to: HostId) -> &Link {
        &self.links[from * self.hosts + to]
    }

    pub fn cut(&self, from: HostId, to: HostId, class: Class) {
        let cut = &self.link(from, to).cut[class as usize];
        cut.set(cut.get() + 1);
        *self.cuts.borrow_mut() += 1;
    }

    pub fn heal(&self, from: HostId, to: HostId, class: Class) {
        let cut = &self.link(from, to).cut[class as usize];
        cut.set(cut.get().saturating_sub(1));
    }

    /// Percent of messages that are lost, and what each takes longer.
    pub fn worsen(&self, from: HostId, to: HostId, loss: u64, slow: Micros) {
        self.link(from, to).loss.set(loss);
        self.link(from, to).slow.set(slow);
    }

    /// A message of this kind could pass now, but for loss.
    pub fn open(&self, from: HostId, to: HostId, class: Class) -> bool {
        from == to || self.link(from, to).cut[class as usize].get() == 0
    }

    pub fn passes(&self, from: HostId, to: HostId, class: Class, rng: &mut Rng) -> bool {
        let loss = self.link(from, to).loss.get();
        self.open(from, to, class) && (from == to || loss == 0 || !rng.percent(loss))
    }

    pub fn delay(&self, from: HostId, to: HostId, rng: &mut Rng) -> Micros {
        if from == to {
            return rng.within(20, 80);
        }
        let slow = self.link(from, to).slow.get();
        let extra = if slow > 0 { rng.within(0, slow) } else { 0 };
        rng.within(100, MS) + extra
    }
}
