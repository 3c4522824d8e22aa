//! Streams between peers and sentinels: hello, heartbeats and answers up, views and knocks down, in order, until one end is
//! gone or falls silent. A line that broke is opened anew.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stolon::model::{
    ClusterData, LeaseId, Moment, Revision,
    report::{KeeperReport, ProbeResult, ProxyReport},
};

use crate::{
    net::Class,
    probe::knock,
    runtime::{Proc, Signal},
    sentinel::Sentinel,
    store::Store,
    town::Town,
    world::{HostId, MS, SEC, W},
};

const OPEN: Duration = Duration::from_secs(2);
const FIRST_PAUSE: u64 = 50 * MS;
const LAST_PAUSE: u64 = 2 * SEC;
/// A peer that hears nothing for this long gives a line up, and so does a sentinel.
const PING: u64 = 2 * SEC;
const PING_ANSWER: Duration = Duration::from_secs(1);
const SERVER_SILENCE: Duration = Duration::from_secs(5);

pub enum Report {
    Keeper(Box<KeeperReport>),
    Proxy(ProxyReport),
}

/// What a sentinel says.
#[derive(Clone)]
pub enum Down {
    View(Arc<ClusterData>, Revision),
    Probe { id: u64, target: HostId },
}

/// A keeper or a proxy, as its streams know it.
pub trait Peer: 'static {
    fn world(&self) -> &W;
    fn host(&self) -> HostId;
    fn process(&self) -> &Proc;
    fn store(&self) -> &Store;
    fn name(&self) -> String;
    fn lease(&self) -> LeaseId;
    fn report(&self) -> Report;
    fn view(&self, data: &Arc<ClusterData>, revision: Revision);
    fn urge(&self) -> Signal;
}

/// One open stream.
pub struct Line {
    pub name: String,
    pub host: HostId,
    pub process: Proc,
    /// The sentinel's end is closed: the peer hears of it in a while, or by its pings.
    pub closed: Cell<bool>,
    /// The peer's end is closed; what it sent before may still be on its way.
    left: Cell<bool>,
    pub changed: Signal,
    /// Newest message of each direction: what comes later and is older is dropped.
    up: Cell<u64>,
    down: Cell<u64>,
    sent_down: Cell<u64>,
    /// When the sentinel heard anything last.
    pub heard: Cell<Moment>,
    inbox: RefCell<Vec<Down>>,
}

impl Line {
    /// By the sentinel on `from`.
    pub fn close(self: &Rc<Line>, world: &W, from: HostId) {
        if !self.closed.replace(true) {
            self.changed.bump();
            let line = self.clone();
            world.carry(from, self.host, Class::Grpc, move || line.leave());
        }
    }

    fn leave(&self) {
        self.left.set(true);
        self.changed.bump();
    }

    /// By a sentinel on `from`.
    pub fn send(self: &Rc<Line>, world: &W, from: HostId, down: Down) {
        self.sent_down.set(self.sent_down.get() + 1);
        let (line, number) = (self.clone(), self.sent_down.get());
        world.carry(from, self.host, Class::Grpc, move || {
            if !line.left.get() && number > line.down.get() {
                line.down.set(number);
                line.inbox.borrow_mut().push(down);
                line.changed.bump();
            }
        });
    }
}

/// Keeps one peer's streams: one to each host where a sentinel may be.
pub fn keep(town: &Rc<Town>, peer: &Rc<impl Peer>) {
    for target in 0..town.world.settings.databases {
        peer.world().rt.spawn(peer.process(), hold(town.clone(), peer.clone(), target));
    }
}

