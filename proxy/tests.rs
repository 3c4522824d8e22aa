//! The shell against a small server in PostgreSQL's place: what clients notice of routes, marks and deadlines.

use std::time::{Duration, Instant};

use stolon::{
    model::{Epoch, LeaseId, Moment, Revision},
    task::{Shutdown, clock},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    cli::KeepaliveArgs,
    gate::{
        Cluster, Facts, Lease, Mark,
        door::{Policy, Reach, WhenAbsent},
        facts::{Holder, Ready},
    },
    gatehouse::Gatehouse,
    listener::Listener,
    socket::Entrance,
};

pub(crate) const SOON: Duration = Duration::from_secs(5);
const MINE: LeaseId = LeaseId(5);

pub(crate) fn lease(deadline: Moment) -> Option<Lease> {
    Some(Lease { id: MINE, deadline, registered_at: Revision(1) })
}

/// A cluster in this epoch, whose primary serves at this port, or doesn't.
pub(crate) fn facts(revision: i64, epoch: u64, ready: Option<u16>, mark: Option<u64>) -> Facts {
    let keeper = stolon::model::KeeperUid::parse(format!("k{epoch}")).unwrap();
    let (epoch, lease) = (Epoch(epoch), LeaseId(100 + epoch as i64));
    let traceparent = String::new();
    Facts {
        revision: Revision(revision),
        registration: Some(MINE),
        cluster: Cluster::Known {
            uid: stolon::model::ClusterUid::parse("c").unwrap(),
            revision: Revision(revision),
            epoch,
            mark: mark.map(|epoch| Mark { epoch: Epoch(epoch), traceparent: traceparent.clone() }),
        },
        primary: Some(Holder { keeper: keeper.clone(), epoch, lease }),
        ready: ready.map(|port| Ready { keeper, epoch, lease, address: "127.0.0.1".into(), port, traceparent }),
    }
}

/// A proxy whose etcd is this test.
pub(crate) struct Proxy {
    house: Gatehouse,
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), String>>,
}

impl Proxy {
    fn start() -> Proxy {
        let (house, shutdown) = (Gatehouse::default(), Shutdown::new());
        let entrance = Entrance::take("127.0.0.1", 0).unwrap();
        let address = entrance.address();
        let policy = Policy { absent: WhenAbsent::StopListening, reach: Reach::Loopback };
        let listener = Listener { entrance, policy, keepalive: KeepaliveArgs::default(), house: house.clone() };
        let running = tokio::spawn(listener.run(shutdown.clone()));
        Proxy { house, address, shutdown, running }
    }

    /// Registered for a minute.
    pub fn registered() -> Proxy {
        let proxy = Proxy::start();
        proxy.lease(clock::now() + Duration::from_secs(60));
        proxy
    }

    fn lease(&self, deadline: Moment) {
        self.house.registered(lease(deadline));
    }

    pub fn read(&self, revision: i64, epoch: u64, ready: Option<u16>, mark: Option<u64>) {
        let facts = facts(revision, epoch, ready, mark);
        self.house.tell(|gate, now| gate.read(facts, now));
    }

    pub async fn client(&self) -> TcpStream {
        let at = Instant::now();
        loop {
            match TcpStream::connect(self.address).await {
                Ok(client) => return client,
                Err(error) => assert!(at.elapsed() < SOON, "{error}"),
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn acknowledged(&self, epoch: u64) {
        let mut news = self.house.news();
        let acknowledged = news.wait_for(|news| news.acknowledged == Epoch(epoch));
        timeout(SOON, acknowledged).await.expect("acknowledged in time").unwrap();
    }
}

/// Answers what it gets, with a first byte of its own.
pub(crate) async fn server(name: u8) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let (mut read, mut write) = stream.split();
                let _ = write.write_all(&[name]).await;
                let _ = tokio::io::copy(&mut read, &mut write).await;
                // Half-closed by its client, it still has something to say.
                let _ = write.write_all(b"bye").await;
            });
        }
    });
    port
}

pub(crate) async fn greeted(client: &mut TcpStream) -> u8 {
    timeout(SOON, client.read_u8()).await.expect("an answer in time").expect("a greeting")
}

