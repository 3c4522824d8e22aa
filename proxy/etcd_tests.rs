//! The whole proxy against a real etcd, with small servers in the primary's place: what it routes, acknowledges and
//! says.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use stolon::{
    model::{Epoch, LeaseId, SentinelUid, registration::ProxyInfo},
    rpc::{Dialer, TlsArgs},
    store::{Begin, LeaseState, Mirror, Outcome, Registered, Registration, Store, Txn},
    task::Shutdown,
    wire::v1::{GetProxyStatusRequest, GetProxyStatusResponse, proxy_service_client::ProxyServiceClient},
};
use tokio::{net::TcpStream, task::JoinHandle, time::sleep, time::timeout};

use crate::{
    cli::Cli,
    run::{new_uid, run},
    tests::{SOON, document, gone, greeted, server},
};

/// One member, which dies with it.
struct Etcd {
    child: Child,
    endpoint: String,
    _data: tempfile::TempDir,
}

/// Below those that the kernel gives to outgoing connections: nobody takes it before its server is up.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..30_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Etcd {
    fn start() -> Etcd {
        let data = tempfile::tempdir().unwrap();
        let [client, peer] = [(); 2].map(|()| format!("http://127.0.0.1:{}", free_port()));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data.path()).args(["--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("etcd is installed (make setup)");
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = log.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("ready to serve client requests")), "etcd does not start");
        std::thread::spawn(move || lines.for_each(drop));
        Etcd { child, endpoint: client, _data: data }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy, and this test in the place of sentinels and keepers.
struct World {
    etcd: Etcd,
    store: Store,
    /// Of a sentinel that nobody reaches; carries what keepers would hold, too.
    lease: LeaseId,
    port: u16,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), String>>,
}

impl World {
    async fn start() -> World {
        let etcd = Etcd::start();
        let port = free_port();
        let text = port.to_string();
        let args = ["stolon-proxy", "--cluster-name", "c", "--store-endpoints", &etcd.endpoint, "--port", &text];
        let cli: Cli = stolon::cli::try_parse("STPROXYETCD", args).unwrap();
        let (store, shutdown) = (Store::new(&cli.store).unwrap(), Shutdown::new());
        tokio::spawn(store.clone().watch(shutdown.clone()));
        let sentinel = SentinelUid::parse("s").unwrap();
        let (key, value) = (store.keys().sentinel(&sentinel), json!({"UID": "s", "grpcAddress": "127.0.0.1:1"}));
        let holder =
            Registration::new(&store, key, |_| Duration::from_secs(60), value.to_string().into_bytes(), Begin::Anew);
        tokio::spawn(holder.clone().run(shutdown.clone()));
        let mut lease = holder.lease();
        let held = timeout(SOON, lease.wait_for(Option::is_some)).await.expect("a lease in time").unwrap();
        let lease = held.as_ref().map(|state: &LeaseState| state.id).unwrap();
        drop(held);
        let running = tokio::spawn(run(cli, new_uid(), shutdown.clone()));
        World { etcd, store, lease, port, shutdown, running }
    }

    /// Writes cluster data in this epoch, with a mark that ends it or none, and the keys of a primary that serves.
    async fn write(&self, epoch: u64, mark: bool, serves: Option<u16>) {
        let data = document(epoch, mark);
        let (keys, primary) = (self.store.keys(), json!({"keeper": "k", "db": "d", "epoch": epoch}));
        let mut ready = primary.clone();
        for (field, value) in [("address", json!("localhost")), ("port", json!(serves)), ("timeline", json!(1))] {
            ready[field] = value;
        }
        let mut txn = Txn::new()
            .put(keys.cluster_data(), data.to_string())
            .put(keys.epoch(), epoch.to_string())
            .put_on(self.lease, keys.primary(), primary.to_string());
        txn = match serves {
            Some(_) => txn.put_on(self.lease, keys.ready(), ready.to_string()),
            None => txn.delete(keys.ready()),
        };
        assert!(matches!(self.store.transact(&txn).await, Ok(Outcome::Done(_))));
    }

