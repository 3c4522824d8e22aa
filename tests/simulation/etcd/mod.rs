//! A model of etcd: one log of revisions, members that follow it at their own pace, a leader that needs a majority, leases
//! that a new leader prolongs, watches that lag, coalesce and break. Knows no cluster data beyond what the mirror's own code
//! makes of the keys.

mod member;

pub mod state;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use stolon::{
    model::{LeaseId, Revision},
    store::{Mirror, Txn},
};

use crate::{
    invariants,
    net::Class,
    runtime::{Micros, Proc, Signal},
    world::{HostId, MS, Reply, SEC, W},
};
use state::State;

pub use member::{News as WatchNews, Watch};

/// etcd's own: a follower that hears no leader for this long (up to twice as long) stands for election.
const ELECTION: Micros = SEC;
/// Between two looks at who leads, and who may.
const LOOK: Micros = 100 * MS;
/// Between two looks at the leases.
const EXPIRE: Micros = 500 * MS;
/// A request that finds no leader is given up.
const PATIENCE: Micros = 5 * SEC;

/// A request of a client.
#[derive(Clone)]
pub enum Ask {
    Read,
    Txn(Rc<Txn>),
    /// Seconds.
    Grant(u64),
    Alive(LeaseId),
    Ttl(LeaseId),
    Revoke(LeaseId),
}

#[derive(Clone)]
pub enum Said {
    Mirror(Arc<Mirror>),
    Done(Revision),
    Conflict,
    /// Id, and granted seconds.
    Granted(LeaseId, u64),
    /// Seconds; 0 for a lease that is gone.
    Ttl(u64),
    Revoked,
    Unavailable,
}

pub struct Member {
    pub process: RefCell<Proc>,
    /// What this member has applied; its watches and nothing else tell of it.
    pub applied: Cell<i64>,
    pub advanced: Signal,
    catching_up: Cell<bool>,
    /// Since when it has heard no leader.
    deaf: Cell<Option<Micros>>,
}

pub struct Etcd {
    pub world: W,
    pub state: RefCell<State>,
    pub members: Vec<Member>,
    pub leader: Cell<Option<HostId>>,
    lost: Cell<Option<Micros>>,
    patience: Cell<Micros>,
    /// How often the store was replaced by an older copy.
    pub lives: Cell<u64>,
    /// By request: which copy of it was applied last.
    applied_copies: RefCell<BTreeMap<u64, u32>>,
    requests: Cell<u64>,
    /// Transactions whose compares did not hold.
    pub conflicts: Cell<u64>,
}

/// Which sending of which request this is: a client that hears nothing sends it again, and nothing calls the first back.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub request: u64,
    pub number: u32,
}

impl Etcd {
    pub fn start(world: &W) -> Rc<Etcd> {
        let member = |host| Member {
            process: RefCell::new(world.process(host, "etcd")),
            applied: Cell::new(1),
            advanced: Signal::default(),
            catching_up: Cell::new(false),
            deaf: Cell::new(None),
        };
        let etcd = Rc::new(Etcd {
            world: world.clone(),
            state: RefCell::default(),
            members: (0..world.settings.databases).map(member).collect(),
            leader: Cell::new(Some(0)),
            lost: Cell::new(None),
            patience: Cell::new(ELECTION),
            lives: Cell::new(0),
            applied_copies: RefCell::default(),
            requests: Cell::new(0),
            conflicts: Cell::new(0),
        });
        etcd.clone().look();
        etcd.clone().expire();
        etcd
    }

    /// A member starts again, with what it had.
    pub fn restart(&self, host: HostId) {
        if !self.members[host].process.borrow().alive() && self.world.hosts[host].powered.get() {
            *self.members[host].process.borrow_mut() = self.world.process(host, "etcd");
            self.members[host].deaf.set(None);
        }
    }

    pub fn runs(&self, host: HostId) -> bool {
        self.members[host].process.borrow().runs()
    }

