//! A daemon's registration: one key on one lease, kept alive as long as the daemon wants (R1). The lease's deadline is
//! counted on the local clock from the time at which the last answered keepalive was sent (R3).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Outcome, Store, StoreError, Txn,
    line::{Kind, line},
};
use crate::{
    model::{
        LeaseId, Moment, Revision,
        spec::{self, Spec, StoredSpec},
    },
    task::{Shutdown, clock},
};

/// Of a lease that is asked for before there is a specification.
const DEFAULT_TTL: Duration = spec::LEASE;
/// What a deadline is earlier than the lease's end at etcd could be: time for the holder to notice, and to kill (R1).
const MARGIN: Duration = Duration::from_secs(1);
/// Keepalives in the time that a lease is granted for.
const BEATS: u32 = 5;
/// First wait for the answer to a keepalive; doubled while none comes, up to the last. Keepalives are what finds a member
/// out that froze or was cut off with the primary's host, and should have done so before a successor is elected.
const ANSWER: Duration = Duration::from_millis(400);
const LAST_ANSWER: Duration = Duration::from_secs(3);
/// Between attempts that fail at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks at a key that somebody else holds, beside the mirror's changes.
const LOOK: Duration = Duration::from_secs(1);
/// For etcd to take a registration back.
const FAREWELL: Duration = Duration::from_secs(2);

/// The lease that a registration lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseState {
    pub id: LeaseId,
    /// The holder's rights end here, whatever etcd may say later.
    pub deadline: Moment,
    /// By etcd; it may be longer than what was asked for.
    pub granted: Duration,
    /// Revision at which the registration was there; what depends on it reads the store at or after it (R7).
    pub registered_at: Revision,
}

/// How a registration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Anew,
    /// Takes the lease of the last run over, if it lives and carries the key.
    Adopt(LeaseId),
}

/// See the module. A cheap handle; `run` is the task.
#[derive(Clone)]
pub struct Registration(Arc<Inner>);

struct Inner {
    store: Store,
    key: String,
    ttl: fn(&Spec) -> Duration,
    begin: Mutex<Begin>,
    value: watch::Sender<Vec<u8>>,
    lease: watch::Sender<Option<LeaseState>>,
    ended: watch::Sender<bool>,
}

/// How a keepalive ended.
enum Beat {
    /// It was sent then.
    Alive(Moment),
    Gone,
}

/// An open stream of keepalives.
struct Pulse {
    index: usize,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Registration {
    /// `key` is a full name (`Keys`); `ttl` says which duration of the specification is meant, in whole seconds (R1). A
    /// lease keeps the duration that it was granted with.
    pub fn new(store: &Store, key: String, ttl: fn(&Spec) -> Duration, value: Vec<u8>, begin: Begin) -> Registration {
        Registration(Arc::new(Inner {
            store: store.clone(),
            key,
            ttl,
            begin: Mutex::new(begin),
            value: watch::Sender::new(value),
            lease: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        }))
    }

    /// What the key should say; written soon, and again after each new registration.
    pub fn set(&self, value: Vec<u8>) {
        self.0.value.send_if_modified(|known| {
            let changed = *known != value;
            *known = value;
            changed
        });
    }

    /// The lease; `None` while there is none. A deadline that has passed means the same until it is renewed.
    pub fn lease(&self) -> watch::Receiver<Option<LeaseState>> {
        self.0.lease.subscribe()
    }

    /// Registers, and keeps it so, until the shutdown (the lease then runs out by itself) or `end`.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), String> {
        let mut ended = self.0.ended.subscribe();
        tokio::select! {
            () = shutdown.requested() => {}
            _ = ended.wait_for(|ended| *ended) => {}
            () = self.keep() => {}
        }
        Ok(())
    }

    /// Gives the registration up: the lease is revoked, and every key on it is gone. To be called when nothing that the
    /// lease stood for runs any more (R1).
    pub async fn end(&self) -> Result<(), StoreError> {
        self.0.ended.send_replace(true);
        match self.0.lease.send_replace(None) {
            Some(lease) => self.0.store.revoke(lease.id).await,
            None => Ok(()),
        }
    }

    /// `end`, as a daemon does it last: within 2 s, and what came of it is in the log.
    pub async fn farewell(&self) {
        match timeout(FAREWELL, self.end()).await {
            Ok(Ok(())) => tracing::info!("the registration is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the registration stays until its lease runs out"),
            Err(_) => tracing::warn!("etcd does not answer: the registration stays until its lease runs out"),
        }
    }

    async fn keep(&self) {
        loop {
            let state = self.obtain().await;
            tracing::info!(key = self.0.key, lease = %state.id, ttl = ?state.granted, "registered in etcd");
            let lease = state.id;
            self.0.lease.send_replace(Some(state));
            tokio::select! {
                () = self.keep_alive(lease) => tracing::warn!(key = self.0.key, %lease, "the registration's lease has ended"),
                () = self.keep_written(lease) => tracing::warn!(key = self.0.key, %lease, "the registration was taken over"),
            }
            self.0.lease.send_replace(None);
        }
    }

