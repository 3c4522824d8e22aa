//! A model of PostgreSQL on one host: what is on disk, and the server that runs on it. WAL is a sequence of records, each
//! known by a number that is unique in the world; a position is the number of records before it. Knows no keeper.

mod commit;
mod data;
mod life;
mod proof;
mod stream;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use stolon::model::Epoch;
use stolon_keeper::{
    journal::{DbState, Journal, KeeperState},
    pg::ProcessId,
};

pub use commit::{Commit, Refusal};
pub use data::{Data, Rec, lsn};

use crate::{
    runtime::{Micros, Proc, Signal},
    world::{HostId, W},
};

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Starting,
    Recovery,
    Promoting,
    Primary,
    /// A fast stop was asked for: no session goes on.
    Stopping,
}

/// Everything that survives the processes of a host.
pub struct Disk {
    pub keeper: KeeperState,
    pub db: DbState,
    pub journal: Journal,
    pub data: Option<Data>,
    /// The keeper's directory: a copy of it is another one.
    pub inode: u64,
}

/// A host's PostgreSQL.
pub struct Machine {
    pub world: W,
    pub host: HostId,
    pub disk: RefCell<Disk>,
    pub server: RefCell<Option<Rc<Server>>>,
    /// A server began, ended, or changed its mode.
    pub changed: Signal,
    /// All machines, to stream from one another.
    pub all: RefCell<Vec<Rc<Machine>>>,
    starts: Cell<u64>,
}

/// A connected standby, as its walsender sees it.
#[derive(Clone, Debug)]
pub struct Follower {
    pub session: u64,
    /// The application name that it came with.
    pub name: Rc<str>,
    pub flushed: usize,
}

/// A running server.
pub struct Server {
    pub id: ProcessId,
    pub process: Proc,
    pub mode: Cell<Mode>,
    /// The epoch that its keeper started it, promoted it, or let it go on in.
    pub epoch: Cell<Epoch>,
    /// Its postmaster is dead; sessions notice in a moment.
    pub headless: Cell<bool>,
    /// The walreceiver's session, while it streams.
    pub receiving: Cell<Option<u64>>,
    /// When the walreceiver last got something.
    pub heard: Cell<Micros>,
    pub followers: RefCell<BTreeMap<HostId, Follower>>,
    /// New records, acknowledgements of standbys, changes of settings.
    pub moved: Signal,
    /// `synchronous_standby_names` as the server read it last: whom walsenders ask before they release a commit.
    pub names: RefCell<Vec<String>>,
    /// Backends wait at all: the checkpointer has seen that there are names, a little later than everybody else (L5).
    pub published: Cell<bool>,
    /// Only internal users are admitted (R20).
    pub reserved: Cell<bool>,
    /// Records that the start made visible to whoever comes in, waiting commits among them (L3); 0 for a standby.
    pub uncovered: Cell<usize>,
}

impl Machine {
    pub fn new(world: &W, host: HostId) -> Rc<Machine> {
        let disk = Disk {
            keeper: KeeperState::default(),
            db: DbState::default(),
            journal: Journal::default(),
            data: None,
            inode: 100 + host as u64,
        };
        Rc::new(Machine {
            world: world.clone(),
            host,
            disk: RefCell::new(disk),
            server: RefCell::new(None),
            changed: Signal::default(),
            all: RefCell::default(),
            starts: Cell::new(0),
        })
    }

    pub fn peer(&self, host: HostId) -> Option<Rc<Machine>> {
        self.all.borrow().get(host).cloned()
    }

    /// The server, while its postmaster lives.
    pub fn running(&self) -> Option<Rc<Server>> {
        self.server.borrow().clone().filter(|server| server.process.alive() && !server.headless.get())
    }

    pub fn mode(&self) -> Option<Mode> {
        self.running().map(|server| server.mode.get())
    }

    /// A server that takes writes.
    pub fn primary(&self) -> Option<Rc<Server>> {
        let server = self.server.borrow().clone()?;
        (server.process.alive() && server.mode.get() == Mode::Primary).then_some(server)
    }

    pub fn with_data<T>(&self, read: impl FnOnce(&Data) -> T) -> Option<T> {
        self.disk.borrow().data.as_ref().map(read)
    }

    pub fn change_data(&self, change: impl FnOnce(&mut Data)) {
        if let Some(data) = &mut self.disk.borrow_mut().data {
            change(data);
        }
        if let Some(server) = &*self.server.borrow() {
            server.moved.bump();
        }
    }

    /// The name of the keeper's network address.
    pub fn address(host: HostId) -> String {
        format!("10.0.0.{host}")
    }

    pub fn host_of(address: &str) -> Option<HostId> {
        address.rsplit('.').next()?.parse().ok()
    }
}
