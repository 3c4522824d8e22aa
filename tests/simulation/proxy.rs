//! A proxy's process: the real gate, in a shell that does what `proxy/{control,gatehouse,client}.rs` do.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stolon::{
    model::{
        ClusterData, Epoch, Generation, LeaseId, Moment, ProxyUid, Revision, registration::ProxyInfo,
        report::ProxyReport, view::ProxyView,
    },
    store::{Begin, Mirror},
};
use stolon_proxy::gate::{Facts, Gate, Lease, Leased, Serial, facts::Ready};

use crate::{
    connection::{Connection, Pass, Ticket},
    net::Class,
    postgres::{Commit, Machine, Mode},
    registration::Registration,
    rules::Rule,
    runtime::{Proc, Signal},
    store::Store,
    streams::{Peer, Report},
    town::Town,
    world::{HostId, MS, SEC, W},
};

const FIRST_PAUSE: u64 = 20 * MS;
const LAST_PAUSE: u64 = 500 * MS;

/// Grant, whether it is open, what is acknowledged, and the mark.
type Gist = (Option<(Serial, Moment, bool)>, bool, Epoch, Option<Epoch>);

pub struct Proxy {
    pub world: W,
    pub town: Rc<Town>,
    pub host: HostId,
    pub uid: ProxyUid,
    pub process: Proc,
    store: Store,
    registration: Registration,
    pub gate: RefCell<Gate>,
    pass: RefCell<Option<Rc<Pass>>>,
    news: Signal,
    urge: Signal,
    heard: RefCell<Option<Revision>>,
    written: Cell<(Epoch, Generation)>,
    told: Cell<Epoch>,
    /// Passes of connections that stand.
    pub open: RefCell<Vec<Rc<Pass>>>,
}

impl Proxy {
    pub fn start(town: &Rc<Town>, host: HostId) -> Rc<Proxy> {
        let world = town.world.clone();
        let process = world.process(host, "proxy");
        let store = Store::open(&town.etcd, host, &process);
        let fresh = world.rng.borrow_mut().next();
        let uid = ProxyUid::parse(format!("px{:06x}", fresh as u32 & 0xFF_FFFF)).expect("a valid name");
        let key = store.keys().proxy(&uid);
        let value = record(&uid, Generation(0), Epoch::NONE, fresh);
        let registration = Registration::start(&world, host, &process, &store, key, value, Begin::Anew);
        let proxy = Rc::new(Proxy {
            world: world.clone(),
            town: town.clone(),
            host,
            uid,
            process: process.clone(),
            store,
            registration,
            gate: RefCell::default(),
            pass: RefCell::default(),
            news: Signal::default(),
            urge: Signal::default(),
            heard: RefCell::default(),
            written: Cell::default(),
            told: Cell::default(),
            open: RefCell::default(),
        });
        world.rt.spawn(&process, proxy.clone().control());
        proxy
    }

    pub fn now(&self) -> Moment {
        self.world.clock(self.host)
    }

    /// Tells the gate something; passes follow at once.
    pub fn tell<T>(&self, event: impl FnOnce(&mut Gate, Moment) -> T) -> T {
        let now = self.now();
        let before = self.gist();
        let outcome = event(&mut self.gate.borrow_mut(), now);
        self.follow(now);
        if self.gist() != before {
            self.news.bump();
        }
        outcome
    }

    /// What others wait for.
    fn gist(&self) -> Gist {
        let gate = self.gate.borrow();
        let grant = gate.grant().map(|grant| (grant.serial, grant.until, grant.open));
        (grant, gate.closed().is_none(), gate.acknowledged(), gate.mark().map(|mark| mark.epoch))
    }

