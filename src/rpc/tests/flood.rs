//! Strangers that hold connections: they take no place from those who belong here.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    tls::{Authority, call, with},
    *,
};
use crate::rpc::greeting::GREETING;

/// More than there are places of either kind.
const STRANGERS: usize = 400;

/// Keeps `STRANGERS` connections that say `word` and no more: each is made anew when it is closed. Returns when all stand.
async fn flood(address: &str, word: &'static [u8]) -> JoinSet<()> {
    let mut strangers = JoinSet::new();
    let (stands, mut standing) = mpsc::channel(STRANGERS);
    for _ in 0..STRANGERS {
        let (address, stands) = (address.to_owned(), stands.clone());
        strangers.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                let _ = stream.write_all(word).await;
                let _ = stands.try_send(());
                let _ = stream.read(&mut [0; 64]).await;
            }
        });
    }
    for _ in 0..STRANGERS {
        soon("the strangers are there", standing.recv()).await;
    }
    strangers
}

/// Eight members, one after the other. One attempt may fail, as one may on any busy host; the next comes at once.
async fn members_get_in(address: &str, tls: &TlsArgs) {
    for member in 0..8 {
        let began = Instant::now();
        let mut refused = Vec::new();
        while let Err(problem) = call(address, tls).await {
            refused.push(problem);
            assert!(began.elapsed() < SOON, "member {member} did not get in within {SOON:?}: {refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_begin_no_tls_shut_no_member_out() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let serving = Serving::start(&with(&ours.issue("server", "127.0.0.1", 2100)), 0);
    let member = ours.issue("client", "client.example", 2100);
    // The byte begins a TLS record.
    for word in [&b""[..], b"\x16"] {
        let strangers = flood(&serving.address, word).await;
        members_get_in(&serving.address, &member).await;
        drop(strangers);
    }
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_have_said_one_byte_shut_no_member_out() {
    let serving = Serving::start(&loopback(), 0);
    let strangers = flood(&serving.address, b"P").await;
    members_get_in(&serving.address, &TlsArgs::default()).await;
    drop(strangers);
    serving.stop().await;
}

#[tokio::test]
async fn one_that_never_ends_its_greeting_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let tls = Serving::start(&with(&ours.issue("server", "127.0.0.1", 2100)), 0);
    let plain = Serving::start(&loopback(), 0);
    let bound = GREETING + Duration::from_secs(2);
    let held = async |address: &str, word: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(word).await.unwrap();
        let began = Instant::now();
        let ended = tokio::time::timeout(bound, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{word:?} holds a connection for more than {bound:?}");
        assert!(began.elapsed() > GREETING / 2, "{word:?} was not given the time of a slow network");
    };
    // A record of a handshake that does not come to its end; the first bytes of the client's preface.
    tokio::join!(
        held(&tls.address, b""),
        held(&tls.address, &[0x16, 3, 1, 0, 200, 1]),
        held(&plain.address, b""),
        held(&plain.address, b"P"),
        held(&plain.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"),
    );
    tls.stop().await;
    plain.stop().await;
}

#[tokio::test]
async fn one_that_has_greeted_and_falls_silent_is_closed_by_the_pings() {
    let serving = Serving::start(&loopback(), 0);
    let mut stream = TcpStream::connect(&serving.address).await.unwrap();
    // The preface and empty settings, in pieces: then nothing, no answer to a ping either.
    for piece in [&b"PRI * HTTP/2.0\r\n"[..], b"\r\nSM\r\n\r\n\0\0\0\x04\0", b"\0\0\0\0"] {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut heard = Vec::new();
    let bound = Duration::from_secs(9);
    let ended = tokio::time::timeout(bound, stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "silent for {bound:?} and still held");
    assert!(heard.len() >= 9 && heard[3] == 4, "the server's settings came first: {heard:?}");
    serving.stop().await;
}
