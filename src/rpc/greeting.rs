//! Connections before they have shown that a gRPC client is at the other end: TLS to the end of its handshake, then the
//! client's preface of HTTP/2. Strangers can hold these, so they have places of their own: when all are taken, the oldest
//! goes for the newcomer, first of all one that has said nothing, but none before its least time. Whoever is real needs
//! less, and gets through a flood. Knows nothing of calls.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{dialer::Line, tls::TlsFiles};
use crate::{model::Moment, task::clock};

/// Greetings at once.
const GREETINGS: usize = 256;
/// Nobody is dropped for a newcomer sooner: a flood that is let in without a pause would leave a real client less than its
/// handshake takes. Newcomers wait meanwhile, in the listener's queue.
const LEAST: Duration = Duration::from_millis(100);
/// From the connection to the end of the client's preface.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How one greeting ended: nothing when the peer went away. An error is for the log.
pub(super) type Outcome = (SocketAddr, Result<Option<Greeted>, String>);

/// All connections that are being greeted. Dropped, they are closed.
#[derive(Default)]
pub(super) struct Greetings {
    tasks: JoinSet<(u64, Outcome)>,
    /// By their number: the oldest first.
    places: BTreeMap<u64, Place>,
    next: u64,
}

struct Place {
    peer: SocketAddr,
    since: Moment,
    /// Its first byte has come.
    spoke: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Greetings {
    /// How long a newcomer has to wait before somebody may be dropped for it.
    pub fn full_for(&self) -> Duration {
        let oldest = self.places.first_key_value().filter(|_| self.places.len() >= GREETINGS);
        oldest.map_or(Duration::ZERO, |(_, place)| (place.since + LEAST).since(clock::now()))
    }

    /// Takes a new connection in. Returns whose was dropped for it, if there was no room.
    pub fn begin(&mut self, stream: TcpStream, peer: SocketAddr, tls: Option<Arc<TlsFiles>>) -> Option<SocketAddr> {
        let now = clock::now();
        let dropped = self.victim(now).and_then(|number| self.places.remove(&number));
        if let Some(place) = &dropped {
            place.task.abort();
        }
        let number = self.next;
        self.next += 1;
        let spoke = Arc::<AtomicBool>::default();
        let first_byte = spoke.clone();
        let task = self.tasks.spawn(async move {
            let outcome = match timeout(GREETING, greet(stream, tls, &first_byte)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("said nothing that begins a gRPC connection within {GREETING:?}")),
            };
            (number, (peer, outcome))
        });
        self.places.insert(number, Place { peer, since: now, spoke, task });
        dropped.map(|place| place.peer)
    }

    /// The oldest of those that had their least time and have said nothing, or the oldest of all.
    fn victim(&self, now: Moment) -> Option<u64> {
        if self.places.len() < GREETINGS {
            return None;
        }
        let old = self.places.iter().take_while(|(_, place)| now.since(place.since) >= LEAST);
        let mut silent = old.filter(|(_, place)| !place.spoke.load(Ordering::Relaxed));
        silent.next().or_else(|| self.places.first_key_value()).map(|(number, _)| *number)
    }

    /// The next greeting that ends. Never returns while there is none.
    pub async fn ended(&mut self) -> Outcome {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((number, outcome))) => {
                    // One that was dropped for a newcomer in the instant of its end is none the less greeted.
                    self.places.remove(&number);
                    return outcome;
                }
                // Dropped for a newcomer.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn greet(
    mut stream: TcpStream,
    tls: Option<Arc<TlsFiles>>,
    spoke: &AtomicBool,
) -> Result<Option<Greeted>, String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.readable().await.map_err(|error| error.to_string())?;
    spoke.store(true, Ordering::Relaxed);
    let Some(files) = tls else {
        return Ok(preface(&mut stream).await?.then(|| Greeted::new(stream)));
    };
    // Only now: a silent one costs no look at the files.
    let acceptor = TlsAcceptor::from(files.current().await.server.clone());
    let handshake = acceptor.accept(stream).await;
    let mut stream = handshake.map_err(|error| format!("TLS handshake failed: {error}"))?;
    Ok(preface(&mut stream).await?.then(|| Greeted::new(stream)))
}

/// Reads the preface to its end, and refuses anything else at its first wrong byte. False when the peer went away.
async fn preface(stream: &mut (impl AsyncRead + Unpin)) -> Result<bool, String> {
    let mut said = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < said.len() {
        match stream.read(&mut said[filled..]).await {
            Ok(0) => return Ok(false),
            Ok(count) => filled += count,
            Err(error) => return Err(error.to_string()),
        }
        if said[..filled] != PREFACE[..filled] {
            return Err("it does not speak gRPC (HTTP/2)".to_owned());
        }
    }
    Ok(true)
}

/// A connection whose preface was read: gives it out once more, to the HTTP/2 server that wants to see it.
pub(super) struct Greeted {
    preface: &'static [u8],
    rest: Box<dyn Line>,
}

impl Greeted {
    fn new(rest: impl Line + 'static) -> Greeted {
        Greeted { preface: PREFACE, rest: Box::new(rest) }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.rest).poll_read(cx, buffer);
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }
}
