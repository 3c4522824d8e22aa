//! Bytes from one socket to the other, both ways, for as long as the pass holds. The pass is looked at before every
//! write, so that not one byte goes out past the deadline. Knows nothing of what the bytes mean.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::coop::consume_budget,
};

use crate::pass::Pass;

/// Twice tokio's throughput per core at 64 KiB already; larger ones gain little and cost slow readers memory.
const BUFFER: usize = 128 * 1024;
/// Buffers that a worker thread keeps for its next reads. An idle connection holds none.
const SPARE: usize = 4;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides hung up, or one broke.
    Closed,
    /// The pass was revoked, or its deadline has passed.
    Cut,
}

/// Copies until both sides have hung up, one breaks, or the pass is over.
pub async fn both_ways(client: &mut TcpStream, server: &mut TcpStream, pass: &Pass) -> End {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = one_way(&mut from_client, &mut to_server, pass);
    let down = one_way(&mut from_server, &mut to_client, pass);
    tokio::select! {
        biased;
        () = pass.revoked() => End::Cut,
        ended = async { tokio::try_join!(up, down) } => match ended {
            Ok(_) | Err(End::Closed) => End::Closed,
            Err(End::Cut) => End::Cut,
        },
    }
}

/// Until `from` hangs up; `to` is told, and may still answer.
async fn one_way(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, pass: &Pass) -> Result<(), End> {
    loop {
        from.readable().await.map_err(closed)?;
        let mut buffer = take();
        match poll_fn(|cx| Poll::Ready(read_now(from, cx, &mut buffer))).await {
            Poll::Ready(Ok(0)) => {
                give_back(buffer);
                return to.shutdown().await.map_err(closed);
            }
            Poll::Ready(Ok(count)) => forward(&buffer[..count], to, pass).await?,
            Poll::Ready(Err(error)) => return Err(closed(error)),
            // Nothing there after all, or this task's turn is over.
            Poll::Pending => consume_budget().await,
        }
        give_back(buffer);
    }
}

async fn forward(mut bytes: &[u8], to: &mut WriteHalf<'_>, pass: &Pass) -> Result<(), End> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| {
            if !pass.holds() {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Pin::new(&mut *to).poll_write(cx, bytes)))
        });
        match written.await {
            None => return Err(End::Cut),
            Some(Poll::Ready(Ok(count))) => bytes = &bytes[count..],
            Some(Poll::Ready(Err(error))) => return Err(closed(error)),
            Some(Poll::Pending) => {
                consume_budget().await;
                to.writable().await.map_err(closed)?;
            }
        }
    }
    Ok(())
}

fn read_now(from: &mut ReadHalf<'_>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut into = ReadBuf::new(buffer);
    Pin::new(from).poll_read(cx, &mut into).map_ok(|()| into.filled().len())
}

fn closed(_: io::Error) -> End {
    End::Closed
}

fn take() -> Box<[u8]> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
}

fn give_back(buffer: Box<[u8]>) {
    BUFFERS.with_borrow_mut(|spare| {
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    });
}