    async fn registered(&self, what: &str, is: impl Fn(&ProxyInfo) -> bool) -> Registered<ProxyInfo> {
        let mut mirror = self.store.mirror();
        let own = |mirror: &Mirror| mirror.proxies.values().next().filter(|own| is(&own.info)).cloned();
        let seen = mirror.wait_for(|mirror| mirror.as_ref().is_some_and(|mirror| own(mirror).is_some()));
        let seen = timeout(SOON, seen).await.unwrap_or_else(|_| panic!("{what} in time")).unwrap();
        seen.as_ref().and_then(|mirror| own(mirror)).unwrap()
    }

    async fn client(&self) -> TcpStream {
        let at = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)).await {
                Ok(client) => return client,
                Err(error) => assert!(at.elapsed() < SOON, "{error}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn status(&self) -> GetProxyStatusResponse {
        let own = self.registered("the registration", |_| true).await;
        let dialer = Dialer::with_files(&TlsArgs::default()).unwrap();
        let mut client = ProxyServiceClient::new(dialer.channel(&own.info.grpc_address).unwrap());
        client.get_proxy_status(GetProxyStatusRequest {}).await.unwrap().into_inner()
    }

    async fn end(&mut self) {
        self.shutdown.trigger();
        let ended = timeout(Duration::from_secs(5), &mut self.running).await.expect("it ends in time").unwrap();
        assert_eq!(ended, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_primary_is_followed_through_etcd_alone() {
    let (mut world, old, new) = (World::start().await, server(b'o').await, server(b'n').await);
    world.write(3, false, Some(old)).await;
    let mut before = world.client().await;
    assert_eq!(greeted(&mut before).await, b'o');
    let status = world.status().await;
    assert_eq!((status.route, status.closed_because), (format!("localhost:{old}"), String::new()));
    assert_eq!((status.report.unwrap().route_epoch, status.view.unwrap().epoch), (3, 3));
    assert!(status.store.unwrap().lease_remaining_ms > 2000);
    assert_eq!(status.identity.unwrap().cluster_uid, "u");

    let at = Instant::now();
    world.write(3, true, Some(old)).await;
    world.registered("the acknowledgement", |info| info.fenced_epoch == Epoch(3)).await;
    println!("ETCD a mark was acknowledged after {:?}", at.elapsed());
    gone(&mut before).await;
    assert!(world.status().await.closed_because.contains("epoch 3 has ended"));
    let mut during = world.client().await;
    world.write(4, false, None).await;
    world.write(4, false, Some(new)).await;
    assert_eq!(greeted(&mut during).await, b'n');
    let taken = world.registered("what it has taken up", |info| info.generation.0 == 4).await;
    assert_eq!(taken.info.fenced_epoch, Epoch(3));
    world.end().await;
    assert!(world.store.read().await.unwrap().proxies.is_empty(), "it has given its registration back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_etcd_is_frozen_connections_end_with_the_registration_and_the_proxy_still_ends_in_order() {
    let (mut world, port) = (World::start().await, server(b'a').await);
    world.write(3, false, Some(port)).await;
    let mut client = world.client().await;
    greeted(&mut client).await;
    let at = Instant::now();
    world.etcd.signal(Signal::STOP);
    gone(&mut client).await;
    // 5 s of lease less a margin of 1 s, since a keepalive that is at most 1 s old.
    let cut = at.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_millis(4500)).contains(&cut), "cut after {cut:?}");
    let status = world.status().await;
    assert_eq!((status.route.as_str(), status.report.unwrap().connections), ("", 0));
    assert!(status.closed_because.contains("has run out"), "{}", status.closed_because);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_somebody_deletes_is_put_back_and_routes_only_then() {
    let (mut world, port) = (World::start().await, server(b'a').await);
    world.write(3, false, Some(port)).await;
    let mut client = world.client().await;
    greeted(&mut client).await;
    let own = world.registered("the registration", |_| true).await;
    let key = world.store.keys().proxy(&own.info.uid);
    world.store.transact(&Txn::new().delete(key.as_str())).await.unwrap();
    gone(&mut client).await;
    let mut again = world.client().await;
    assert_eq!(greeted(&mut again).await, b'a');
    let back = world.registered("the registration", |_| true).await;
    assert!(back.lease == own.lease && back.created > own.created);
    world.end().await;
}
