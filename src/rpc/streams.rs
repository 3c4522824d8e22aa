//! The set of streams: one to every sentinel that is registered, so that a new leader starts with warm observations
//! (R13). Follows the mirror; each stream looks after itself.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{Dialer, Reports, Talk, session::Session};
use crate::{
    model::{Moment, Revision, SentinelUid, registration::SentinelInfo},
    store::{Mirror, Registered},
    task::{Shutdown, clock},
    wire::{Identity, millis, v1},
};

/// A view that a sentinel pushed. Order views by their revision, never by sender or arrival (R5).
#[derive(Clone, Debug, PartialEq)]
pub struct FromSentinel<V> {
    pub sentinel: SentinelUid,
    pub view: V,
    /// Empty for none.
    pub traceparent: String,
}

/// Streams to all sentinels. Cheap to clone: one clone runs, others tell the status.
pub struct Streams<T: Talk> {
    pub(super) dialer: Dialer,
    mirror: watch::Receiver<Option<Arc<Mirror>>>,
    pub(super) identity: watch::Receiver<Identity>,
    pub(super) reports: Reports<T::Report>,
    pub(super) events: mpsc::Sender<FromSentinel<T::View>>,
    lines: Lines,
    hushed: Arc<AtomicBool>,
}

impl<T: Talk> Clone for Streams<T> {
    fn clone(&self) -> Self {
        Streams {
            dialer: self.dialer.clone(),
            mirror: self.mirror.clone(),
            identity: self.identity.clone(),
            reports: self.reports.clone(),
            events: self.events.clone(),
            lines: self.lines.clone(),
            hushed: self.hushed.clone(),
        }
    }
}

/// What a stream is opened for: a registration with another address, or made anew, is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    address: String,
    created: Revision,
}

impl<T: Talk> Streams<T> {
    /// `identity` is the hello of new streams; when it changes, all are opened anew at once. A slow reader of `events`
    /// gets only the newest view of each sentinel, and holds no heartbeat back.
    pub fn new(
        dialer: Dialer,
        mirror: watch::Receiver<Option<Arc<Mirror>>>,
        identity: watch::Receiver<Identity>,
        reports: Reports<T::Report>,
        events: mpsc::Sender<FromSentinel<T::View>>,
    ) -> Streams<T> {
        Streams { dialer, mirror, identity, reports, events, lines: Lines::default(), hushed: Arc::default() }
    }

    /// All streams as they are now, by sentinel.
    pub fn status(&self) -> Vec<v1::StreamStatus> {
        self.lines.status()
    }

    /// This daemon ends, and is about to give its registration back: that streams break is no news any more.
    pub fn hush(&self) {
        self.hushed.store(true, Ordering::Relaxed);
    }

    /// Keeps the streams until the shutdown. No error of a stream ends it.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), String> {
        let (mut sessions, mut paced) = (JoinSet::new(), Revision::default());
        let mut open: BTreeMap<SentinelUid, (Target, AbortHandle)> = BTreeMap::new();
        loop {
            let mirror = self.mirror.borrow_and_update().clone();
            self.pace(mirror.as_deref(), &mut paced);
            let wanted = wanted(mirror.as_deref());
            open.retain(|uid, (target, session)| {
                let keep = wanted.get(uid) == Some(target);
                if !keep {
                    session.abort();
                    self.lines.remove(uid);
                }
                keep
            });
            for (uid, target) in wanted {
                if let Entry::Vacant(place) = open.entry(uid) {
                    let session = Session::new(&self, place.key().clone(), &target.address);
                    place.insert((target, sessions.spawn(session.run())));
                }
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                changed = self.mirror.changed() => if changed.is_err() { shutdown.requested().await },
                Some(ended) = sessions.join_next() => match ended {
                    Err(error) if error.is_panic() => return Err(format!("a stream to a sentinel failed: {error}")),
                    _ => {}
                },
            }
        }
    }

    /// Heartbeats come as often as the stored specification says (R13). `known` is the revision that was looked at last.
    fn pace(&self, mirror: Option<&Mirror>, known: &mut Revision) {
        if let Some((data, revision)) = mirror.and_then(Mirror::data).filter(|(_, revision)| revision > known) {
            *known = revision;
            if let Ok(spec) = data.cluster.spec.resolve() {
                self.reports.set_every(spec.heartbeat_interval);
            }
        }
    }

    pub(super) fn line(&self, sentinel: &SentinelUid, address: &str) -> Line {
        self.lines.lock().insert(sentinel.clone(), State::new(address));
        Line { lines: self.lines.clone(), sentinel: sentinel.clone(), hushed: self.hushed.clone() }
    }
}

fn wanted(mirror: Option<&Mirror>) -> BTreeMap<SentinelUid, Target> {
    let Some(mirror) = mirror else { return BTreeMap::new() };
    // A sentinel that was started again at its address is there under two uids until the former one's lease ends.
    let newer = |address: &str, created: Revision| {
        let mut same = mirror.sentinels.values().filter(|other| other.info.grpc_address == address);
        same.any(|other| other.created > created)
    };
    let target =
        |entry: &Registered<SentinelInfo>| Target { address: entry.info.grpc_address.clone(), created: entry.created };
    let present = mirror.sentinels.iter().map(|(uid, entry)| (uid.clone(), target(entry)));
    present.filter(|(_, target)| target.address.is_empty() || !newer(&target.address, target.created)).collect()
}

#[derive(Debug)]
struct State {
    address: String,
    connected: bool,
    since: Moment,
    error: String,
}

impl State {
    fn new(address: &str) -> State {
        State { address: address.to_owned(), connected: false, since: clock::now(), error: String::new() }
    }
}

#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<BTreeMap<SentinelUid, State>>>);

impl Lines {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SentinelUid, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, sentinel: &SentinelUid) {
        self.lock().remove(sentinel);
    }

    fn status(&self) -> Vec<v1::StreamStatus> {
        let now = clock::now();
        let status = |(uid, state): (&SentinelUid, &State)| v1::StreamStatus {
            peer: uid.to_string(),
            address: state.address.clone(),
            connected: state.connected,
            since_ms: millis(now.since(state.since)),
            error: state.error.clone(),
        };
        self.lock().iter().map(status).collect()
    }
}

/// One stream's entry in the status.
#[derive(Debug)]
pub(super) struct Line {
    lines: Lines,
    sentinel: SentinelUid,
    hushed: Arc<AtomicBool>,
}

impl Line {
    pub fn up(&self) {
        self.set(true, String::new());
    }

    pub fn down(&self, error: String) {
        self.set(false, error);
    }

    /// True when the daemon ends (`Streams::hush`).
    pub fn hushed(&self) -> bool {
        self.hushed.load(Ordering::Relaxed)
    }

    fn set(&self, connected: bool, error: String) {
        let mut lines = self.lines.lock();
        let Some(state) = lines.get_mut(&self.sentinel) else { return };
        if state.connected != connected {
            (state.connected, state.since) = (connected, clock::now());
        }
        state.error = error;
    }
}
