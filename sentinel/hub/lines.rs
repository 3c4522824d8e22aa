//! The open streams of one kind of peers: who is there, and the way to each. A newer stream of the same uid takes the
//! older one's place.

use std::{collections::BTreeMap, sync::Arc};

use stolon::{
    model::{ClusterData, Revision},
    wire::{Down, Probe},
};
use tokio::sync::mpsc;
use tonic::Status;

use super::Side;

/// Way down one stream.
pub type Sender<S> = mpsc::Sender<Result<<S as Side>::Response, Status>>;

pub struct Lines<S: Side> {
    lines: BTreeMap<S::Uid, Line<S>>,
    last_session: u64,
}

struct Line<S: Side> {
    session: u64,
    sender: Sender<S>,
}

impl<S: Side> Default for Lines<S> {
    fn default() -> Lines<S> {
        Lines { lines: BTreeMap::new(), last_session: 0 }
    }
}

impl<S: Side> Lines<S> {
    /// Returns the session's number, which `leave` wants back.
    pub fn enter(&mut self, uid: &S::Uid, sender: Sender<S>) -> u64 {
        self.last_session += 1;
        self.lines.insert(uid.clone(), Line { session: self.last_session, sender });
        self.last_session
    }

    /// True when this session was still the peer's newest.
    pub fn leave(&mut self, uid: &S::Uid, session: u64) -> bool {
        let own = self.is_newest(uid, session);
        if own {
            self.lines.remove(uid);
        }
        own
    }

    pub fn is_newest(&self, uid: &S::Uid, session: u64) -> bool {
        self.lines.get(uid).is_some_and(|line| line.session == session)
    }

    pub fn uids(&self) -> impl Iterator<Item = &S::Uid> {
        self.lines.keys()
    }

    /// To every stream. One that can't take it now is slow, and learns by etcd.
    pub fn push(&mut self, data: &Arc<ClusterData>, revision: Revision, traceparent: &str) {
        for (uid, line) in &self.lines {
            send::<S>(uid, &line.sender, data, revision, traceparent);
        }
    }

    /// False when there is no such peer, or it can't be asked now.
    pub fn ask(&self, observer: &str, probe: &Probe) -> bool {
        let line = self.lines.iter().find(|(uid, _)| S::text(uid) == observer);
        line.is_some_and(|(_, line)| line.sender.try_send(Ok(S::response(&Down::Probe(probe.clone()), ""))).is_ok())
    }
}

/// Sends one peer its view.
pub fn send<S: Side>(uid: &S::Uid, sender: &Sender<S>, data: &ClusterData, revision: Revision, traceparent: &str) {
    match S::view(data, revision, uid) {
        Ok(view) => {
            let _ = sender.try_send(Ok(S::response(&Down::View(view), traceparent)));
        }
        // Decisions say what is wrong with the specification; a view of it can't be made.
        Err(problem) => tracing::debug!(%problem, "no view of these cluster data"),
    }
}
