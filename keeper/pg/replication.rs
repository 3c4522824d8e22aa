//! Connections that speak the replication protocol: the only way to ask a standby for the timeline that it replays.
//! tokio-postgres can't ask for one, so the parameter is put into the first message on its way.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use stolon::model::WalPosition;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_postgres::{Client, Config, Error, NoTls};

use super::{Instance, PgError, sql};

/// Also takes plain SQL (a walsender that is connected to a database).
const PARAMETER: &[u8] = b"replication\0database\0";

/// What IDENTIFY_SYSTEM says. On a standby the position is what it has received or replayed, whichever is further, on
/// the timeline that it replays; on a primary what is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub system_id: u64,
    pub position: WalPosition,
}

/// `None`: the answer is not understood.
pub(super) async fn identify(client: &Client) -> Result<Option<Identity>, Error> {
    let rows = sql::rows(client, "IDENTIFY_SYSTEM").await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let field = |name: &str| row.get(name);
    let identity = || {
        let system_id = field("systemid")?.parse().ok()?;
        let position = WalPosition { timeline: field("timeline")?.parse().ok()?, lsn: field("xlogpos")?.parse().ok()? };
        Some(Identity { system_id, position })
    };
    Ok(identity())
}

/// A session with the own server; no bound: the caller sets them.
pub(super) async fn local_session<T, F, Fut>(instance: &Instance, doing: &'static str, work: F) -> Result<T, PgError>
where
    F: FnOnce(Arc<Client>) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let path = instance.socket();
    let refused = |error: io::Error| PgError::Sql { doing, problem: format!("{}: {error}", path.display()) };
    let stream = UnixStream::connect(&path).await.map_err(refused)?;
    let outcome = run(sql::login(&instance.credentials().superuser), stream, work).await;
    sql::conclude(Ok(outcome), Duration::ZERO, doing)
}

/// A session with another server, as superuser.
pub(super) async fn remote_session<T, F, Fut>(
    instance: &Instance,
    (host, port): (&str, u16),
    deadline: Duration,
    doing: &'static str,
    work: F,
) -> Result<T, PgError>
where
    F: FnOnce(Arc<Client>) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let all = async {
        let refused = |error: io::Error| PgError::Sql { doing, problem: format!("{host}:{port}: {error}") };
        let stream = TcpStream::connect((host, port)).await.map_err(refused)?;
        let outcome = run(sql::login(&instance.credentials().superuser), stream, work).await;
        sql::conclude(Ok(outcome), deadline, doing)
    };
    tokio::time::timeout(deadline, all).await.unwrap_or(Err(PgError::TimedOut { doing, after: deadline }))
}

async fn run<S, T, F, Fut>(config: Config, stream: S, work: F) -> Result<Option<T>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnOnce(Arc<Client>) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let (client, connection) = config.connect_raw(Marked::new(stream), NoTls).await?;
    tokio::select! {
        result = work(Arc::new(client)) => result.map(Some),
        ended = connection => ended.map(|()| None),
    }
}

/// A stream whose first message, the startup packet, gets one parameter more.
struct Marked<S> {
    stream: S,
    started: bool,
    pending: Vec<u8>,
}

impl<S: AsyncWrite + Unpin> Marked<S> {
    fn new(stream: S) -> Marked<S> {
        Marked { stream, started: false, pending: Vec::new() }
    }

    fn write_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The startup packet (length, version, pairs, a zero) with the parameter; `None` when it isn't one.
fn with_parameter(packet: &[u8]) -> Option<Vec<u8>> {
    let (length, pairs) = packet.split_first_chunk::<4>()?;
    let (last, pairs) = pairs.split_last()?;
    if u32::from_be_bytes(*length) as usize != packet.len() || *last != 0 {
        return None;
    }
    let length = u32::try_from(packet.len() + PARAMETER.len()).ok()?;
    Some([&length.to_be_bytes(), pairs, PARAMETER, &[0]].concat())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Marked<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !this.started {
            let strange = || io::Error::other("the first message is no startup packet");
            this.pending = with_parameter(bytes).ok_or_else(strange)?;
            this.started = true;
            // What can't be written now goes out before anything else is written or flushed.
            let _ = this.write_pending(context)?;
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.write_pending(context))?;
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_pending(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_pending(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Marked<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_startup_packet_grows_by_one_parameter() {
        let packet = [&19_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"user\0me\0\0\0\0"].concat();
        let packet = &packet[..17];
        let fixed = [&17_u32.to_be_bytes()[..], &packet[4..]].concat();
        let marked = with_parameter(&fixed).unwrap();
        assert!(marked.ends_with(b"user\0me\0replication\0database\0\0"));
        assert_eq!(u32::from_be_bytes(*marked.first_chunk().unwrap()) as usize, marked.len());
        assert_eq!(with_parameter(b"Q\0\0\0\x05\0"), None);
    }
}
