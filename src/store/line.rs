//! The way to etcd: one client per endpoint, sticky, with a deadline per attempt, on to the next endpoint after any
//! failure. etcd-client's own balancing over several endpoints goes on failing a share of all calls while one member is
//! away, and its streams do not move (measured; see ARCHITECTURE.md).

use std::{
    future::Future,
    pin::pin,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use etcd_client::{Client, ConnectOptions, Error, GetOptions};
use tokio::{
    sync::{OnceCell, watch},
    time::{sleep, timeout},
};
use tonic::Code;

use crate::{
    cli::StoreArgs,
    model::Moment,
    task::clock,
    wire::{explain, millis, v1},
};

use super::tls::tls;

/// What a request may cost at one endpoint before the next one is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be sent twice without a thought, and is: the winner of a failover reads before it may promote, and its member
    /// of etcd may have gone with the primary's host.
    Read,
    /// Sent twice, its outcome may be unknown: only when the endpoint that has it is the worse one for a reading.
    Write,
}

impl Kind {
    /// First attempt at one endpoint: a live member answers in milliseconds. Doubled with each round over all endpoints,
    /// so that a slow etcd is not taken for a dead one.
    fn attempt(self) -> Duration {
        match self {
            Kind::Read => Duration::from_millis(300),
            Kind::Write => Duration::from_millis(700),
        }
    }
}

/// A reading that has no answer by then is asked of the next endpoint, too: a living member answers in milliseconds.
const HEDGE: Duration = Duration::from_millis(60);
const NEXT_ANSWERS: &str = "it does not answer, and the next endpoint does";
/// Between rounds over all endpoints.
const PAUSE: Duration = Duration::from_millis(50);
/// TCP connections, and TLS handshakes.
const CONNECT: Duration = Duration::from_secs(2);
/// HTTP/2 pings: etcd's servers hang up on clients that ping more often than every 5 s.
const PING: Duration = Duration::from_secs(6);
const PING_ANSWER: Duration = Duration::from_secs(2);

/// Why a request to etcd came to nothing: one line, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No endpoint answered in time; what was only to be read was not.
    #[error("etcd can't be reached ({0})")]
    Unavailable(String),
    /// A transaction was sent and its outcome is not known: read before doing anything else (R2).
    #[error("etcd did not say what became of a transaction ({0})")]
    Unknown(String),
    /// etcd refused the request itself.
    #[error("etcd refused: {0}")]
    Refused(String),
}

pub(super) struct Line {
    endpoints: Vec<Endpoint>,
    /// Index of the endpoint in use.
    current: watch::Sender<usize>,
    options: ConnectOptions,
    /// For one request over all endpoints.
    bound: Duration,
    health: Mutex<Health>,
    /// What answers is not the store that was known: nothing is asked of it any more (R5).
    refusal: OnceLock<String>,
}

struct Endpoint {
    url: String,
    client: OnceCell<Client>,
}

struct Health {
    works: bool,
    error: String,
    since: Moment,
}

