//! SentinelService: one stream of each keeper and proxy. Checks who speaks, folds what is said into the hub, and ends
//! the stream of whoever breaks the contract; the daemon lives on.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::Stream;
use stolon::{
    model::ClusterName,
    task::clock,
    wire::{Identity, Up, v1},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::hub::{Hub, KeeperSide, ProxySide, Side};

/// From the opening of a stream to its hello.
const GREETING: Duration = Duration::from_secs(5);
/// Messages on their way to one peer.
const QUEUE: usize = 16;
/// A stream that says nothing for this long is dead; heartbeats come every 100 ms.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Service {
    hub: Hub,
    cluster: ClusterName,
    readers: Arc<Mutex<JoinSet<()>>>,
}

type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl Service {
    pub fn new(hub: Hub, cluster: ClusterName) -> Service {
        Service { hub, cluster, readers: Arc::default() }
    }

    async fn open<S: Side>(&self, request: Request<Streaming<S::Request>>) -> Result<Answers<S::Response>, Status> {
        let peer = self.hub.peers().enter(request.remote_addr());
        let mut incoming = request.into_inner();
        let first = timeout(GREETING, incoming.message()).await;
        let first = first.map_err(|_| Status::invalid_argument("no hello came"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("the stream ended without a hello"))?;
        let Up::Hello(identity) = S::request(first)? else {
            return Err(Status::invalid_argument("the first message must be hello"));
        };
        let uid = self.admit::<S>(&identity)?;
        peer.named(&identity.uid);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let session = enter::<S>(&self.hub, &uid, &sender);
        tracing::info!(kind = S::KIND, uid = identity.uid, "stream stands");
        let reader = Reader::<S> { hub: self.hub.clone(), uid, session, sender, text: identity.uid };
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        while readers.try_join_next().is_some() {}
        readers.spawn(async move {
            reader.run(incoming).await;
            drop(peer);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Only members of this cluster, under their own name.
    fn admit<S: Side>(&self, identity: &Identity) -> Result<S::Uid, Status> {
        let refuse = |problem: String| Err(Status::failed_precondition(problem));
        if identity.cluster_name != self.cluster {
            return refuse(format!("this sentinel serves cluster {}, not {}", self.cluster, identity.cluster_name));
        }
        let uid = S::uid(&identity.uid).map_err(Status::invalid_argument)?;
        let state = self.hub.lock();
        let Some(mirror) = &state.mirror else { return Ok(uid) };
        let ours = mirror.data().map(|(data, _)| &data.cluster.uid);
        if let (Some(theirs), Some(ours)) = (&identity.cluster_uid, ours)
            && theirs != ours
        {
            return refuse(format!("this is cluster {} with uid {ours}, not {theirs}", self.cluster));
        }
        match S::lease(mirror, &uid) {
            // Not even one without a lease: a second process of that name would speak for the registered one.
            Some(lease) if lease != identity.lease => {
                refuse(format!("{} {} is registered on another lease", S::KIND, identity.uid))
            }
            _ => Ok(uid),
        }
    }
}

fn enter<S: Side>(hub: &Hub, uid: &S::Uid, sender: &mpsc::Sender<Result<S::Response, Status>>) -> u64 {
    let mut state = hub.lock();
    S::connected(&mut state.seen, clock::now(), uid);
    if let Some((data, revision)) = state.current.clone() {
        let traceparent = state.traceparent.clone();
        crate::hub::send::<S>(uid, sender, &data, revision, &traceparent);
    }
    let session = S::lines(&mut state).enter(uid, sender.clone());
    drop(state);
    hub.wake();
    session
}

/// Reads one stream to its end.
struct Reader<S: Side> {
    hub: Hub,
    uid: S::Uid,
    text: String,
    session: u64,
    sender: mpsc::Sender<Result<S::Response, Status>>,
}

impl<S: Side> Reader<S> {
    async fn run(self, mut incoming: Streaming<S::Request>) {
        let problem = loop {
            let message = tokio::select! {
                message = timeout(SILENCE, incoming.message()) => message,
                () = self.sender.closed() => break "the peer closed it".to_owned(),
            };
            match message {
                Err(_) => break format!("nothing came for {} s", SILENCE.as_secs()),
                Ok(Err(status)) => break status.message().to_owned(),
                Ok(Ok(None)) => break "the peer closed it".to_owned(),
                Ok(Ok(Some(message))) => {
                    if let Err(status) = self.take(message) {
                        let text = status.message().to_owned();
                        let _ = self.sender.try_send(Err(status));
                        break text;
                    }
                }
            }
        };
        tracing::info!(kind = S::KIND, uid = self.text, problem, "stream ended");
        let mut state = self.hub.lock();
        if S::lines(&mut state).leave(&self.uid, self.session) {
            S::ended(&mut state.seen, clock::now(), &self.uid);
            drop(state);
            self.hub.wake();
        }
    }

    fn take(&self, message: S::Request) -> Result<(), Status> {
        match S::request(message)? {
            Up::Hello(_) => return Err(Status::invalid_argument("hello came twice")),
            Up::Probe { id, result } => self.hub.answered(id, &self.text, result),
            Up::Report(report) => {
                let mut state = self.hub.lock();
                if !S::lines(&mut state).is_newest(&self.uid, self.session) {
                    return Err(Status::aborted("a newer stream of the same uid took over"));
                }
                if S::report(&mut state.seen, clock::now(), &self.uid, report) {
                    drop(state);
                    self.hub.wake();
                }
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl v1::sentinel_service_server::SentinelService for Service {
    type KeeperStreamStream = Answers<v1::KeeperStreamResponse>;
    type ProxyStreamStream = Answers<v1::ProxyStreamResponse>;

    async fn keeper_stream(
        &self,
        request: Request<Streaming<v1::KeeperStreamRequest>>,
    ) -> Result<Response<Self::KeeperStreamStream>, Status> {
        self.open::<KeeperSide>(request).await.map(Response::new)
    }

    async fn proxy_stream(
        &self,
        request: Request<Streaming<v1::ProxyStreamRequest>>,
    ) -> Result<Response<Self::ProxyStreamStream>, Status> {
        self.open::<ProxySide>(request).await.map(Response::new)
    }
}