/// Until the connection is gone, by whatever way.
pub(crate) async fn gone(client: &mut TcpStream) {
    let mut rest = [0; 64];
    let end = async { while !matches!(client.read(&mut rest).await, Ok(0) | Err(_)) {} };
    timeout(SOON, end).await.expect("cut in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_come_back_unchanged_in_any_amount_and_half_closing_works() {
    let (proxy, port) = (Proxy::registered(), server(b'a').await);
    proxy.read(2, 3, Some(port), None);
    let mut client = proxy.client().await;
    assert_eq!(greeted(&mut client).await, b'a');
    let sent: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let (mut read, mut write) = client.split();
    let mut back = Vec::new();
    let exchange = async {
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(sending, read.read_to_end(&mut back)).1.unwrap();
    };
    timeout(Duration::from_secs(20), exchange).await.expect("both ends hang up");
    let (echo, farewell) = back.split_at(back.len() - 3);
    assert!(echo == sent && farewell == b"bye", "{} bytes came back of {}", back.len(), sent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_cuts_a_thousand_connections_within_50_ms_and_is_acknowledged_when_they_are_gone() {
    let (proxy, port) = (Proxy::registered(), server(b'a').await);
    proxy.read(2, 3, Some(port), None);
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let mut client = proxy.client().await;
        greeted(&mut client).await;
        clients.push(client);
    }
    assert_eq!(proxy.house.snapshot().report.connections, 1000);
    let at = Instant::now();
    proxy.read(3, 3, Some(port), Some(3));
    proxy.acknowledged(3).await;
    let cut = at.elapsed();
    for client in &mut clients {
        gone(client).await;
    }
    println!("CUT 1000 connections acknowledged after {cut:?}");
    assert!(cut < Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 50 }), "{cut:?}");
    assert_eq!(proxy.house.snapshot().report.connections, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_during_a_failover_is_held_and_gets_through() {
    let (proxy, old, new) = (Proxy::registered(), server(b'o').await, server(b'n').await);
    proxy.read(2, 3, Some(old), None);
    let mut before = proxy.client().await;
    assert_eq!(greeted(&mut before).await, b'o');
    proxy.read(3, 3, Some(old), Some(3));
    gone(&mut before).await;
    let mut during = proxy.client().await;
    assert!(timeout(Duration::from_millis(100), during.read_u8()).await.is_err(), "held, neither served nor refused");
    proxy.read(4, 4, None, None);
    assert!(timeout(Duration::from_millis(50), during.read_u8()).await.is_err(), "the winner does not serve yet");
    proxy.read(5, 4, Some(new), None);
    assert_eq!(greeted(&mut during).await, b'n');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_held_while_the_primary_refuses_and_gets_through_when_it_is_back() {
    let proxy = Proxy::registered();
    let placeholder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = placeholder.local_addr().unwrap().port();
    drop(placeholder);
    proxy.read(2, 3, Some(port), None);
    let mut client = proxy.client().await;
    assert!(timeout(Duration::from_millis(100), client.read_u8()).await.is_err());
    let back = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let (mut served, _) = timeout(SOON, back.accept()).await.unwrap().unwrap();
    served.write_all(b"x").await.unwrap();
    assert_eq!(greeted(&mut client).await, b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_own_deadline_not_one_byte_is_forwarded_though_nobody_revoked_anything() {
    let (proxy, port) = (Proxy::registered(), server(b'a').await);
    proxy.read(2, 3, Some(port), None);
    let mut client = proxy.client().await;
    greeted(&mut client).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(greeted(&mut client).await, b'x');
    // As after a thaw: the deadline is past, and no timer has run yet (this test runs none).
    proxy.lease(clock::now() + Duration::from_millis(30));
    sleep(Duration::from_millis(60)).await;
    client.write_all(b"y").await.unwrap();
    let mut answer = [0; 8];
    let read = timeout(SOON, client.read(&mut answer)).await.expect("cut in time");
    assert!(matches!(read, Ok(0) | Err(_)), "forwarded past the deadline: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_in_progress_is_dropped_by_a_mark_and_only_then_acknowledged() {
    let proxy = Proxy::registered();
    // Accepts nothing: with its queue full, dials hang.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let deaf = socket.listen(0).unwrap();
    let address = deaf.local_addr().unwrap();
    let _fill = TcpStream::connect(address).await.unwrap();
    proxy.read(2, 3, Some(address.port()), None);
    let clients = [proxy.client().await, proxy.client().await];
    sleep(Duration::from_millis(100)).await;
    proxy.read(3, 3, Some(address.port()), Some(3));
    proxy.acknowledged(3).await;
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_listens_once_registered_and_ends_quickly_cutting_everybody() {
    let proxy = Proxy::start();
    sleep(Duration::from_millis(50)).await;
    assert!(TcpStream::connect(proxy.address).await.is_err(), "not registered yet");
    proxy.lease(clock::now() + Duration::from_secs(60));
    let port = server(b'a').await;
    proxy.read(2, 3, Some(port), None);
    let mut client = proxy.client().await;
    greeted(&mut client).await;
    proxy.shutdown.trigger();
    gone(&mut client).await;
    assert_eq!(timeout(Duration::from_secs(1), proxy.running).await.expect("ends in time").unwrap(), Ok(()));
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

/// Cluster data in this epoch, with a mark that ends it or none; `epoch` is the proxies' generation, too.
pub(crate) fn document(epoch: u64, mark: bool) -> serde_json::Value {
    let mut status = serde_json::json!({"phase": "normal", "master": "d", "epoch": epoch});
    if mark {
        status["fencing"] = serde_json::json!({"epoch": epoch, "stage": "fence", "reason": "a test"});
    }
    let keeper = serde_json::json!({"uid": "k", "generation": 1, "status": {}});
    let db = serde_json::json!({"uid": "d", "generation": 1, "spec": {"keeperUID": "k", "role": "master", "initMode": "none"}});
    serde_json::json!({
        "formatVersion": 1,
        "cluster": {"uid": "u", "generation": 1, "spec": {"initMode": "new", "proxyTimeout": "7s"}, "status": status},
        "keepers": {"k": keeper},
        "dbs": {"d": db},
        "proxy": {"generation": epoch, "changeTime": "", "spec": {}, "status": {}},
    })
}