    fn talks(&self, one: HostId, other: HostId) -> bool {
        let net = &self.world.net;
        net.open(one, other, Class::Etcd) && net.open(other, one, Class::Etcd)
    }

    fn majority(&self, host: HostId) -> bool {
        let with = (0..self.members.len()).filter(|other| self.runs(*other) && self.talks(host, *other)).count();
        self.runs(host) && with * 2 > self.members.len()
    }

    /// The leader, while it can commit.
    fn serving(&self) -> Option<HostId> {
        self.leader.get().filter(|leader| self.majority(*leader))
    }

    /// Elections: who leads, and for how long nobody did.
    fn look(self: Rc<Etcd>) {
        let now = self.world.rt.now();
        match (self.serving(), self.lost.get()) {
            (Some(_), _) => self.lost.set(None),
            (None, None) => {
                self.lost.set(Some(now));
                self.patience.set(self.world.within(ELECTION, 2 * ELECTION));
            }
            (None, Some(since)) if now - since >= self.patience.get() => {
                let fit: Vec<HostId> = (0..self.members.len()).filter(|host| self.majority(*host)).collect();
                self.leader.set(None);
                if !fit.is_empty() {
                    let chosen = self.world.rng.borrow_mut().pick(&fit);
                    self.leader.set(Some(chosen));
                    self.lost.set(None);
                    self.world.count("etcd elections");
                    self.world.say(chosen, || "etcd: leads".into());
                    self.state.borrow_mut().prolong(|| self.world.clock(chosen));
                }
            }
            _ => {}
        }
        for (host, member) in self.members.iter().enumerate() {
            let hears = self.leader.get().is_some_and(|leader| self.runs(leader) && self.talks(host, leader));
            match (hears, member.deaf.get()) {
                (true, _) => member.deaf.set(None),
                (false, None) => member.deaf.set(Some(now)),
                _ => {}
            }
            if hears && member.applied.get() < self.state.borrow().revision {
                self.follow(host);
            }
        }
        let world = self.world.clone();
        world.rt.call_in(LOOK, move || self.look());
    }

    /// A member that has heard no leader for long ends its watches (clients ask for that).
    pub fn leaderless(&self, host: HostId) -> bool {
        self.members[host].deaf.get().is_some_and(|since| self.world.rt.now() - since > ELECTION + ELECTION / 2)
    }

    fn expire(self: Rc<Etcd>) {
        if let Some(leader) = self.serving() {
            let now = self.world.clock(leader);
            let over = self.state.borrow().expired(now);
            for lease in over {
                self.world.say(leader, || format!("etcd: lease {lease} ends"));
                self.state.borrow_mut().revoke(lease);
                self.applied();
            }
        }
        let world = self.world.clone();
        world.rt.call_in(EXPIRE, move || self.expire());
    }

    /// The state has moved: members follow.
    fn applied(self: &Rc<Etcd>) {
        let town = self.world.town.borrow().upgrade();
        if let Some(town) = town {
            invariants::stored(&town);
        }
        for host in 0..self.members.len() {
            self.follow(host);
        }
    }

    fn follow(self: &Rc<Etcd>, host: HostId) {
        let member = &self.members[host];
        if member.catching_up.replace(true) {
            return;
        }
        let (etcd, delay) = (self.clone(), self.world.within(MS / 4, 2 * MS));
        self.world.rt.call_in(delay, move || {
            let member = &etcd.members[host];
            member.catching_up.set(false);
            let reached = etcd.leader.get().is_some_and(|leader| etcd.runs(leader) && etcd.talks(host, leader));
            let revision = etcd.state.borrow().revision;
            if reached && etcd.runs(host) && member.applied.get() < revision {
                member.applied.set(revision);
                member.advanced.bump();
            }
        });
    }

