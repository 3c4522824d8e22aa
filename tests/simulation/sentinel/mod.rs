//! A sentinel's process: the real observations and decisions, in a shell that does what `sentinel/{service,hub,lead}` do.

mod doctor;
mod errands;
mod leader;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stolon::{
    model::{
        ClusterData, KeeperUid, LeaseId, Moment, ProxyUid, Revision, SentinelUid, registration::SentinelInfo,
        report::ProbeResult,
    },
    store::{Begin, Mirror, Outcome, StoreError, Txn},
};
use stolon_sentinel::{
    decide::Wish,
    election::{Leadership, leadership},
    observe::{Observations, Round},
};

use crate::{
    keeper::host_of,
    registration::Registration,
    runtime::{Proc, Signal},
    store::Store,
    streams::{self, Down, Line, Report},
    town::Town,
    world::{HostId, W},
};

const WITNESS: Duration = Duration::from_millis(500);
const ABSTAIN: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(300);

pub struct Sentinel {
    pub world: W,
    pub town: Rc<Town>,
    pub host: HostId,
    pub uid: SentinelUid,
    pub process: Proc,
    store: Store,
    registration: Registration,
    seen: RefCell<Observations>,
    lines: RefCell<BTreeMap<String, Rc<Line>>>,
    current: RefCell<Option<(Arc<ClusterData>, Revision)>>,
    mirror: RefCell<Option<Arc<Mirror>>>,
    woken: Signal,
    questions: RefCell<BTreeMap<u64, Question>>,
    last_question: Cell<u64>,
    abstains: Cell<Option<Moment>>,
    abstaining: Signal,
    leases: RefCell<BTreeSet<LeaseId>>,
    term: RefCell<Option<Leadership>>,
    not_before: Cell<Revision>,
    in_doubt: Cell<bool>,
    told: RefCell<Vec<String>>,
    wish: RefCell<Option<Wish>>,
}

struct Question {
    target: KeeperUid,
    asked: Moment,
    observer: String,
}

impl Sentinel {
    pub fn address(host: HostId) -> String {
        format!("10.0.0.{host}:6431")
    }

    pub fn start(town: &Rc<Town>, host: HostId) -> Rc<Sentinel> {
        let world = town.world.clone();
        let process = world.process(host, "sentinel");
        let store = Store::open(&town.etcd, host, &process);
        let fresh = world.rng.borrow_mut().next();
        let uid = SentinelUid::parse(format!("{:08x}", fresh as u32)).expect("hexadecimal digits are a uid");
        let info = SentinelInfo { uid: uid.clone(), grpc_address: Sentinel::address(host), extra: Default::default() };
        let value = serde_json::to_vec(&info).unwrap_or_default();
        let key = store.keys().sentinel(&uid);
        let registration = Registration::start(&world, host, &process, &store, key, value, Begin::Anew);
        let sentinel = Rc::new(Sentinel {
            world: world.clone(),
            town: town.clone(),
            host,
            uid,
            process: process.clone(),
            store,
            registration,
            seen: RefCell::default(),
            lines: RefCell::default(),
            current: RefCell::default(),
            mirror: RefCell::default(),
            woken: Signal::default(),
            questions: RefCell::default(),
            last_question: Cell::new(0),
            abstains: Cell::new(None),
            abstaining: Signal::default(),
            leases: RefCell::default(),
            term: RefCell::default(),
            not_before: Cell::default(),
            in_doubt: Cell::new(false),
            told: RefCell::default(),
            wish: RefCell::default(),
        });
        world.rt.spawn(&process, sentinel.clone().stand());
        world.rt.spawn(&process, sentinel.clone().lead());
        sentinel
    }

    pub fn now(&self) -> Moment {
        self.world.clock(self.host)
    }

    /// A handover is asked for, or not any more.
    pub fn wishes(&self, wish: Option<Wish>) {
        *self.wish.borrow_mut() = wish;
        self.woken.bump();
    }

    /// Only members of this cluster, under their own lease; a newer stream takes the older one's place.
    pub fn admit(self: &Rc<Sentinel>, line: &Rc<Line>, lease: LeaseId) -> bool {
        let registered = self.mirror.borrow().as_ref().and_then(|mirror| match ProxyUid::parse(line.name.as_str()) {
            Ok(uid) if line.name.starts_with("px") => mirror.proxies.get(&uid).map(|proxy| proxy.lease),
            _ => mirror.keepers.get(&KeeperUid::parse(line.name.as_str()).ok()?).map(|keeper| keeper.lease),
        });
        if registered.is_some_and(|registered| registered != lease) {
            return false;
        }
        let now = self.now();
        line.heard.set(now);
        match names(&line.name) {
            Names::Keeper(uid) => self.seen.borrow_mut().keeper_connected(now, &uid),
            Names::Proxy(uid) => self.seen.borrow_mut().proxy_connected(now, &uid),
        }
        if let Some((data, revision)) = self.current.borrow().clone() {
            line.send(&self.world, self.host, Down::View(data, revision));
        }
        let old = self.lines.borrow_mut().insert(line.name.clone(), line.clone());
        if let Some(old) = old {
            old.close(&self.world, self.host);
        }
        self.world.rt.spawn(&self.process, streams::watch(self.town.clone(), self.clone(), line.clone()));
        self.woken.bump();
        true
    }

    pub fn holds(&self, line: &Rc<Line>) -> bool {
        self.lines.borrow().get(&line.name).is_some_and(|newest| Rc::ptr_eq(newest, line))
    }

