//! What everything stands on: hosts with their clocks, the network between them, settings of this seed, the event log, and
//! what the auditors are told. Knows no daemon.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::{Rc, Weak},
    time::Duration,
};

use stolon::model::{Epoch, Moment};

use crate::{
    audit::Audit,
    coverage::Coverage,
    invariants,
    net::{Class, Net},
    postgres::Machine,
    rng::Rng,
    rules::{Rule, Without},
    runtime::{Micros, Proc, Question, Runtime, answer},
    settings::Settings,
    town::Town,
};

pub const MS: Micros = 1_000;
pub const SEC: Micros = 1_000_000;

/// Number of a host; those of the databases come first, then those of the proxies.
pub type HostId = usize;

/// A machine.
pub struct Host {
    /// Its boot clock runs by so many millionths too fast.
    drift: i64,
    offset: Micros,
    pub boot: Cell<u64>,
    pub powered: Cell<bool>,
    /// All processes on it, by what they are.
    procs: RefCell<Vec<(&'static str, Proc)>>,
    frozen: Cell<u32>,
}

pub struct World {
    pub rt: Runtime,
    pub rng: RefCell<Rng>,
    pub settings: Settings,
    pub hosts: Vec<Host>,
    pub net: Net,
    pub audit: RefCell<Audit>,
    pub coverage: RefCell<Coverage>,
    pub without: Without,
    pub log: Option<RefCell<Vec<String>>>,
    /// Everything that runs in this world.
    pub town: RefCell<Weak<Town>>,
    /// By host: how many faults keep its daemons from being started again.
    pub down: RefCell<Vec<u32>>,
}

pub type W = Rc<World>;

impl World {
    pub fn new(seed: u64, settings: Settings, without: Without, log: bool) -> W {
        let mut rng = Rng::new(seed);
        let count = settings.databases + settings.proxies;
        let host = |rng: &mut Rng| Host {
            drift: i64::try_from(rng.within(0, 2 * settings.drift)).unwrap_or(0)
                - i64::try_from(settings.drift).unwrap_or(0),
            offset: rng.within(10, 100_000) * SEC,
            boot: Cell::new(rng.next()),
            powered: Cell::new(true),
            procs: RefCell::default(),
            frozen: Cell::new(0),
        };
        let hosts = (0..count).map(|_| host(&mut rng)).collect();
        Rc::new(World {
            rt: Runtime::default(),
            rng: RefCell::new(rng),
            net: Net::new(count),
            hosts,
            audit: RefCell::new(Audit::new(&settings)),
            coverage: RefCell::default(),
            settings,
            without,
            log: log.then(RefCell::default),
            town: RefCell::default(),
            down: RefCell::new(vec![0; count]),
        })
    }

    pub fn within(&self, low: Micros, high: Micros) -> Micros {
        self.rng.borrow_mut().within(low, high)
    }

    pub fn percent(&self, chance: u64) -> bool {
        self.rng.borrow_mut().percent(chance)
    }

    pub fn lacks(&self, rule: Rule) -> bool {
        self.without.lacks(rule)
    }

    pub fn count(&self, what: &str) {
        self.coverage.borrow_mut().count(what);
    }

    pub fn say(&self, host: HostId, text: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            let seconds = self.rt.now() as f64 / 1e6;
            log.borrow_mut().push(format!("{seconds:>10.6}  {:<4} {}", self.name(host), text()));
        }
    }

    pub fn name(&self, host: HostId) -> String {
        if host < self.settings.databases { format!("h{host}") } else { format!("p{}", host - self.settings.databases) }
    }

    /// A server is asked to promote.
    pub fn promotes(&self, machine: &Machine, epoch: Epoch) {
        let town = self.town.borrow().upgrade();
        if let Some(town) = town {
            invariants::eligible::promotes(&town, machine, epoch);
        }
        self.audit.borrow_mut().reigns(self.rt.now(), machine.host, epoch);
    }

    /// The host's boot clock.
    pub fn clock(&self, host: HostId) -> Moment {
        self.clock_at(host, self.rt.now())
    }

    pub fn clock_at(&self, host: HostId, time: Micros) -> Moment {
        let host = &self.hosts[host];
        let drift = i128::from(time) * i128::from(host.drift) / 1_000_000;
        let local = i128::from(host.offset) + i128::from(time) + drift;
        Moment::from_boot(Duration::from_micros(u64::try_from(local).unwrap_or(0)))
    }

    /// When a host's clock will show this.
    pub fn time_of(&self, host: HostId, moment: Moment) -> Micros {
        let micros = i128::try_from(moment.since_boot().as_micros()).unwrap_or(0);
        let host = &self.hosts[host];
        let elapsed = micros - i128::from(host.offset);
        u64::try_from(elapsed * 1_000_000 / (1_000_000 + i128::from(host.drift)) + 2).unwrap_or(0)
    }

