//! What the proxy costs, against a direct connection: run by hand, with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::tests::Proxy;

const ROUNDS: usize = 5000;
const BYTES: usize = 1 << 30;

/// Answers a first byte `e` by echoing all that follows, and `s` by sending `BYTES`.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let chunk = vec![7u8; 256 * 1024];
                if stream.read_u8().await.is_ok_and(|kind| kind == b's') {
                    for _ in 0..BYTES / chunk.len() {
                        let _ = stream.write_all(&chunk).await;
                    }
                } else {
                    let mut buffer = [0; 100];
                    while stream.read_exact(&mut buffer).await.is_ok() && stream.write_all(&buffer).await.is_ok() {}
                }
            });
        }
    });
    port
}

async fn latency(mut stream: TcpStream) -> (Duration, Duration) {
    stream.set_nodelay(true).unwrap();
    stream.write_all(b"e").await.unwrap();
    let (mut buffer, mut times) = ([1; 100], Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        let at = Instant::now();
        stream.write_all(&buffer).await.unwrap();
        stream.read_exact(&mut buffer).await.unwrap();
        times.push(at.elapsed());
    }
    times.sort();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

async fn throughput(mut stream: TcpStream) -> f64 {
    stream.write_all(b"s").await.unwrap();
    let (mut buffer, mut left, at) = (vec![0; 256 * 1024], BYTES, Instant::now());
    while left > 0 {
        left -= stream.read(&mut buffer).await.unwrap();
    }
    BYTES as f64 / 1e9 / at.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test: says what the proxy costs on this machine"]
async fn what_the_proxy_costs() {
    let (proxy, port) = (Proxy::registered(), server().await);
    proxy.read(2, 3, Some(port), None);
    for _ in 0..3 {
        for way in ["direct", "proxy"] {
            let connect = async || match way {
                "direct" => TcpStream::connect(("127.0.0.1", port)).await.unwrap(),
                _ => proxy.client().await,
            };
            let (p50, p99) = latency(connect().await).await;
            let rate = throughput(connect().await).await;
            println!("LOAD {way:6} {ROUNDS} round trips p50 {p50:?} p99 {p99:?}, {rate:.2} GB/s");
        }
    }
}