    /// A newer stream of the same peer is open.
    pub fn replaced(&self, line: &Rc<Line>) -> bool {
        self.lines.borrow().get(&line.name).is_some_and(|newest| !Rc::ptr_eq(newest, line))
    }

    pub fn leave(&self, line: &Rc<Line>) {
        if !self.holds(line) {
            return;
        }
        self.lines.borrow_mut().remove(&line.name);
        let now = self.now();
        match names(&line.name) {
            Names::Keeper(uid) => self.seen.borrow_mut().keeper_ended(now, &uid),
            Names::Proxy(uid) => self.seen.borrow_mut().proxy_ended(now, &uid),
        }
        self.woken.bump();
    }

    pub fn report(&self, line: &Rc<Line>, report: Report) {
        if !self.holds(line) {
            return line.close(&self.world, self.host);
        }
        let now = self.now();
        line.heard.set(now);
        let news = match (names(&line.name), report) {
            (Names::Keeper(uid), Report::Keeper(report)) => self.seen.borrow_mut().keeper_report(now, &uid, *report),
            (Names::Proxy(uid), Report::Proxy(report)) => self.seen.borrow_mut().proxy_report(now, &uid, report),
            _ => false,
        };
        if news {
            self.woken.bump();
        }
    }

    /// An observer's answer to a knock.
    pub fn answered(&self, id: u64, observer: &str, result: ProbeResult) {
        let Some(question) = self.questions.borrow_mut().remove(&id).filter(|q| q.observer == observer) else { return };
        self.seen.borrow_mut().witness(&question.target, question.asked, &question.observer, result);
        self.woken.bump();
    }

    /// Opens a round (R15).
    fn ask_all(&self, target: &KeeperUid) -> Moment {
        let asked = self.now();
        self.questions.borrow_mut().clear();
        let mut others = BTreeMap::new();
        for line in self.lines.borrow().values().filter(|line| line.name != target.as_str()) {
            self.last_question.set(self.last_question.get() + 1);
            let id = self.last_question.get();
            line.send(&self.world, self.host, Down::Probe { id, target: host_of(target) });
            let question = Question { target: target.clone(), asked, observer: line.name.clone() };
            self.questions.borrow_mut().insert(id, question);
            others.insert(line.name.clone(), None);
        }
        let round = Round { target: target.clone(), asked, deadline: asked + WITNESS, own: None, others };
        self.seen.borrow_mut().round = Some(round);
        asked
    }

    /// Newer cluster data go to every stream; older ones change nothing (R5).
    fn push(&self, data: &Arc<ClusterData>, revision: Revision) {
        if self.current.borrow().as_ref().is_some_and(|(_, known)| *known >= revision) {
            return;
        }
        *self.current.borrow_mut() = Some((data.clone(), revision));
        for line in self.lines.borrow().values() {
            line.send(&self.world, self.host, Down::View(data.clone(), revision));
        }
    }

    fn leadership(&self, now: Moment, mirror: &Mirror) -> Option<Leadership> {
        if self.abstains.get().is_some() {
            return None;
        }
        leadership(now, mirror, self.registration.lease().as_ref(), &self.uid)
    }

    fn resign(&self) {
        self.abstains.set(Some(self.now() + ABSTAIN));
        self.abstaining.bump();
    }

    /// The election, as `sentinel/election.rs` has it.
    async fn stand(self: Rc<Sentinel>) {
        let (mirror, lease) = (self.store.changed(), self.registration.changed());
        loop {
            let mut known = (mirror.version(), lease.version(), self.abstaining.version());
            let again = match self.store.mirror() {
                Some(seen) => self.stand_once(&seen).await,
                None => None,
            };
            tokio::select! {
                biased;
                () = mirror.changed(&mut known.0) => {}
                () = self.abstaining.changed(&mut known.2) => {}
                () = lease.changed(&mut known.1) => {}
                () = self.world.until_some(self.host, again) => {}
            }
        }
    }

    async fn stand_once(&self, mirror: &Mirror) -> Option<Moment> {
        let lease = self.registration.lease()?;
        if mirror.revision < lease.registered_at {
            return None;
        }
        let key = self.store.keys().candidate(lease.id);
        let standing = mirror.candidates.iter().find(|candidate| candidate.key == key);
        let until = self.abstains.get();
        let txn = Txn::new();
        let txn = match (until, standing) {
            (None, Some(_)) => return None,
            (Some(until), None) if self.now() < until => return Some(until),
            (Some(_), Some(own)) => txn.when_created(key.as_str(), own.created).delete(key.as_str()),
            (until, None) => {
                if until.is_some() {
                    self.abstains.set(None);
                }
                txn.when_created(key.as_str(), Revision(0)).put_on(lease.id, key.as_str(), self.uid.as_str())
            }
        };
        match self.store.transact(&txn).await {
            Ok(Outcome::Done(_) | Outcome::Conflict) | Err(_) => {}
        }
        if matches!(self.store.read().await, Err(StoreError::Refused(_))) {
            return None;
        }
        Some(self.now() + AGAIN)
    }
}

enum Names {
    Keeper(KeeperUid),
    Proxy(ProxyUid),
}

fn names(name: &str) -> Names {
    match name.starts_with("px") {
        true => Names::Proxy(ProxyUid::parse(name).expect("made by the proxy")),
        false => Names::Keeper(KeeperUid::parse(name).expect("made by the keeper")),
    }
}
