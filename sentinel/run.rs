//! One sentinel from its start to its end: puts the parts together, and takes them apart in order. Leadership and
//! registration are given up last, when nothing acts on them any more.

use std::time::Duration;

use stolon::{
    model::{SentinelUid, registration::SentinelInfo},
    rpc::{Listener, Services},
    store::{Begin, Registration, Store},
    task::{Shutdown, Tasks, signals},
    wire::v1::{admin_service_server::AdminServiceServer, sentinel_service_server::SentinelServiceServer},
};

use crate::{
    admin::Admin,
    cli::{Cli, read_spec},
    election::Election,
    hub::Hub,
    lead::Leader,
    mood::Mood,
    service::Service,
};

/// Shorter than that of keepers and proxies, which must survive an election of etcd's own (R1): a leadership that lapses
/// meanwhile stops nobody, and until the key of a dead leader is gone nobody leads. It survives a stop of two seconds.
const TTL: Duration = Duration::from_secs(3);
/// For all tasks to end.
const GRACE: Duration = Duration::from_secs(1);

/// A fresh uid: 8 hexadecimal digits, as each start has one of its own.
pub fn new_uid() -> SentinelUid {
    SentinelUid::parse(format!("{:08x}", rand::random::<u32>())).expect("hexadecimal digits are a valid uid")
}

/// Runs until the shutdown, SIGTERM or SIGINT. An error is one line for people. Needs a tokio runtime.
pub async fn run(cli: Cli, uid: SentinelUid, shutdown: Shutdown) -> Result<(), String> {
    let initial = cli.initial_cluster_spec.as_deref().map(read_spec).transpose()?;
    let store = Store::new(&cli.store)?;
    let listener = Listener::bind(&cli.grpc, cli.port, "--port")?;
    let cluster = cli.store.cluster_name.clone();
    tracing::info!(%uid, %cluster, grpc = listener.advertised(), version = env!("CARGO_PKG_VERSION"), "sentinel starts");

    let registration = register(&store, &uid, &listener)?;
    let election = Election::new(&store, &uid, &registration);
    let (hub, mood) = (Hub::new(), Mood::new());
    let admin = Admin {
        store: store.clone(),
        hub: hub.clone(),
        election: election.clone(),
        mood: mood.clone(),
        lease: registration.lease(),
        cluster: cluster.clone(),
        uid: uid.clone(),
    };
    let services = Services::new()
        .with(SentinelServiceServer::new(Service::new(hub.clone(), cluster)))
        .with(AdminServiceServer::new(admin));
    let leader = Leader::new(&store, &hub, &election, &mood, initial);

    let mut tasks = Tasks::new();
    tasks.spawn("signals", signals::end_on_request(shutdown.clone()));
    tasks.spawn("etcd watch", store.watch(shutdown.clone()));
    tasks.spawn("registration", registration.clone().run(shutdown.clone()));
    tasks.spawn("election", election.run(shutdown.clone()));
    tasks.spawn("gRPC", listener.serve(services, shutdown.clone()));
    tasks.spawn("leader", leader.run(shutdown.clone()));
    let outcome = tasks.run(shutdown, GRACE).await;
    // The key of the election hangs on the same lease: another sentinel leads at once.
    registration.farewell().await;
    tracing::info!("sentinel ends");
    outcome
}

fn register(store: &Store, uid: &SentinelUid, listener: &Listener) -> Result<Registration, String> {
    let info = SentinelInfo { uid: uid.clone(), grpc_address: listener.advertised(), extra: Default::default() };
    let value =
        serde_json::to_vec(&info).map_err(|error| format!("the registration can't be written down: {error}"))?;
    Ok(Registration::new(store, store.keys().sentinel(uid), TTL, value, Begin::Anew))
}