    /// A request arrives at a member; the answer goes out when there is one.
    pub fn arrive(self: &Rc<Etcd>, host: HostId, ask: Ask, copy: Copy, reply: Reply<Said>) {
        let process = self.members[host].process.borrow().clone();
        if !process.alive() {
            // Connection refused.
            return reply.send(Said::Unavailable);
        }
        let etcd = self.clone();
        self.world.rt.spawn(&process, async move {
            let said = etcd.serve(host, ask, copy).await;
            reply.send(said);
        });
    }

    fn ready(&self, host: HostId, ask: &Ask) -> bool {
        let Some(leader) = self.leader.get().filter(|leader| self.runs(*leader) && self.talks(host, *leader)) else {
            return false;
        };
        // A leader answers keepalives until it notices that it leads no more.
        match ask {
            Ask::Alive(_) => {
                self.majority(leader) || self.lost.get().is_none_or(|s| self.world.rt.now() - s < ELECTION)
            }
            _ => self.majority(leader),
        }
    }

    async fn serve(self: &Rc<Etcd>, host: HostId, ask: Ask, copy: Copy) -> Said {
        let began = self.world.rt.now();
        while !self.ready(host, &ask) {
            if self.world.rt.now() - began > PATIENCE {
                return Said::Unavailable;
            }
            self.world.rt.sleep(40 * MS).await;
        }
        let slow = self.world.settings.slow_etcd();
        self.world.rt.sleep(self.world.within(MS, slow)).await;
        if !self.ready(host, &ask) && self.world.percent(50) {
            // Proposed, and forgotten with its leader; the other half was committed all the same.
            self.world.rt.sleep(PATIENCE).await;
            return Said::Unavailable;
        }
        if matches!(ask, Ask::Txn(_)) {
            self.note(copy);
        }
        let said = self.apply(ask);
        if !self.ready(host, &Ask::Read) {
            self.world.rt.sleep(PATIENCE).await;
        }
        said
    }

    /// A new request.
    pub fn copy(&self) -> Copy {
        self.requests.set(self.requests.get() + 1);
        Copy { request: self.requests.get(), number: 0 }
    }

    fn note(&self, copy: Copy) {
        match self.applied_copies.borrow_mut().insert(copy.request, copy.number) {
            None => {}
            Some(before) if before < copy.number => self.world.count("requests of etcd that were applied again"),
            Some(_) => self.world.count("requests of etcd whose earlier copy came last"),
        }
    }

    fn apply(self: &Rc<Etcd>, ask: Ask) -> Said {
        let leader = self.leader.get().unwrap_or(0);
        let now = self.world.clock(leader);
        let before = self.state.borrow().revision;
        let said = match ask {
            Ask::Read => Said::Mirror(self.state.borrow().newest()),
            Ask::Txn(txn) => {
                let said = self.state.borrow_mut().transact(&txn, self.world.without);
                self.conflicts.set(self.conflicts.get() + u64::from(matches!(said, Said::Conflict)));
                said
            }
            Ask::Grant(seconds) => self.state.borrow_mut().grant(now, seconds),
            Ask::Alive(lease) => self.state.borrow_mut().alive(now, lease),
            Ask::Ttl(lease) => self.state.borrow().ttl(lease),
            Ask::Revoke(lease) => {
                self.state.borrow_mut().revoke(lease);
                Said::Revoked
            }
        };
        if self.state.borrow().revision > before {
            self.applied();
        }
        said
    }

    /// Forgets the past: watches that lag too far must read anew.
    pub fn compact(&self) {
        let mut state = self.state.borrow_mut();
        state.compacted = state.revision;
    }

    /// An older copy of the store is put in place, on every member.
    pub fn restore(&self, revision: i64) {
        self.state.borrow_mut().restore(revision);
        self.lives.set(self.lives.get() + 1);
        for member in &self.members {
            member.applied.set(revision);
            member.advanced.bump();
        }
        self.world.audit.borrow_mut().restored = true;
    }
}
