//! Everything that runs, by host: starts it, restarts what was killed, and takes the world apart in the end.

use std::{cell::RefCell, rc::Rc};

use stolon::model::Epoch;

use crate::{
    audit::Ack,
    clients,
    etcd::Etcd,
    faults,
    guard::Guard,
    invariants,
    keeper::Keeper,
    operator,
    postgres::Machine,
    proxy::Proxy,
    rules::Without,
    sentinel::Sentinel,
    settings::Settings,
    streams::{self, Line},
    world::{HostId, MS, SEC, W, World},
};

pub struct Town {
    pub world: W,
    pub etcd: Rc<Etcd>,
    pub machines: Vec<Rc<Machine>>,
    pub guards: Vec<Rc<Guard>>,
    pub keepers: Vec<RefCell<Option<Rc<Keeper>>>>,
    pub sentinels: Vec<RefCell<Option<Rc<Sentinel>>>>,
    /// By host; those of the databases have none.
    pub proxies: Vec<RefCell<Option<Rc<Proxy>>>>,
}

impl Town {
    pub fn build(seed: u64, settings: Settings, without: Without, log: bool) -> Rc<Town> {
        let world = World::new(seed, settings, without, log);
        let (databases, hosts) = (world.settings.databases, world.hosts.len());
        let etcd = Etcd::start(&world);
        let machines: Vec<Rc<Machine>> = (0..databases).map(|host| Machine::new(&world, host)).collect();
        for machine in &machines {
            machine.all.borrow_mut().clone_from(&machines);
        }
        let guards = machines.iter().map(Guard::start).collect();
        let town = Rc::new(Town {
            world: world.clone(),
            etcd,
            machines,
            guards,
            keepers: (0..databases).map(|_| RefCell::default()).collect(),
            sentinels: (0..databases).map(|_| RefCell::default()).collect(),
            proxies: (0..hosts).map(|_| RefCell::default()).collect(),
        });
        *world.town.borrow_mut() = Rc::downgrade(&town);
        for host in 0..hosts {
            let (own, delay) = (town.clone(), world.within(0, 300 * MS));
            world.rt.call_in(delay, move || own.start(host));
        }
        clients::start(&town);
        town.clone().supervise();
        town
    }

    /// What a host runs.
    fn start(self: &Rc<Town>, host: HostId) {
        if host < self.world.settings.databases {
            self.start_sentinel(host);
            self.start_keeper(host);
        } else {
            self.start_proxy(host);
        }
    }

    pub fn start_keeper(self: &Rc<Town>, host: HostId) {
        self.guards[host].arm();
        let keeper = Keeper::start(&self.etcd, &self.machines[host], &self.guards[host]);
        streams::keep(self, &keeper);
        *self.keepers[host].borrow_mut() = Some(keeper);
    }

    pub fn start_sentinel(self: &Rc<Town>, host: HostId) {
        *self.sentinels[host].borrow_mut() = Some(Sentinel::start(self, host));
    }

    pub fn start_proxy(self: &Rc<Town>, host: HostId) {
        let proxy = Proxy::start(self, host);
        streams::keep(self, &proxy);
        *self.proxies[host].borrow_mut() = Some(proxy);
    }

    pub fn keeper(&self, host: HostId) -> Option<Rc<Keeper>> {
        self.keepers[host].borrow().clone().filter(|keeper| keeper.process.alive())
    }

    pub fn sentinel(&self, host: HostId) -> Option<Rc<Sentinel>> {
        self.sentinels[host].borrow().clone().filter(|sentinel| sentinel.process.alive())
    }

    pub fn proxy(&self, host: HostId) -> Option<Rc<Proxy>> {
        self.proxies[host].borrow().clone().filter(|proxy| proxy.process.alive())
    }

    pub fn line_ended(&self, target: HostId, line: &Rc<Line>) {
        line.close(&self.world, target);
        if let Some(sentinel) = self.sentinel(target) {
            sentinel.leave(line);
        }
    }

    /// What died is started again after a while, as by systemd.
    fn supervise(self: Rc<Town>) {
        let world = self.world.clone();
        for host in 0..world.hosts.len() {
            if !world.hosts[host].powered.get() || world.rt.now() < SEC || self.kept_down(host) {
                continue;
            }
            if host < world.settings.databases {
                self.etcd.restart(host);
                if self.keeper(host).is_none() {
                    self.start_keeper(host);
                }
                if self.sentinel(host).is_none() {
                    self.start_sentinel(host);
                }
            } else if self.proxy(host).is_none() {
                self.start_proxy(host);
            }
        }
        let pause = world.within(500 * MS, 1500 * MS);
        world.rt.call_in(pause, move || self.supervise());
    }

    fn kept_down(&self, host: HostId) -> bool {
        self.world.down.borrow().get(host).is_some_and(|down| *down > 0)
    }

    /// The host that is primary by the newest cluster data.
    pub fn primary(&self) -> Option<HostId> {
        let mirror = self.etcd.state.borrow().newest();
        let (data, _) = mirror.data()?;
        data.primary().map(|(_, db)| crate::keeper::host_of(&db.spec.keeper_uid))
    }

    /// The host whose sentinel leads.
    pub fn leader(&self) -> Option<HostId> {
        let mirror = self.etcd.state.borrow().newest();
        let first = mirror.leader()?;
        self.sentinels.iter().position(|s| s.borrow().as_ref().is_some_and(|sentinel| sentinel.uid == first.uid))
    }

    pub fn epoch(&self) -> Epoch {
        self.etcd.state.borrow().newest().data().map_or(Epoch::NONE, |(data, _)| data.epoch())
    }

    pub fn acknowledged(self: &Rc<Town>, ack: &Ack) {
        invariants::one_primary::acknowledged(self, ack);
        self.world.audit.borrow_mut().acks.push(*ack);
    }

    /// Lets the nemesis loose, runs to the end, and looks at what must hold then.
    pub fn live(self: &Rc<Town>) {
        faults::plan(self);
        operator::plan(self);
        let end = self.world.settings.end;
        self.world.rt.run_until(end);
        if self.world.rt.overrun() {
            let (now, what) = (self.world.rt.now(), "somebody is busy with nothing".to_owned());
            self.world.audit.borrow_mut().found(now, "busy", what);
        }
        invariants::at_the_end(self);
    }

    /// Takes everything apart: the parts know one another.
    pub fn end(&self) {
        self.world.rt.end();
        for machine in &self.machines {
            machine.all.borrow_mut().clear();
            machine.server.borrow_mut().take();
        }
        self.keepers.iter().for_each(|keeper| drop(keeper.borrow_mut().take()));
        self.sentinels.iter().for_each(|sentinel| drop(sentinel.borrow_mut().take()));
        self.proxies.iter().for_each(|proxy| drop(proxy.borrow_mut().take()));
        self.world.rt.end();
    }
}