impl Line {
    /// Reads the TLS files; makes no connection. An error is one line that names the flag.
    pub fn new(args: &StoreArgs) -> Result<Line, String> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT.min(args.store_timeout))
            .with_keep_alive(PING, PING_ANSWER)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(tls) = tls(args)? {
            options = options.with_tls(tls);
        }
        let endpoint = |url: &String| Endpoint { url: url.clone(), client: OnceCell::new() };
        let health = Health { works: true, error: String::new(), since: clock::now() };
        Ok(Line {
            endpoints: args.store_endpoints.iter().map(endpoint).collect(),
            current: watch::Sender::new(0),
            options,
            bound: args.store_timeout,
            health: Mutex::new(health),
            refusal: OnceLock::new(),
        })
    }

    /// Index of the endpoint in use, and its client.
    pub async fn client(&self) -> Result<(usize, Client), Error> {
        if let Some(refusal) = self.refusal.get() {
            return Err(Error::Internal(refusal.clone()));
        }
        let index = *self.current.borrow();
        self.client_of(index).await.map(|client| (index, client))
    }

    async fn client_of(&self, index: usize) -> Result<Client, Error> {
        let endpoint = &self.endpoints[index];
        let connect = || Client::connect([endpoint.url.as_str()], Some(self.options.clone()));
        endpoint.client.get_or_try_init(connect).await.cloned()
    }

    /// Runs a request, at one endpoint after the other, within the bound. `Unavailable` when none answered.
    pub async fn call<T, F>(&self, kind: Kind, request: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if let Some(refusal) = self.refusal.get() {
            return Err(StoreError::Refused(refusal.clone()));
        }
        let deadline = clock::now() + self.bound;
        let mut tries = 0;
        let mut last = String::new();
        while clock::now() < deadline {
            let round = (tries / self.endpoints.len()).min(4) as u32;
            let (full, rest) = (kind.attempt() * 2u32.pow(round), deadline.since(clock::now()));
            let limit = full.min(rest);
            let index = *self.current.borrow();
            let (index, answer) = match kind {
                _ if self.endpoints.len() == 1 => self.attempt(index, limit, &request).await,
                Kind::Read => self.hedged(index, limit, &request).await,
                Kind::Write => self.doubted(index, limit, &request).await,
            };
            match answer {
                Ok(answer) => {
                    self.works();
                    return Ok(answer);
                }
                Err(error) if is_final(&error) => return Err(StoreError::Refused(line(&error))),
                Err(error) => {
                    let problem = self.failed(index, &line(&error));
                    // What fails in the few milliseconds that are left says less than what failed before.
                    if last.is_empty() || rest >= full {
                        last = problem;
                    }
                }
            }
            tries += 1;
            if tries % self.endpoints.len() == 0 {
                self.out_of_reach(&last);
                sleep(PAUSE.min(deadline.since(clock::now()))).await;
            }
        }
        Err(StoreError::Unavailable(last))
    }

    /// One attempt at an endpoint, and after `HEDGE` one at the next beside it. The one that answers first is used from
    /// then on, by streams too: which member is frozen or cut off, only another's answer tells this soon.
    async fn hedged<T, F>(
        &self,
        index: usize,
        limit: Duration,
        request: &impl Fn(Client) -> F,
    ) -> (usize, Result<T, Error>)
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut first = pin!(self.attempt(index, limit, request));
        if let Ok(answered) = timeout(HEDGE, &mut first).await {
            return answered;
        }
        tokio::select! {
            answered = &mut first => answered,
            (other, answer) = self.attempt(self.after(index), limit, request) => match answer {
                Ok(answer) => {
                    self.failed(index, NEXT_ANSWERS);
                    (other, Ok(answer))
                }
                Err(_) => first.await,
            },
        }
    }

    /// One attempt at an endpoint, given up before its time when a reading there gets no answer and the next endpoint has
    /// one.
    async fn doubted<T, F>(
        &self,
        index: usize,
        limit: Duration,
        request: &impl Fn(Client) -> F,
    ) -> (usize, Result<T, Error>)
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut work = pin!(self.attempt(index, limit, request));
        if let Ok(answered) = timeout(HEDGE, &mut work).await {
            return answered;
        }
        let probe = |client: Client| async move {
            let nothing = GetOptions::new().with_count_only();
            client.kv_client().get("stolon", Some(nothing)).await
        };
        let doubt = async {
            let _ = self.hedged(index, limit, &probe).await;
            self.left(index).await;
        };
        tokio::select! {
            answered = &mut work => answered,
            () = doubt => (index, Err(Error::Internal(NEXT_ANSWERS.into()))),
        }
    }

    async fn attempt<T, F>(
        &self,
        index: usize,
        limit: Duration,
        request: &impl Fn(Client) -> F,
    ) -> (usize, Result<T, Error>)
    where
        F: Future<Output = Result<T, Error>>,
    {
        let work = async { request(self.client_of(index).await?).await };
        let late = |_| Err(Error::Internal(format!("no answer within {limit:.1?}")));
        (index, timeout(limit, work).await.unwrap_or_else(late))
    }

    fn after(&self, index: usize) -> usize {
        (index + 1) % self.endpoints.len()
    }

    /// An endpoint failed: the next one is used from now on, unless somebody has turned away from it already. Returns
    /// the problem with the endpoint's name.
    pub fn failed(&self, index: usize, problem: &str) -> String {
        self.current.send_if_modified(|current| {
            let ours = *current == index;
            if ours {
                *current = self.after(index);
            }
            ours
        });
        let problem = format!("{}: {problem}", self.endpoints[index].url);
        tracing::debug!(problem, "etcd endpoint failed");
        problem
    }

    /// Returns when another endpoint than this one is in use: whoever has a stream there need not find out by itself that
    /// its member is frozen or cut off.
    pub async fn left(&self, index: usize) {
        // The sender lives as long as `self`.
        let _ = self.current.subscribe().wait_for(|current| *current != index).await;
    }

    pub fn works(&self) {
        let mut health = self.lock();
        if !health.works && self.refusal.get().is_none() {
            tracing::info!(after_s = clock::now().since(health.since).as_secs(), "etcd answers again");
            *health = Health { works: true, error: String::new(), since: clock::now() };
        }
    }

    /// No endpoint answers, or what answers is not the store that was known.
    pub fn out_of_reach(&self, problem: &str) {
        let mut health = self.lock();
        if health.works {
            tracing::warn!("etcd can't be reached ({problem}); trying again until it can");
            *health = Health { works: false, error: String::new(), since: clock::now() };
        }
        problem.clone_into(&mut health.error);
    }

    /// Stops using the store, for good.
    pub fn refuse(&self, problem: String) -> StoreError {
        let problem = format!("{problem}; if that was done on purpose, restart this program");
        if self.refusal.set(problem.clone()).is_ok() {
            tracing::error!("{problem}");
        }
        let mut health = self.lock();
        *health = Health { works: false, error: problem.clone(), since: health.since };
        StoreError::Refused(problem)
    }

    /// Why the store is not used any more; none while it is.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    pub fn endpoints(&self) -> u32 {
        u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX)
    }

    /// Without revision and lease, which others know.
    pub fn status(&self) -> v1::StoreStatus {
        let health = self.lock();
        let index = *self.current.borrow();
        v1::StoreStatus {
            endpoint: self.endpoints[index].url.clone(),
            error: health.error.clone(),
            since_ms: millis(clock::now().since(health.since)),
            ..Default::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when another endpoint would say the same.
fn is_final(error: &Error) -> bool {
    match error {
        Error::InvalidArgs(_) | Error::InvalidUri(_) => true,
        Error::GRpcStatus(status) => matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::OutOfRange
                | Code::FailedPrecondition
        ),
        _ => false,
    }
}

/// An error in one line.
pub(super) fn line(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => explain(status),
        Error::Internal(problem) | Error::WatchError(problem) => problem.clone(),
        other => other.to_string().replace('\n', " "),
    }
}
