//! The gate under its lock, and what follows at once from each of its changes: passes renewed or revoked, waiting
//! clients let in, acknowledgements published. No I/O, no waiting inside the lock.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stolon::{
    model::{Epoch, Moment, report::ProxyReport, view::ProxyView},
    task::clock,
};
use tokio::sync::watch;

use crate::{
    gate::{Closed, Gate, Grant, Lease, Leased, Mark, door::Clients},
    pass::Pass,
};

/// `proxyTimeout` until cluster data say otherwise: stolon's default.
pub const PROXY_TIMEOUT: Duration = Duration::from_secs(15);

/// Shared by all tasks of a proxy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gatehouse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    news: watch::Sender<News>,
}

#[derive(Debug, Default)]
struct State {
    gate: Gate,
    pass: Option<Arc<Pass>>,
    view: Option<ProxyView>,
    lease: Option<Lease>,
    /// Why the clients' port is shut; empty while it is open.
    entrance: String,
    /// The proxy ends: nobody enters any more.
    ended: bool,
    /// Since when new connections have (not) been let in.
    since: Moment,
}

/// What others wait for.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub grant: Option<Grant>,
    pub closed: Option<Closed>,
    pub acknowledged: Epoch,
    pub mark: Option<Mark>,
    /// Deadline of the own registration; none while there is none.
    pub registered_until: Option<Moment>,
    pub clients: Clients,
    pub proxy_timeout: Duration,
}

/// What status answers tell.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub news: News,
    pub view: Option<ProxyView>,
    pub report: ProxyReport,
    pub since: Moment,
    /// Why the clients' port is shut; empty while it is open.
    pub entrance: String,
}

impl Default for Gatehouse {
    fn default() -> Gatehouse {
        let state = State { since: clock::now(), ..State::default() };
        let news = watch::Sender::new(state.news());
        Gatehouse(Arc::new(Inner { state: Mutex::new(state), news }))
    }
}

impl Gatehouse {
    pub fn news(&self) -> watch::Receiver<News> {
        self.0.news.subscribe()
    }

    /// Tells the gate something, at the present time.
    pub fn tell<T>(&self, event: impl FnOnce(&mut Gate, Moment) -> T) -> T {
        self.change(|state, now| event(&mut state.gate, now))
    }

    /// The own registration, or its end.
    pub fn registered(&self, lease: Option<Lease>) {
        self.change(|state, now| {
            if !state.ended {
                state.lease = lease;
                state.gate.registered(lease, now);
            }
        });
    }

    /// The view of the newest cluster data in etcd that could be read.
    pub fn view(&self, view: ProxyView) {
        self.change(|state, _| state.view = Some(view));
    }

    /// The clients' port is shut, for a reason in one line; or open, when that is empty.
    pub fn entrance(&self, problem: String) {
        self.lock().entrance = problem;
    }

    /// Permission to dial the primary, if there is a route now.
    pub fn enter(&self) -> Option<Ticket> {
        self.change(|state, now| {
            if state.ended {
                return None;
            }
            let leased = state.gate.enter(now)?;
            state.follow(now);
            let pass = state.pass.clone().expect("an open gate has a pass");
            Some(Ticket { house: self.clone(), leased: Some(leased), pass })
        })
    }

    /// Waits for a route.
    pub async fn admission(&self) -> Ticket {
        let mut news = self.news();
        loop {
            // Marked as seen before the look: a change after it is not missed.
            let open = news.borrow_and_update().closed.is_none();
            if let Some(ticket) = open.then(|| self.enter()).flatten() {
                return ticket;
            }
            // The sender lives in `self`: the channel can't close.
            let _ = news.changed().await;
        }
    }

    /// Tells the gate something, and counts who was inside just before: those that it may have cut.
    pub fn tell_counting(&self, event: impl FnOnce(&mut Gate, Moment)) -> u64 {
        self.tell(|gate, now| {
            let inside = gate.connections();
            event(gate, now);
            inside
        })
    }

    /// Cuts everything, for good.
    pub fn end(&self) {
        self.change(|state, now| {
            state.ended = true;
            state.gate.registered(None, now);
        });
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let news = state.news();
        let report = ProxyReport {
            view_revision: state.view.as_ref().map(|view| view.revision).unwrap_or_default(),
            fenced_epoch: news.acknowledged,
            route_epoch: news.grant.as_ref().filter(|grant| grant.open).map(|grant| grant.route.epoch),
            connections: state.gate.connections(),
            lease_remaining: news.registered_until.map(|until| until.since(clock::now())).unwrap_or_default(),
        };
        Snapshot { news, view: state.view.clone(), report, since: state.since, entrance: state.entrance.clone() }
    }

    fn change<T>(&self, event: impl FnOnce(&mut State, Moment) -> T) -> T {
        let mut state = self.lock();
        let now = clock::now();
        let open = state.gate.closed().is_none();
        let outcome = event(&mut state, now);
        state.follow(now);
        if state.gate.closed().is_none() != open {
            state.since = now;
        }
        let news = state.news();
        // Sent under the lock, so that news can't overtake one another.
        self.0.news.send_if_modified(|known| {
            let changed = *known != news;
            *known = news;
            changed
        });
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn news(&self) -> News {
        let clients = self.view.as_ref().map(|view| match view.open_to_all {
            true => Clients::OpenToAll,
            false => Clients::NeedPasswords,
        });
        News {
            grant: self.gate.grant().cloned(),
            closed: self.gate.closed().cloned(),
            acknowledged: self.gate.acknowledged(),
            mark: self.gate.mark().cloned(),
            registered_until: self.lease.map(|lease| lease.deadline),
            clients: clients.unwrap_or_default(),
            proxy_timeout: self.view.as_ref().map_or(PROXY_TIMEOUT, |view| view.proxy_timeout),
        }
    }

    /// Makes the passes say what the gate says.
    fn follow(&mut self, now: Moment) {
        let grant = self.gate.grant().filter(|grant| now < grant.until);
        if let (Some(pass), Some(grant)) = (&self.pass, grant)
            && pass.serial == grant.serial
        {
            return pass.renew(grant.until);
        }
        let next = grant.map(|grant| Arc::new(Pass::new(grant)));
        if let Some(pass) = std::mem::replace(&mut self.pass, next) {
            pass.revoke();
        }
    }
}

/// A client's right to dial, then to be connected. Dropped last, when its sockets are closed: the acknowledgement of an
/// epoch's end waits for it.
#[derive(Debug)]
pub struct Ticket {
    house: Gatehouse,
    leased: Option<Leased>,
    pass: Arc<Pass>,
}

impl Ticket {
    pub fn pass(&self) -> &Pass {
        &self.pass
    }

    /// The dial has succeeded; false when its epoch has ended meanwhile.
    #[must_use]
    pub fn connected(&mut self) -> bool {
        let Some(leased) = &mut self.leased else { return false };
        self.house.tell(|gate, now| gate.connected(leased, now))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(leased) = self.leased.take() {
            self.house.tell(|gate, now| gate.leave(leased, now));
        }
    }
}
