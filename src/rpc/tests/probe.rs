//! What a knock at a door finds.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    model::report::ProbeResult,
    rpc::{dial_check, knock},
};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_knock_tells_a_server_that_answers_from_one_that_hangs_and_from_none() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let began = Instant::now();
    // Nobody accepts, as with a stopped postmaster: the kernel lets the connection in.
    assert_eq!(knock("127.0.0.1", port, SHORT).await, ProbeResult::TimedOut);
    assert!(began.elapsed() < SHORT * 3, "bounded by its deadline");
    assert_eq!(dial_check(&format!("127.0.0.1:{port}"), SHORT).await, ProbeResult::Answered);

    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut request = [0; 8];
            if stream.read_exact(&mut request).await.is_ok() {
                assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
                stream.write_all(b"N").await.unwrap();
            }
        }
    });
    assert_eq!(knock("127.0.0.1", port, SOON).await, ProbeResult::Answered);
    server.abort();
    let _ = server.await;
    assert_eq!(knock("127.0.0.1", port, SOON).await, ProbeResult::Refused);
    assert_eq!(dial_check(&format!("127.0.0.1:{port}"), SOON).await, ProbeResult::Refused);
    assert_eq!(knock("no.such.host.invalid", 1, SOON).await, ProbeResult::Unreachable);
}

#[tokio::test]
async fn whoever_hangs_up_has_not_refused() {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let server = tokio::spawn(async move { while socket.accept().await.is_ok() {} });
    assert_eq!(knock("127.0.0.1", port, SOON).await, ProbeResult::Unreachable);
    server.abort();
}
