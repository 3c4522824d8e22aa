//! Knocking at doors: does a PostgreSQL server answer (R15), does a daemon's port still accept (R14). One connection
//! each, with a deadline over all; nothing is retried, and what is found is an observation, never a proof.

use std::{
    future::Future,
    io::{self, ErrorKind},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::model::report::ProbeResult;

/// PostgreSQL's SSLRequest: length 8, code 80877103. Any server answers it with one byte before any authentication,
/// whether it speaks TLS or not, and without a line in its log.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Asks the PostgreSQL server at `host`:`port` for a byte. `Answered` means that its postmaster runs: a stopped or hung
/// one lets connections in, but says nothing.
pub async fn knock(host: &str, port: u16, deadline: Duration) -> ProbeResult {
    let asked = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await.map_err(after_connect)
    };
    within(deadline, asked).await
}

/// Opens and closes a TCP connection to `address` (`host:port`): `Refused` says that nothing listens there any more.
pub async fn dial_check(address: &str, deadline: Duration) -> ProbeResult {
    within(deadline, TcpStream::connect(address)).await
}

async fn within<T>(deadline: Duration, attempt: impl Future<Output = io::Result<T>>) -> ProbeResult {
    match timeout(deadline, attempt).await {
        Ok(Ok(_)) => ProbeResult::Answered,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => ProbeResult::Refused,
        Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => ProbeResult::TimedOut,
        Ok(Err(_)) => ProbeResult::Unreachable,
        Err(_) => ProbeResult::TimedOut,
    }
}

/// Whoever took the connection was there: its hanging up is no refusal.
fn after_connect(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::ConnectionRefused => ErrorKind::ConnectionReset.into(),
        _ => error,
    }
}
