//! The gRPC plumbing against itself, in one process: a small sentinel, real sockets on loopback, nothing else.

mod flood;
mod listener;
mod probe;
mod streams;
mod tls;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc},
    task::JoinHandle,
};
use tokio_stream::{
    StreamExt,
    wrappers::{BroadcastStream, ReceiverStream},
};
use tonic::{Request, Response, Status, Streaming};

use super::{Dialer, GrpcArgs, Listener, Peers, Services, TlsArgs};
use crate::{
    model::report::KeeperReport,
    task::Shutdown,
    wire::{
        Up,
        v1::{self, sentinel_service_server::*},
    },
};

/// Bound of every wait in these tests.
pub const SOON: Duration = Duration::from_secs(5);

pub fn loopback() -> GrpcArgs {
    GrpcArgs { grpc_listen_address: "127.0.0.1".into(), grpc_advertise_address: None, tls: TlsArgs::default() }
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// A sentinel that tells what it hears, and sends what the test wants.
#[derive(Clone)]
pub struct Small {
    heard: mpsc::Sender<(Up<KeeperReport>, String)>,
    say: broadcast::Sender<v1::KeeperStreamResponse>,
    peers: Peers,
}

/// It while it serves.
pub struct Serving {
    pub address: String,
    pub port: u16,
    pub heard: mpsc::Receiver<(Up<KeeperReport>, String)>,
    pub say: broadcast::Sender<v1::KeeperStreamResponse>,
    pub peers: Peers,
    pub shutdown: Shutdown,
    pub task: JoinHandle<Result<(), String>>,
}

impl Serving {
    pub fn start(args: &GrpcArgs, port: u16) -> Serving {
        let listener = Listener::bind(args, port, "--port").unwrap();
        let (sender, heard) = mpsc::channel(1024);
        let (say, _) = broadcast::channel(16);
        let (peers, shutdown) = (Peers::new(), Shutdown::new());
        let small = Small { heard: sender, say: say.clone(), peers: peers.clone() };
        let address = listener.advertised();
        let services = Services::new().with(SentinelServiceServer::new(small));
        let task = tokio::spawn(listener.serve(services, shutdown.clone()));
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Serving { address, port, heard, say, peers, shutdown, task }
    }

    /// Ends it as a daemon ends; its port is free afterwards.
    pub async fn stop(self) {
        self.shutdown.trigger();
        soon("the listener ends", self.task).await.unwrap().unwrap();
    }

    pub async fn hear(&mut self) -> (Up<KeeperReport>, String) {
        soon("a message", self.heard.recv()).await.unwrap()
    }
}

#[tonic::async_trait]
impl SentinelService for Small {
    type KeeperStreamStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::KeeperStreamResponse, Status>> + Send>>;
    type ProxyStreamStream = ReceiverStream<Result<v1::ProxyStreamResponse, Status>>;

    async fn keeper_stream(
        &self,
        request: Request<Streaming<v1::KeeperStreamRequest>>,
    ) -> Result<Response<Self::KeeperStreamStream>, Status> {
        let peer = self.peers.enter(request.remote_addr());
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.ok_or_else(|| Status::invalid_argument("no hello"))?;
        let Up::Hello(identity) = Up::try_from(first)? else { return Err(Status::invalid_argument("no hello")) };
        peer.named(&identity.uid);
        let heard = self.heard.clone();
        let _ = heard.send((Up::Hello(identity), String::new())).await;
        let peer = Arc::new(peer);
        let reader = peer.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let traceparent = message.traceparent.clone();
                if heard.send((Up::try_from(message).unwrap(), traceparent)).await.is_err() {
                    break;
                }
            }
            drop(reader);
        });
        let said = BroadcastStream::new(self.say.subscribe()).filter_map(move |message| {
            let _while_it_lasts = &peer;
            message.ok().map(Ok)
        });
        Ok(Response::new(Box::pin(said)))
    }

    async fn proxy_stream(
        &self,
        _: Request<Streaming<v1::ProxyStreamRequest>>,
    ) -> Result<Response<Self::ProxyStreamStream>, Status> {
        Err(Status::unimplemented("no proxies here"))
    }
}
