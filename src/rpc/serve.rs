//! The accept loop: a bounded number of greetings, connections and calls, each with a deadline; all of them end with the
//! daemon.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tonic::{Status, body::Body, service::Routes, transport::server::TcpConnectInfo};
use tower::{
    BoxError, Service, ServiceBuilder,
    limit::ConcurrencyLimit,
    load_shed::{LoadShed, error::Overloaded},
    timeout::{Timeout, error::Elapsed},
};
use tracing::Instrument;

use super::{
    greeting::{Greeted, Greetings},
    tls::TlsFiles,
    trace,
};
use crate::{model::Moment, task::Shutdown, task::clock};

/// Greeted ones. A cluster has tens of daemons with one connection each; the rest is for operators.
const CONNECTIONS: usize = 256;
/// Calls that wait for their first answer, over all connections. Open streams don't count.
const CALLS: usize = 256;
/// Streams on one connection.
const STREAMS: u32 = 64;
/// From a request to the headers of its answer; a stream's messages may take as long as they like.
const ANSWER: Duration = Duration::from_secs(10);
/// A greeted connection that falls silent is closed after both.
const PING: Duration = Duration::from_secs(3);
const PING_ANSWER: Duration = Duration::from_secs(2);
/// Calls in flight at the shutdown may end in this time.
const GRACE: Duration = Duration::from_millis(200);
/// One line in the log in this time about connections that failed: strangers must not fill the disk.
const QUIET: Duration = Duration::from_secs(5);

type Limited = LoadShed<ConcurrencyLimit<Timeout<Routes>>>;

pub(super) async fn serve(socket: TcpListener, tls: Option<Arc<TlsFiles>>, routes: Routes, shutdown: Shutdown) {
    let limited: Limited =
        ServiceBuilder::new().load_shed().concurrency_limit(CALLS).timeout(ANSWER).service(routes.prepare());
    let mut connections = JoinSet::new();
    let mut greetings = Greetings::default();
    let mut complaint = Complaint::default();
    loop {
        let pause = greetings.full_for();
        tokio::select! {
            () = shutdown.requested() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (peer, greeted) = greetings.ended() => match greeted {
                Ok(None) => {}
                Ok(Some(_)) if connections.len() >= CONNECTIONS => complaint.about(peer, "too many connections"),
                Ok(Some(stream)) => {
                    let front = Front { inner: limited.clone(), peer };
                    connections.spawn(connection(stream, front, shutdown.clone()));
                }
                Err(problem) => complaint.about(peer, &problem),
            },
            accepted = accept(&socket, pause) => match accepted {
                Ok((stream, peer)) => {
                    if let Some(oldest) = greetings.begin(stream, peer, tls.clone()) {
                        complaint.about(oldest, "too many connections at once that have not begun to speak gRPC");
                    }
                }
                // Out of file descriptors, mostly: some will be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(greetings);
    drop(socket);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(socket: &TcpListener, pause: Duration) -> std::io::Result<(TcpStream, SocketAddr)> {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    socket.accept().await
}

/// One connection to its end. That a peer went away is no news.
async fn connection(stream: Greeted, front: Front, shutdown: Shutdown) {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(16 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(front));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(error, "gRPC connection ended");
            }
            return;
        }
        () = shutdown.requested() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Lines about connections that failed, not more often than `QUIET`.
#[derive(Default)]
struct Complaint {
    last: Option<Moment>,
    held_back: u64,
}

impl Complaint {
    fn about(&mut self, peer: SocketAddr, problem: &str) {
        let now = clock::now();
        if self.last.is_some_and(|last| now.since(last) < QUIET) {
            self.held_back += 1;
            return;
        }
        let held_back = std::mem::take(&mut self.held_back);
        self.last = Some(now);
        tracing::warn!(%peer, problem, held_back, "gRPC connection refused");
    }
}

/// What stands before the services of one connection: its span, the peer's address, and errors of the limits as statuses.
#[derive(Clone)]
struct Front {
    inner: Limited,
    peer: SocketAddr,
}

impl<B> Service<Request<B>> for Front
where
    Limited: Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Load shedding is always ready, and says no by an error of the call.
        let _ = self.inner.poll_ready(cx);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(self.peer) });
        let span = trace::server_span(&request);
        let answer = span.in_scope(|| self.inner.call(request));
        let finished = async move {
            let response = answer.await.unwrap_or_else(|error| status(&*error).into_http());
            trace::record(&tracing::Span::current(), &response);
            Ok(response)
        };
        if span.is_none() { Box::pin(finished) } else { Box::pin(finished.instrument(span)) }
    }
}

fn status(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Status {
    if error.is::<Overloaded>() {
        Status::resource_exhausted("too many calls at once, try again")
    } else if error.is::<Elapsed>() {
        Status::deadline_exceeded(format!("no answer within {ANSWER:?}"))
    } else {
        Status::internal(error.to_string())
    }
}