async fn hold(town: Rc<Town>, peer: Rc<impl Peer>, target: HostId) {
    let (world, mut pause) = (peer.world().clone(), FIRST_PAUSE);
    loop {
        let registered = |mirror: Arc<stolon::store::Mirror>| {
            mirror.sentinels.values().any(|sentinel| sentinel.info.grpc_address == Sentinel::address(target))
        };
        if !peer.store().mirror().is_some_and(registered) {
            let changed = peer.store().changed();
            let mut known = changed.version();
            changed.changed(&mut known).await;
            continue;
        }
        let began = world.rt.now();
        if let Some(line) = open(&town, &peer, target).await {
            serve(&town, &peer, target, &line).await;
            hang_up(&town, &peer, target, line);
        }
        if world.rt.now() - began > SEC {
            pause = FIRST_PAUSE;
        }
        world.rt.sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// The peer closes its end.
fn hang_up(town: &Rc<Town>, peer: &Rc<impl Peer>, target: HostId, line: Rc<Line>) {
    line.leave();
    let there = town.clone();
    peer.world().carry(peer.host(), target, Class::Grpc, move || there.line_ended(target, &line));
}

async fn open(town: &Rc<Town>, peer: &Rc<impl Peer>, target: HostId) -> Option<Rc<Line>> {
    let (world, host) = (peer.world(), peer.host());
    let line = Rc::new(Line {
        name: peer.name(),
        host,
        process: peer.process().clone(),
        closed: Cell::new(false),
        left: Cell::new(false),
        changed: Signal::default(),
        up: Cell::new(0),
        down: Cell::new(0),
        sent_down: Cell::new(0),
        heard: Cell::default(),
        inbox: RefCell::default(),
    });
    let (there, hello, lease) = (town.clone(), line.clone(), peer.lease());
    let asked = world.ask(host, target, Class::Grpc, move |reply| match there.sentinel(target) {
        Some(sentinel) => {
            let process = sentinel.process.clone();
            let world = there.world.clone();
            world.rt.spawn(&process, async move {
                if hello.left.get() {
                    sentinel.world.count("streams that open when their peer has given them up");
                }
                reply.send(sentinel.admit(&hello, lease));
            });
        }
        None => reply.send(false),
    });
    match world.within_time(host, OPEN, asked).await.flatten() {
        Some(true) => Some(line),
        Some(false) => None,
        None => {
            hang_up(town, peer, target, line);
            None
        }
    }
}

/// Until the line is over.
async fn serve(town: &Rc<Town>, peer: &Rc<impl Peer>, target: HostId, line: &Rc<Line>) {
    let world = peer.world().clone();
    let (urge, lease) = (peer.urge(), peer.lease());
    let (mut urged, mut changed) = (urge.version(), line.changed.version());
    let mut sent = 0;
    let mut ping = world.rt.now() + PING;
    loop {
        let down: Vec<Down> = std::mem::take(&mut *line.inbox.borrow_mut());
        for down in down {
            match down {
                Down::View(data, revision) => peer.view(&data, revision),
                Down::Probe { id, target: knocked } => answer_probe(town, peer, target, line, id, knocked),
            }
        }
        if line.left.get() || peer.lease() != lease {
            return;
        }
        sent += 1;
        send_up(town, peer, target, line, sent);
        if world.rt.now() >= ping {
            ping = world.rt.now() + PING;
            if !ping_once(town, peer, target, line).await {
                return;
            }
        }
        tokio::select! {
            biased;
            () = line.changed.changed(&mut changed) => {}
            () = urge.changed(&mut urged) => {}
            () = world.rt.sleep(world.settings.heartbeat) => {}
        }
    }
}

fn send_up(town: &Rc<Town>, peer: &Rc<impl Peer>, target: HostId, line: &Rc<Line>, number: u64) {
    let (report, there, line) = (peer.report(), town.clone(), line.clone());
    let world = peer.world().clone();
    world.carry(peer.host(), target, Class::Grpc, move || {
        let Some(sentinel) = there.sentinel(target) else {
            // Connection reset.
            let host = line.host;
            return there.world.carry(target, host, Class::Grpc, move || line.leave());
        };
        let process = sentinel.process.clone();
        if process.runs() {
            take_up(&sentinel, &line, number, report);
        } else {
            // It waits in the kernel's buffer.
            there.world.rt.spawn(&process, async move { take_up(&sentinel, &line, number, report) });
        }
    });
}

fn take_up(sentinel: &Rc<Sentinel>, line: &Rc<Line>, number: u64, report: Report) {
    if line.closed.get() {
        return sentinel.world.count(match sentinel.replaced(line) {
            true => "reports of an old stream that come after its successor",
            false => "reports that come when their stream is over",
        });
    }
    if number < line.up.get() {
        return sentinel.world.count("reports that come after a later one, and are dropped");
    }
    line.up.set(number);
    sentinel.report(line, report);
}

async fn ping_once(town: &Rc<Town>, peer: &Rc<impl Peer>, target: HostId, line: &Rc<Line>) -> bool {
    let (there, line) = (town.clone(), line.clone());
    let world = peer.world();
    let asked = world.ask(peer.host(), target, Class::Grpc, move |reply| {
        if let Some(sentinel) = there.sentinel(target) {
            let (process, world) = (sentinel.process.clone(), there.world.clone());
            world.rt.spawn(&process, async move {
                line.heard.set(sentinel.now());
                reply.send(sentinel.holds(&line));
            });
        } else {
            reply.send(false);
        }
    });
    world.within_time(peer.host(), PING_ANSWER, asked).await.flatten().unwrap_or(false)
}

fn answer_probe(town: &Rc<Town>, peer: &Rc<impl Peer>, target: HostId, line: &Rc<Line>, id: u64, knocked: HostId) {
    let (there, line, from) = (town.clone(), line.clone(), peer.host());
    let world = peer.world().clone();
    world.clone().rt.spawn(peer.process(), async move {
        let result: ProbeResult = knock(&there, from, knocked, Duration::from_millis(450)).await;
        world.carry(from, target, Class::Grpc, move || {
            if let Some(sentinel) = there.sentinel(target).filter(|_| !line.closed.get()) {
                sentinel.answered(id, &line.name, result);
            }
        });
    });
}

/// The sentinel's end of a line: notices when the peer is gone.
pub async fn watch(town: Rc<Town>, sentinel: Rc<Sentinel>, line: Rc<Line>) {
    let (world, ended) = (town.world.clone(), line.process.ended());
    let mut known = if line.process.alive() { ended.version() } else { u64::MAX };
    let mut changed = line.changed.version();
    loop {
        let silent = line.heard.get() + SERVER_SILENCE;
        tokio::select! {
            biased;
            () = ended.changed(&mut known) => {
                // The kernel closes what the process had open; a host that lost its power can't.
                if world.hosts[line.host].powered.get() {
                    let (there, line, target) = (town.clone(), line.clone(), sentinel.host);
                    world.carry(line.host, target, Class::Grpc, move || there.line_ended(target, &line));
                }
            }
            () = line.changed.changed(&mut changed) => {}
            () = world.until(sentinel.host, silent) => {
                if sentinel.now() >= line.heard.get() + SERVER_SILENCE {
                    line.close(&world, sentinel.host);
                }
            }
        }
        if line.closed.get() {
            return sentinel.leave(&line);
        }
    }
}
