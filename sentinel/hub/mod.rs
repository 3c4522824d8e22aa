//! Where streams and the leader's loop meet: the observations, the open streams of keepers and proxies, the view that
//! was pushed last, questions under way. Decides nothing, and never waits for a peer.

mod lines;
mod side;
mod wishes;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stolon::{
    model::{
        ClusterData, KeeperUid, Moment, Revision,
        report::{KeeperReport, ProbeResult},
    },
    rpc::Peers,
    store::Mirror,
    task::clock,
    wire::Probe as Knock,
};
use tokio::sync::Notify;

pub use lines::{Lines, send};
pub use side::{KeeperSide, ProxySide, Side};
pub use wishes::{Verdict, Wishes};

use crate::observe::{Observations, Probe, Round};

/// How long observers have to answer (R15).
pub const WITNESS: Duration = Duration::from_millis(500);

/// Shared by all streams and the loop. Cheap to clone.
#[derive(Clone, Default)]
pub struct Hub(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    peers: Peers,
}

/// Everything under one lock, which nobody holds across an await.
#[derive(Default)]
pub struct State {
    pub seen: Observations,
    pub keepers: Lines<KeeperSide>,
    pub proxies: Lines<ProxySide>,
    /// The cluster data that views are derived from, the newest known.
    pub current: Option<(Arc<ClusterData>, Revision)>,
    /// Of the commit that made `current`; empty for none.
    pub traceparent: String,
    /// Mirror for the check of hellos.
    pub mirror: Option<Arc<Mirror>>,
    pub wishes: Wishes,
    questions: BTreeMap<u64, Question>,
    last_question: u64,
}

/// A probe that an observer was asked for.
struct Question {
    target: KeeperUid,
    asked: Moment,
    observer: String,
}

impl Hub {
    pub fn new() -> Hub {
        Hub::default()
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that a decision may depend on.
    pub fn wake(&self) {
        self.0.changed.notify_one();
    }

    pub async fn woken(&self) {
        self.0.changed.notified().await;
    }

    pub fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// Pushes the views of newer cluster data to every stream; older ones change nothing (R5).
    pub fn push(&self, data: &Arc<ClusterData>, revision: Revision, traceparent: &str) {
        let mut state = self.lock();
        if state.current.as_ref().is_some_and(|(_, known)| *known >= revision) {
            return;
        }
        state.current = Some((data.clone(), revision));
        state.traceparent = traceparent.to_owned();
        let State { keepers, proxies, .. } = &mut *state;
        keepers.push(data, revision, traceparent);
        proxies.push(data, revision, traceparent);
    }

    /// The outcome of a question that an observer answers.
    pub fn answered(&self, id: u64, observer: &str, result: ProbeResult) {
        let mut state = self.lock();
        let Some(question) = state.questions.remove(&id).filter(|question| question.observer == observer) else {
            return;
        };
        state.seen.witness(&question.target, question.asked, &question.observer, result);
        drop(state);
        self.wake();
    }

    pub fn own_witness(&self, target: &KeeperUid, asked: Moment, result: ProbeResult) {
        self.lock().seen.own_witness(target, asked, result);
    }
}

impl State {
    /// Opens a round: asks every connected observer but the target. The leader's own knock is the caller's.
    pub fn ask(&mut self, target: &KeeperUid, host: &str, port: u16) -> Moment {
        let asked = clock::now();
        let keepers = self.keepers.uids().filter(|uid| *uid != target).map(ToString::to_string);
        let observers: Vec<String> = keepers.chain(self.proxies.uids().map(ToString::to_string)).collect();
        self.questions.clear();
        let mut others = BTreeMap::new();
        for observer in observers {
            self.last_question += 1;
            let id = self.last_question;
            let knock = Knock { id, host: host.to_owned(), port, deadline: WITNESS - Duration::from_millis(50) };
            if self.keepers.ask(&observer, &knock) || self.proxies.ask(&observer, &knock) {
                self.questions.insert(id, Question { target: target.clone(), asked, observer: observer.clone() });
                others.insert(observer, None);
            }
        }
        let deadline = asked + WITNESS;
        self.seen.round = Some(Round { target: target.clone(), asked, deadline, own: None, others });
        asked
    }

    pub fn keeper_report(&self, uid: &KeeperUid) -> Option<(&KeeperReport, Moment)> {
        self.seen.keepers.get(uid).and_then(|peer| peer.report.as_ref()).map(|(report, at)| (report, *at))
    }

    pub fn redialled(&mut self, keeper: &KeeperUid, asked: Moment, result: Option<ProbeResult>) {
        self.seen.redials.insert(keeper.clone(), Probe { asked, result });
    }

    pub fn knocked(&mut self, keeper: &KeeperUid, asked: Moment, result: Option<ProbeResult>) {
        self.seen.knocks.insert(keeper.clone(), Probe { asked, result });
    }
}