    async fn obtain(&self) -> LeaseState {
        let begin = std::mem::replace(&mut *self.0.begin.lock().unwrap_or_else(PoisonError::into_inner), Begin::Anew);
        let mut adopt = match begin {
            Begin::Adopt(lease) => Some(lease),
            Begin::Anew => None,
        };
        let mut told = false;
        loop {
            let attempt = match adopt {
                Some(lease) => self.adopt(lease).await,
                None => {
                    self.vacant(&mut told).await;
                    self.anew().await
                }
            };
            match attempt {
                Ok(Some(state)) => return state,
                Ok(None) => adopt = None,
                Err(error) => {
                    tracing::debug!(%error, key = self.0.key, "no registration yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits until nobody holds the key.
    async fn vacant(&self, told: &mut bool) {
        let mut mirror = self.0.store.mirror();
        let key = &self.0.key;
        loop {
            let seen = mirror.borrow_and_update().clone();
            let held =
                seen.as_ref().map(|mirror| (mirror.lease_of(self.0.store.keys(), key), mirror.malformed.get(key)));
            match held {
                Some((None, None)) => return,
                Some((_, Some(problem))) if !*told => {
                    *told = true;
                    tracing::error!("{key}: {problem}; somebody else has written it: delete it with etcdctl");
                }
                Some((Some(lease), None)) if !*told => {
                    *told = true;
                    tracing::warn!(
                        "{key} is registered already, on lease {lease}: by another process of the same id, or by a former one whose lease has not ended yet; waiting until it is gone"
                    );
                }
                _ => {}
            }
            let _ = timeout(LOOK, mirror.changed()).await;
        }
    }

    /// As the stored specification has it now; its default while there is none.
    async fn ttl(&self) -> Duration {
        let mut mirror = self.0.store.mirror();
        let _ = timeout(LOOK, mirror.wait_for(Option::is_some)).await;
        let stored = mirror.borrow().as_ref().and_then(|mirror| mirror.data()?.0.cluster.spec.resolve().ok());
        let spec = stored.or_else(|| StoredSpec::automatic().resolve().ok());
        spec.map_or(DEFAULT_TTL, |spec| (self.0.ttl)(&spec))
    }

    async fn anew(&self) -> Result<Option<LeaseState>, StoreError> {
        let seconds = i64::try_from(self.ttl().await.as_secs()).unwrap_or(i64::MAX);
        let grant = |client: etcd_client::Client| async move {
            let sent = clock::now();
            client.lease_client().grant(seconds, None).await.map(|granted| (sent, granted))
        };
        let (sent, granted) = self.0.store.0.line.call(Kind::Write, grant).await?;
        let lease = LeaseId(granted.id());
        let time = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0));
        match self.create(lease).await {
            Ok(Some(registered_at)) => {
                Ok(Some(LeaseState { id: lease, deadline: deadline(sent, time), granted: time, registered_at }))
            }
            // Somebody was quicker.
            Ok(None) => self.0.store.revoke(lease).await.map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// Puts the key on the lease if there is none; `None` when somebody else holds it.
    async fn create(&self, lease: LeaseId) -> Result<Option<Revision>, StoreError> {
        let value = self.0.value.borrow().clone();
        let key = self.0.key.as_str();
        match self.0.store.transact(&Txn::register(lease, key, value)).await {
            Ok(Outcome::Done(revision)) => Ok(Some(revision)),
            Ok(Outcome::Conflict) | Err(StoreError::Unknown(_)) => self.found_on(lease).await,
            Err(error) => Err(error),
        }
    }

    /// Reads whether the key hangs on the lease.
    async fn found_on(&self, lease: LeaseId) -> Result<Option<Revision>, StoreError> {
        let mirror = self.0.store.read().await?;
        let ours = mirror.lease_of(self.0.store.keys(), &self.0.key) == Some(lease);
        Ok(ours.then_some(mirror.revision))
    }

    /// R1: the former process's lease, when it lives and carries the registration.
    async fn adopt(&self, lease: LeaseId) -> Result<Option<LeaseState>, StoreError> {
        let Some(granted) = self.0.store.granted_ttl(lease).await? else { return Ok(None) };
        let sent = match self.beat(&mut None, lease, LAST_ANSWER).await {
            Ok(Beat::Alive(sent)) => sent,
            Ok(Beat::Gone) => return Ok(None),
            Err((index, problem)) => return Err(StoreError::Unavailable(self.0.store.0.line.failed(index, &problem))),
        };
        let found = self.found_on(lease).await?;
        let state = |registered_at| LeaseState { id: lease, deadline: deadline(sent, granted), granted, registered_at };
        Ok(found.map(state))
    }

    /// Returns when the lease is gone.
    async fn keep_alive(&self, lease: LeaseId) {
        let granted = self.0.lease.borrow().as_ref().map_or(DEFAULT_TTL, |state| state.granted);
        let endpoints = self.0.store.0.line.endpoints();
        let (mut pulse, mut failures) = (None, 0u32);
        let mut pause = granted / BEATS;
        loop {
            sleep(pause).await;
            let limit = (ANSWER * 2u32.pow((failures / endpoints).min(4))).min(LAST_ANSWER);
            match self.beat(&mut pulse, lease, limit).await {
                Ok(Beat::Gone) => return,
                Ok(Beat::Alive(sent)) => {
                    failures = 0;
                    self.0.store.0.line.works();
                    self.renewed(lease, deadline(sent, granted));
                    pause = (sent + granted / BEATS).since(clock::now());
                }
                Err((index, problem)) => {
                    pulse = None;
                    failures += 1;
                    let problem = self.0.store.0.line.failed(index, &problem);
                    if failures.is_multiple_of(endpoints) {
                        self.0.store.0.line.out_of_reach(&problem);
                    }
                    pause = PAUSE;
                }
            }
        }
    }

    fn renewed(&self, lease: LeaseId, deadline: Moment) {
        self.0.lease.send_if_modified(|known| {
            let Some(state) = known.as_mut().filter(|state| state.id == lease) else { return false };
            state.deadline = deadline;
            true
        });
    }

    /// One keepalive; the next is sent only after its answer. After an error the stream must be dropped: a late answer
    /// on it would be taken for that to a later request (execution 22).
    async fn beat(&self, pulse: &mut Option<Pulse>, lease: LeaseId, limit: Duration) -> Result<Beat, (usize, String)> {
        let late = |index: usize| (index, format!("no answer to a keepalive within {limit:.1?}"));
        let Some(open) = pulse else {
            let (index, client) = self.0.store.0.line.client().await.map_err(|error| (0, line(&error)))?;
            let sent = clock::now();
            return match timeout(limit, client.lease_client().keep_alive(lease.0)).await {
                Ok(Ok((keeper, answers))) => {
                    *pulse = Some(Pulse { index, keeper, answers });
                    Ok(Beat::Alive(sent))
                }
                Ok(Err(Error::LeaseKeepAliveError(_))) => Ok(Beat::Gone),
                Ok(Err(error)) => Err((index, line(&error))),
                Err(_) => Err(late(index)),
            };
        };
        let (index, sent) = (open.index, clock::now());
        let exchange = async {
            open.keeper.keep_alive().await?;
            open.answers.message().await
        };
        match timeout(limit, exchange).await {
            Ok(Ok(Some(answer))) if answer.ttl() > 0 => Ok(Beat::Alive(sent)),
            Ok(Ok(Some(_))) => Ok(Beat::Gone),
            Ok(Ok(None)) => Err((index, "the stream of keepalives ended".to_owned())),
            Ok(Err(error)) => Err((index, line(&error))),
            Err(_) => Err(late(index)),
        }
    }

    /// Writes each new value, and again when an older one of unknown outcome arrived after it; puts the key back when somebody
    /// deletes it. Returns when another lease carries it.
    async fn keep_written(&self, lease: LeaseId) {
        let (mut value, mut mirror) = (self.0.value.subscribe(), self.0.store.mirror());
        // It may have changed since the key was made.
        let mut written: Option<(Vec<u8>, Revision)> = None;
        loop {
            let wanted = value.borrow_and_update().clone();
            if written.as_ref().map(|(value, _)| value) != Some(&wanted) {
                match self.write(lease, &wanted).await {
                    Ok(Some(revision)) => written = Some((wanted, revision)),
                    Ok(None) => return,
                    Err(StoreError::Refused(_)) => return,
                    Err(_) => {
                        sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                _ = value.changed() => {}
                _ = mirror.changed() => {
                    let seen = mirror.borrow_and_update().clone();
                    let since = self.0.lease.borrow().as_ref().map_or(Revision(0), |state| state.registered_at);
                    let Some(seen) = seen.filter(|seen| seen.revision >= since) else { continue };
                    let found = seen.written_on(self.0.store.keys(), &self.0.key);
                    let last = written.as_ref().map_or(Revision(0), |(_, revision)| *revision);
                    if found.is_none_or(|(on, modified)| on != lease || modified > last) {
                        written = None;
                    }
                }
            }
        }
    }

    /// Revision at which the key says so on our lease; `None` when it is somebody else's.
    async fn write(&self, lease: LeaseId, value: &[u8]) -> Result<Option<Revision>, StoreError> {
        let key = self.0.key.as_str();
        if let Outcome::Done(revision) = self.0.store.transact(&Txn::rewrite(lease, key, value)).await? {
            return Ok(Some(revision));
        }
        // Deleted, or another's.
        let Some(registered_at) = self.create(lease).await? else { return Ok(None) };
        self.0.lease.send_if_modified(|known| {
            let Some(state) = known.as_mut().filter(|state| state.id == lease) else { return false };
            state.registered_at = state.registered_at.max(registered_at);
            true
        });
        Ok(Some(registered_at))
    }
}

fn deadline(sent: Moment, granted: Duration) -> Moment {
    sent + granted.saturating_sub(MARGIN)
}
