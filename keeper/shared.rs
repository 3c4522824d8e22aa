//! The state under its lock, and who is woken when it changes. Nobody holds the lock across an await, a disk or SQL, so
//! that heartbeats are always made (R13).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stolon::{
    model::{Moment, report::KeeperReport},
    rpc::{Reports, Urge},
    task::clock,
};
use tokio::sync::{Notify, watch};

use crate::{
    pg::{Postmaster, ProcessId},
    report,
    state::{Phase, Run, State},
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// For the loop that converges.
    turn: Notify,
    /// For the task that enforces the deadline.
    fence: Notify,
    /// For the task that reads whether authority is there.
    authority: Notify,
    /// For the task that proves the synchronous list.
    commits: Notify,
    /// For the task that tells the guard.
    guard: Notify,
    server: watch::Sender<Option<Postmaster>>,
    /// Held while what a dead postmaster left behind is killed: nothing is started meanwhile.
    remains: tokio::sync::Mutex<()>,
    urge: Mutex<Option<Urge>>,
}

impl Shared {
    pub fn new(state: State) -> Shared {
        Shared(Arc::new(Inner {
            state: Mutex::new(state),
            turn: Notify::new(),
            fence: Notify::new(),
            authority: Notify::new(),
            commits: Notify::new(),
            guard: Notify::new(),
            server: watch::Sender::new(None),
            remains: tokio::sync::Mutex::new(()),
            urge: Mutex::new(None),
        }))
    }

    /// The source of heartbeats; changes that others wait for are sent at once from now on.
    pub fn reports(&self) -> Reports<KeeperReport> {
        let shared = self.clone();
        let (reports, urge) = Reports::new(move || shared.look(report::heartbeat));
        *self.0.urge.lock().unwrap_or_else(PoisonError::into_inner) = Some(urge);
        reports
    }

    /// Reads the state.
    pub fn look<T>(&self, read: impl FnOnce(&State, Moment) -> T) -> T {
        let state = self.lock();
        read(&state, clock::now())
    }

    /// Changes the state; whoever may depend on it looks again.
    pub fn change<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let outcome = self.note(change);
        self.0.turn.notify_one();
        self.0.fence.notify_one();
        self.0.authority.notify_one();
        self.0.commits.notify_one();
        self.0.guard.notify_one();
        outcome
    }

    /// Changes what only heartbeats and status tell.
    pub fn note<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let mut state = self.lock();
        let now = clock::now();
        let State { authority, lease, .. } = &mut *state;
        authority.lapse(now, lease.as_ref());
        let held = state.grant(now).map(|grant| grant.epoch);
        let outcome = change(&mut state, now);
        if state.grant(now).map(|grant| grant.epoch) != held {
            state.authority_since = now;
        }
        outcome
    }

    /// Sends a heartbeat on every stream at once. The traceparent is of the work that caused it; empty for none.
    pub fn urge(&self, traceparent: String) {
        if let Some(urge) = &*self.0.urge.lock().unwrap_or_else(PoisonError::into_inner) {
            urge.now(traceparent);
        }
    }

    /// A change since this returned last, or since the beginning.
    pub async fn turn(&self) {
        self.0.turn.notified().await;
    }

    pub async fn fence(&self) {
        self.0.fence.notified().await;
    }

    pub async fn authority(&self) {
        self.0.authority.notified().await;
    }

    pub async fn commits(&self) {
        self.0.commits.notified().await;
    }

    pub async fn guard(&self) {
        self.0.guard.notified().await;
    }

    /// The server that runs, or ran last.
    pub fn server(&self) -> watch::Receiver<Option<Postmaster>> {
        self.0.server.subscribe()
    }

    /// A server was started or adopted.
    pub fn started(&self, server: &Postmaster, phase: Phase) {
        let id = server.id();
        self.change(|state, now| {
            let crash = state.run.crash;
            state.run = Run { phase, id: Some(id), since: now, asked: false, crash };
            (state.sample, state.probed) = (None, None);
        });
        self.0.server.send_replace(Some(server.clone()));
    }

    /// Its end is known by its pidfd. True when this is news.
    pub fn ended(&self, id: ProcessId) -> bool {
        let news = self.change(|state, now| state.ended(id, now));
        if news {
            self.urge(String::new());
        }
        news
    }

    /// SIGKILL to the sessions of a postmaster that has died by itself: until they notice, they go on acknowledging commits
    /// that no standby gets any more (R17). Whoever wants to start a server waits for the end.
    pub async fn kill_remains(&self, server: &Postmaster) {
        let _guard = self.0.remains.lock().await;
        server.kill_all().await;
    }

    /// Returns when no killing of remains is under way.
    pub async fn remains_gone(&self) {
        drop(self.0.remains.lock().await);
    }

    /// The server that runs now, as far as it is known here.
    pub fn running(&self) -> Option<Postmaster> {
        let id = self.look(|state, _| state.run.id)?;
        self.0.server.borrow().clone().filter(|server| server.id() == id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