    pub async fn until(&self, host: HostId, moment: Moment) {
        self.rt.sleep_until(self.time_of(host, moment)).await;
    }

    pub async fn until_some(&self, host: HostId, moment: Option<Moment>) {
        match moment {
            Some(moment) => self.until(host, moment).await,
            None => std::future::pending().await,
        }
    }

    /// Something that takes from `low` to `high` microseconds, and now and then much longer: any two steps of a program
    /// may lie far apart.
    pub async fn pass(&self, low: Micros, high: Micros) {
        let late = self.rng.borrow_mut().within(0, 9_999) < self.settings.late;
        let time = if late { self.within(20 * MS, 1_500 * MS) } else { self.within(low, high) };
        self.rt.sleep(time).await;
    }

    /// A new process on a host; one that was frozen stays so.
    pub fn process(&self, host: HostId, kind: &'static str) -> Proc {
        let process = self.rt.process();
        let mut procs = self.hosts[host].procs.borrow_mut();
        procs.retain(|(_, process)| process.alive());
        procs.push((kind, process.clone()));
        for _ in 0..self.hosts[host].frozen.get() {
            self.rt.pause(&process);
        }
        process
    }

    /// The living processes of one kind on a host.
    pub fn processes(&self, host: HostId, kind: &str) -> Vec<Proc> {
        let procs = self.hosts[host].procs.borrow();
        procs.iter().filter(|(name, process)| *name == kind && process.alive()).map(|(_, p)| p.clone()).collect()
    }

    pub fn all_processes(&self, host: HostId) -> Vec<Proc> {
        self.hosts[host].procs.borrow().iter().map(|(_, process)| process.clone()).filter(Proc::alive).collect()
    }

    pub fn freeze(&self, host: HostId) {
        self.hosts[host].frozen.set(self.hosts[host].frozen.get() + 1);
        self.all_processes(host).iter().for_each(|process| self.rt.pause(process));
    }

    pub fn thaw(&self, host: HostId) {
        self.hosts[host].frozen.set(self.hosts[host].frozen.get().saturating_sub(1));
        self.all_processes(host).iter().for_each(|process| self.rt.resume(process));
    }

    pub fn frozen(&self, host: HostId) -> bool {
        self.hosts[host].frozen.get() > 0
    }

    /// Brings a message over, as TCP does: what is lost on the way is sent again, later and later, until it comes through or
    /// is given up.
    pub fn carry(self: &W, from: HostId, to: HostId, class: Class, arrive: impl FnOnce() + 'static) {
        self.carry_again(from, to, class, 0, arrive);
    }

    fn carry_again(self: &W, from: HostId, to: HostId, class: Class, tries: u32, arrive: impl FnOnce() + 'static) {
        if self.hosts[from].powered.get() && self.net.passes(from, to, class, &mut self.rng.borrow_mut()) {
            let delay = self.net.delay(from, to, &mut self.rng.borrow_mut());
            let (world, boot) = (self.clone(), self.hosts[to].boot.get());
            self.rt.call_in(delay, move || {
                let there = &world.hosts[to];
                if there.powered.get() && there.boot.get() == boot {
                    arrive();
                }
            });
        } else if tries < 6 && from != to && self.hosts[from].powered.get() {
            let (world, arrive): (W, Box<dyn FnOnce()>) = (self.clone(), Box::new(arrive));
            self.rt.call_in((200 * MS) << tries, move || world.carry_again(from, to, class, tries + 1, arrive));
        }
    }

    /// Sends something that is answered, or not: `None` when the answer got lost or the connection is refused.
    pub async fn ask<T: 'static>(
        self: &W,
        from: HostId,
        to: HostId,
        class: Class,
        deliver: impl FnOnce(Reply<T>) + 'static,
    ) -> Option<T> {
        let (question, answer) = answer();
        let reply = Reply { world: self.clone(), from: to, to: from, class, question };
        self.carry(from, to, class, move || deliver(reply));
        answer.await
    }

    /// `None` when it takes longer than a local duration.
    pub async fn within_time<T>(&self, host: HostId, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let end = self.clock(host) + limit;
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.until(host, end) => None,
        }
    }
}

/// The way back of an answer.
pub struct Reply<T> {
    world: W,
    from: HostId,
    to: HostId,
    class: Class,
    question: Question<T>,
}

impl<T: 'static> Reply<T> {
    pub fn send(self, value: T) {
        let Reply { world, from, to, class, question } = self;
        world.carry(from, to, class, move || question.answer(value));
    }
}
