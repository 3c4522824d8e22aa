//! One proxy from its start to its end: puts the parts together, and takes them apart in order. Clients are cut first;
//! the registration is given back when nobody is connected any more, so that no failover waits for this proxy.

use std::time::Duration;

use stolon::{
    model::{ProxyUid, report::ProxyReport},
    rpc::{Dialer, Listener as Grpc, ProxyTalk, Reports, Services, Streams},
    store::{Begin, Registration, Store},
    task::{Shutdown, Tasks, signals},
    wire::v1::proxy_service_server::ProxyServiceServer,
};
use tokio::sync::{mpsc, watch};

use crate::{
    cli::Cli,
    control::Control,
    gate::door::Policy,
    gatehouse::Gatehouse,
    listener::Listener,
    record::Record,
    service::{Service, identity},
    socket::Entrance,
    story::Story,
};

/// For all tasks to end.
const GRACE: Duration = Duration::from_secs(1);
/// Views on their way from streams; a slow reader gets only the newest of each sentinel.
const VIEWS: usize = 8;

/// A fresh uid: 8 hexadecimal digits, as each start has one of its own.
pub fn new_uid() -> ProxyUid {
    ProxyUid::parse(format!("{:08x}", rand::random::<u32>())).expect("hexadecimal digits are a valid uid")
}

/// Runs until the shutdown, SIGTERM or SIGINT. An error is one line for people. Needs a tokio runtime.
pub async fn run(cli: Cli, uid: ProxyUid, shutdown: Shutdown) -> Result<(), String> {
    let store = Store::new(&cli.store)?;
    let entrance = Entrance::take(&cli.listen_address, cli.port)?;
    let grpc = Grpc::bind(&cli.grpc, cli.grpc_port, "--grpc-port")?;
    let dialer = Dialer::new(&cli.grpc)?;
    let (address, cluster) = (entrance.address(), cli.store.cluster_name.clone());
    tracing::info!(%uid, %cluster, %address, grpc = grpc.advertised(), version = env!("CARGO_PKG_VERSION"), "proxy starts");

    let record = Record::new(uid.clone(), address.to_string(), grpc.advertised());
    let key = store.keys().proxy(&uid);
    let registration = Registration::new(&store, key, |spec| spec.proxy_lease, record.value(), Begin::Anew);
    let house = Gatehouse::default();
    let (reports, urge) = reports(&house);
    let (names, name) = watch::channel(identity(&cluster, &uid, None, None));
    let (events, views) = mpsc::channel(VIEWS);
    let streams: Streams<ProxyTalk> = Streams::new(dialer, store.mirror(), name, reports, events);
    let services = Services::new().with(ProxyServiceServer::new(Service {
        names: names.subscribe(),
        house: house.clone(),
        store: store.clone(),
        lease: registration.lease(),
        streams: streams.clone(),
        listen_address: address,
    }));
    let policy = Policy { absent: cli.when_absent(), reach: entrance.reach() };
    let listener = Listener { entrance, policy, keepalive: cli.keepalive, house: house.clone() };
    let control = Control {
        uid,
        cluster,
        store: store.clone(),
        house,
        registration: registration.clone(),
        record,
        names,
        urge,
        views,
        story: Story::default(),
    };

    let mut tasks = Tasks::new();
    tasks.spawn("signals", signals::end_on_request(shutdown.clone()));
    tasks.spawn("control", control.run(shutdown.clone()));
    tasks.spawn("clients", listener.run(shutdown.clone()));
    tasks.spawn("gRPC", grpc.serve(services, shutdown.clone()));
    tasks.spawn("etcd watch", store.watch(shutdown.clone()));
    tasks.spawn("registration", registration.clone().run(shutdown.clone()));
    tasks.spawn("streams", streams.run(shutdown.clone()));
    let outcome = tasks.run(shutdown, GRACE).await;
    // No sentinel waits for a proxy that is not registered.
    registration.farewell().await;
    tracing::info!("proxy ends");
    outcome
}

/// Heartbeats: what the gatehouse says at that instant.
fn reports(house: &Gatehouse) -> (Reports<ProxyReport>, stolon::rpc::Urge) {
    let house = house.clone();
    Reports::new(move || house.snapshot().report)
}
