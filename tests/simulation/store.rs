//! A daemon's line to etcd, as `stolon::store` has it: sticky on one member, on to the next after a failure, one mirror by
//! watch and reading, outcomes that may be unknown.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stolon::{
    model::{LeaseId, Revision},
    store::{Keys, Mirror, Outcome, StoreError, Txn},
};

use crate::{
    etcd::{Ask, Copy, Etcd, Said, Watch, WatchNews},
    net::Class,
    runtime::{Proc, Signal},
    world::{HostId, MS, W},
};

const ATTEMPT: Duration = Duration::from_millis(700);
const PAUSE: Duration = Duration::from_millis(50);
/// For one request over all members.
const BOUND: Duration = Duration::from_secs(5);

/// Shared by all tasks of one process.
#[derive(Clone)]
pub struct Store(Rc<Inner>);

struct Inner {
    world: W,
    etcd: Rc<Etcd>,
    host: HostId,
    current: Cell<usize>,
    keys: Keys,
    mirror: RefCell<Option<Arc<Mirror>>>,
    changed: Signal,
    refused: Cell<bool>,
}

impl Store {
    /// Starts the watch, too.
    pub fn open(etcd: &Rc<Etcd>, host: HostId, process: &Proc) -> Store {
        let world = etcd.world.clone();
        let current = Cell::new(host % etcd.members.len());
        let keys = etcd.state.borrow().keys.clone();
        let store = Store(Rc::new(Inner {
            world: world.clone(),
            etcd: etcd.clone(),
            host,
            current,
            keys,
            mirror: RefCell::new(None),
            changed: Signal::default(),
            refused: Cell::new(false),
        }));
        world.rt.spawn(process, store.clone().follow());
        store
    }

    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub fn mirror(&self) -> Option<Arc<Mirror>> {
        self.0.mirror.borrow().clone()
    }

    pub fn changed(&self) -> Signal {
        self.0.changed.clone()
    }

    pub fn refused(&self) -> bool {
        self.0.refused.get()
    }

    fn publish(&self, mirror: &Arc<Mirror>) {
        let newer = self.0.mirror.borrow().as_ref().is_none_or(|known| known.revision < mirror.revision);
        if newer {
            *self.0.mirror.borrow_mut() = Some(mirror.clone());
            self.0.changed.bump();
        }
    }

    fn failed(&self, member: usize) {
        if self.0.current.get() == member {
            self.0.current.set((member + 1) % self.0.etcd.members.len());
        }
    }

    /// One attempt at the present member; `None` when nothing came in time.
    pub async fn once(&self, ask: Ask, limit: Duration) -> Result<Said, usize> {
        self.send(ask, self.0.etcd.copy(), limit).await
    }

    async fn send(&self, ask: Ask, copy: Copy, limit: Duration) -> Result<Said, usize> {
        let (inner, member) = (&self.0, self.0.current.get());
        let etcd = inner.etcd.clone();
        let sent = inner.world.ask(inner.host, member, Class::Etcd, move |reply| etcd.arrive(member, ask, copy, reply));
        match inner.world.within_time(inner.host, limit, sent).await.flatten() {
            Some(Said::Unavailable) | None => {
                self.failed(member);
                Err(member)
            }
            Some(said) => Ok(said),
        }
    }

    /// The answer, and how often it was asked.
    async fn call(&self, ask: Ask) -> (Option<Said>, u32) {
        let (world, host) = (&self.0.world, self.0.host);
        let end = world.clock(host) + BOUND;
        let mut tries = 0;
        let first = self.0.etcd.copy();
        while world.clock(host) < end && !self.0.refused.get() {
            let round = tries / u32::try_from(self.0.etcd.members.len()).unwrap_or(1);
            tries += 1;
            let left = end.since(world.clock(host));
            if let Ok(said) = self
                .send(ask.clone(), Copy { number: tries, ..first }, (ATTEMPT * 2u32.pow(round.min(3))).min(left))
                .await
            {
                return (Some(said), tries);
            }
            let pause = world.clock(host) + PAUSE;
            world.until(host, pause).await;
        }
        (None, tries)
    }

    fn away<T>(&self) -> Result<T, StoreError> {
        match self.0.refused.get() {
            true => Err(StoreError::Refused("the store went back".into())),
            false => Err(StoreError::Unavailable("no member answers".into())),
        }
    }

    /// A linearizable reading. One that is older than what was seen before is of another store (R5).
    pub async fn read(&self) -> Result<Arc<Mirror>, StoreError> {
        let seen = self.mirror().map_or(Revision(0), |mirror| mirror.revision);
        let (Some(Said::Mirror(mirror)), _) = self.call(Ask::Read).await else { return self.away() };
        if mirror.revision < seen {
            self.0.refused.set(true);
            self.0.world.count("stores refused");
            self.0.changed.bump();
            return self.away();
        }
        self.publish(&mirror);
        Ok(mirror)
    }

    pub async fn transact(&self, txn: &Txn) -> Result<Outcome, StoreError> {
        let (said, tries) = self.call(Ask::Txn(Rc::new(txn.clone()))).await;
        match said {
            Some(Said::Done(revision)) => Ok(Outcome::Done(revision)),
            Some(_) if tries > 1 => Err(StoreError::Unknown("it was sent again".into())),
            Some(_) => Ok(Outcome::Conflict),
            None if self.0.refused.get() => self.away(),
            None => Err(StoreError::Unknown("no member answers".into())),
        }
    }

    pub async fn granted_ttl(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        match self.call(Ask::Ttl(lease)).await {
            (Some(Said::Ttl(0)), _) => Ok(None),
            (Some(Said::Ttl(seconds)), _) => Ok(Some(Duration::from_secs(seconds))),
            _ => self.away(),
        }
    }

    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.call(Ask::Revoke(lease)).await {
            (Some(_), _) => Ok(()),
            _ => self.away(),
        }
    }

    /// The new lease with its granted seconds.
    pub async fn grant(&self, seconds: u64) -> Result<(LeaseId, u64), StoreError> {
        match self.call(Ask::Grant(seconds)).await {
            (Some(Said::Granted(lease, seconds)), _) => Ok((lease, seconds)),
            _ => self.away(),
        }
    }

    /// Keeps the mirror up to date.
    async fn follow(self) {
        let world = self.0.world.clone();
        loop {
            let Ok(mirror) = self.read().await else {
                world.rt.sleep(100 * MS).await;
                continue;
            };
            if self.stream(mirror.revision.0).await.is_none() && self.0.refused.get() {
                return;
            }
        }
    }

    /// Watches until all must be read anew.
    async fn stream(&self, mut from: i64) -> Option<()> {
        let world = &self.0.world;
        loop {
            let member = self.0.current.get();
            let watch = Watch::new(member, from, self.0.etcd.lives.get());
            loop {
                match self.0.etcd.watch(self.0.host, &watch).await {
                    WatchNews::Mirror(mirror) => {
                        from = mirror.revision.0;
                        world.pass(10, 60).await;
                        self.publish(&mirror);
                    }
                    WatchNews::Compacted => {
                        world.count("watches that had to read anew");
                        self.failed(member);
                        return None;
                    }
                    WatchNews::Broken => break,
                }
            }
            world.count("watches that broke");
            self.failed(member);
            world.rt.sleep(100 * MS).await;
        }
    }
}