    fn follow(&self, now: Moment) {
        let gate = self.gate.borrow();
        let grant = gate.grant().filter(|grant| now < grant.until);
        let mut pass = self.pass.borrow_mut();
        if let (Some(pass), Some(grant)) = (&*pass, grant)
            && pass.serial == grant.serial
        {
            return pass.until.set(Some(grant.until));
        }
        let next = grant.map(|grant| {
            let (serial, route) = (grant.serial, grant.route.clone());
            self.world.count("routes opened");
            self.world.say(self.host, || format!("proxy: routes to {} in epoch {}", route.target(), route.epoch));
            self.world.audit.borrow_mut().routes(self.world.rt.now(), self.host, route.epoch);
            Rc::new(Pass { serial, route, until: Cell::new(Some(grant.until)), revoked: Signal::default() })
        });
        if let Some(pass) = std::mem::replace(&mut *pass, next) {
            self.world.say(self.host, || "proxy: cuts what it forwarded".into());
            // Without the fence, sessions go on until their clients leave or the registration runs out.
            if !self.world.lacks(Rule::ProxiesFenced) {
                pass.until.set(None);
                pass.revoked.bump();
            }
        }
    }

    /// What the gate says is fenced.
    fn acknowledged(&self) -> Epoch {
        let gate = self.gate.borrow();
        match gate.mark() {
            Some(mark) if self.world.lacks(Rule::ProxiesFenced) => mark.epoch.max(gate.acknowledged()),
            _ => gate.acknowledged(),
        }
    }

    async fn control(self: Rc<Proxy>) {
        let (mirror, lease) = (self.store.changed(), self.registration.changed());
        let mut known = (u64::MAX, u64::MAX, 0);
        let mut seen = Revision::default();
        loop {
            let deadline = self.gate.borrow().deadline();
            tokio::select! {
                biased;
                () = self.world.until_some(self.host, deadline) => self.tell(|gate, now| gate.tick(now)),
                () = mirror.changed(&mut known.0) => {
                    if self.store.refused() {
                        self.tell(|gate, now| gate.refuse("the store went back".into(), now));
                    } else if let Some(mirror) = self.store.mirror() {
                        self.read(&mirror, &mut seen);
                    }
                }
                () = lease.changed(&mut known.1) => {
                    let lease = self.registration.lease();
                    let lease = lease.map(|l| Lease { id: l.id, deadline: l.deadline, registered_at: l.registered_at });
                    self.tell(|gate, now| gate.registered(lease, now));
                }
                () = self.news.changed(&mut known.2) => {}
            }
            self.acknowledge();
            self.world.pass(5, 40).await;
        }
    }

    fn read(&self, mirror: &Arc<Mirror>, seen: &mut Revision) {
        let mut facts = Facts::of(mirror, &self.uid);
        if self.world.lacks(Rule::Ready) {
            facts.ready = facts.primary.as_ref().map(|primary| Ready {
                keeper: primary.keeper.clone(),
                epoch: primary.epoch,
                lease: primary.lease,
                address: Machine::address(crate::keeper::host_of(&primary.keeper)),
                port: 5432,
                traceparent: String::new(),
            });
        }
        self.tell(|gate, now| gate.read(facts, now));
        if let Some((data, revision)) = mirror.data().filter(|(_, revision)| revision > seen) {
            *seen = revision;
            let (fenced, generation) = self.written.get();
            if data.fencing().is_none() && data.proxy.generation != generation {
                self.write(fenced, data.proxy.generation);
            }
        }
    }

    /// R7: an acknowledgement goes out by etcd and by streams.
    fn acknowledge(&self) {
        let acknowledged = self.acknowledged();
        let (fenced, generation) = self.written.get();
        if self.gate.borrow().mark().is_some() && acknowledged > fenced {
            self.write(acknowledged, generation);
        }
        if acknowledged > self.told.get() {
            self.told.set(acknowledged);
            self.world.count("acknowledgements of proxies");
            self.urge.bump();
        }
    }

    fn write(&self, fenced: Epoch, generation: Generation) {
        self.written.set((fenced, generation));
        let fresh = self.world.rng.borrow_mut().next();
        self.registration.set(record(&self.uid, generation, fenced, fresh));
    }

    /// Dials the primary, whoever it is by then, for a client that has just come.
    pub async fn reach(self: Rc<Proxy>) -> Rc<Connection> {
        let mut pause = FIRST_PAUSE;
        loop {
            let (leased, pass) = self.admission().await;
            let mut ticket = Ticket { proxy: self.clone(), leased: Some(leased) };
            let mut revoked = pass.revoked.version();
            let dialled = tokio::select! {
                biased;
                () = pass.revoked.changed(&mut revoked) => None,
                dialled = self.dial(&pass) => Some(dialled),
            };
            match dialled {
                Some(Some(server)) if ticket.connected() => {
                    self.open.borrow_mut().push(pass.clone());
                    let ticket = RefCell::new(Some(ticket));
                    return Rc::new(Connection { proxy: self, ticket, pass, server });
                }
                Some(None) => {
                    tokio::select! {
                        biased;
                        () = pass.revoked.changed(&mut revoked) => {}
                        () = self.world.rt.sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                // Its epoch ended meanwhile.
                Some(Some(_)) | None => {}
            }
            drop(ticket);
        }
    }

    async fn admission(&self) -> (Leased, Rc<Pass>) {
        loop {
            let entered = self.tell(|gate, now| gate.enter(now));
            let pass = self.pass.borrow().clone();
            if let (Some(leased), Some(pass)) = (entered, pass) {
                return (leased, pass);
            }
            let mut known = self.news.version();
            self.news.changed(&mut known).await;
        }
    }

    /// Host and number of the server that takes the session.
    async fn dial(&self, pass: &Pass) -> Option<(HostId, u64)> {
        let target = Machine::host_of(&pass.route.address)?;
        let there = self.town.machines[target].clone();
        let asked = self.world.ask(self.host, target, Class::Sql, move |reply| {
            let server = there.running().filter(|server| matches!(server.mode.get(), Mode::Primary | Mode::Recovery));
            reply.send(server.map(|server| server.id.started));
        });
        let dialled = self.world.within_time(self.host, Duration::from_secs(2), asked).await.flatten().flatten();
        dialled.map(|number| (target, number))
    }

    /// One commit over a connection; `None` when it is over, and nobody knows what became of it.
    pub async fn forward(self: Rc<Proxy>, connection: Rc<Connection>) -> Option<Commit> {
        let pass = connection.pass.clone();
        if !pass.holds(self.now()) {
            return None;
        }
        let (target, number) = connection.server;
        let there = self.town.machines[target].clone();
        let asked = self.world.ask(self.host, target, Class::Sql, move |reply| there.session(number, reply));
        let mut revoked = pass.revoked.version();
        let answer = tokio::select! {
            biased;
            () = pass.revoked.changed(&mut revoked) => None,
            answer = self.world.within_time(self.host, Duration::from_secs(3), asked) => answer.flatten(),
        };
        let commit = answer?.ok()?;
        pass.holds(self.now()).then_some(commit)
    }
}

fn record(uid: &ProxyUid, generation: Generation, fenced: Epoch, fresh: u64) -> Vec<u8> {
    let info = ProxyInfo {
        info_uid: format!("{fresh:016x}"),
        uid: uid.clone(),
        generation,
        proxy_timeout: 1000 * SEC,
        fenced_epoch: fenced,
        listen_address: String::new(),
        grpc_address: String::new(),
        extra: Default::default(),
    };
    serde_json::to_vec(&info).unwrap_or_default()
}

impl Peer for Proxy {
    fn world(&self) -> &W {
        &self.world
    }
    fn host(&self) -> HostId {
        self.host
    }
    fn process(&self) -> &Proc {
        &self.process
    }
    fn store(&self) -> &Store {
        &self.store
    }
    fn name(&self) -> String {
        self.uid.to_string()
    }
    fn lease(&self) -> LeaseId {
        self.registration.lease().map_or(LeaseId::NONE, |lease| lease.id)
    }
    fn report(&self) -> Report {
        let gate = self.gate.borrow();
        Report::Proxy(ProxyReport {
            view_revision: self.heard.borrow().unwrap_or_default(),
            fenced_epoch: self.acknowledged(),
            route_epoch: gate.grant().filter(|grant| grant.open).map(|grant| grant.route.epoch),
            connections: gate.connections(),
            lease_remaining: Duration::ZERO,
        })
    }
    fn view(&self, data: &Arc<ClusterData>, revision: Revision) {
        *self.heard.borrow_mut() = Some(revision);
        if let Ok(view) = ProxyView::derive(data, revision) {
            self.tell(|gate, now| gate.heard((&view).into(), now));
        }
    }
    fn urge(&self) -> Signal {
        self.urge.clone()
    }
}
