//! One sentinel from its start to its end: puts the parts together, and takes them apart in order. Leadership and
//! registration are given up last, when nothing acts on them any more.

use std::time::Duration;

use stolon::{
    model::{SentinelUid, registration::SentinelInfo},
    rpc::{Listener, Services},
    store::{Begin, Registration, Store},
    task::{Shutdown, Tasks},
    wire::v1::{admin_service_server::AdminServiceServer, sentinel_service_server::SentinelServiceServer},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
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

/// R1: survives an ordinary election of etcd's own.
const TTL: Duration = Duration::from_secs(5);
/// For all tasks to end.
const GRACE: Duration = Duration::from_secs(1);
/// For etcd to take the registration back; without it, it runs out.
const FAREWELL: Duration = Duration::from_secs(2);

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
    tasks.spawn("signals", signals(shutdown.clone()));
    tasks.spawn("etcd watch", store.watch(shutdown.clone()));
    tasks.spawn("registration", registration.clone().run(shutdown.clone()));
    tasks.spawn("election", election.run(shutdown.clone()));
    tasks.spawn("gRPC", listener.serve(services, shutdown.clone()));
    tasks.spawn("leader", leader.run(shutdown.clone()));
    let outcome = tasks.run(shutdown, GRACE).await;
    farewell(&registration).await;
    outcome
}

fn register(store: &Store, uid: &SentinelUid, listener: &Listener) -> Result<Registration, String> {
    let info = SentinelInfo { uid: uid.clone(), grpc_address: listener.advertised(), extra: Default::default() };
    let value =
        serde_json::to_vec(&info).map_err(|error| format!("the registration can't be written down: {error}"))?;
    Ok(Registration::new(store, store.keys().sentinel(uid), TTL, value, Begin::Anew))
}

/// The key of the election hangs on the same lease: another sentinel leads at once.
async fn farewell(registration: &Registration) {
    match timeout(FAREWELL, registration.end()).await {
        Ok(Ok(())) => tracing::info!("sentinel ends"),
        Ok(Err(error)) => tracing::warn!(%error, "sentinel ends; its registration stays until its lease runs out"),
        Err(_) => tracing::warn!("sentinel ends; etcd did not answer, its registration stays until its lease runs out"),
    }
}

async fn signals(shutdown: Shutdown) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals can't be received: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let name = tokio::select! {
        () = shutdown.requested() => return Ok(()),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "asked to end");
    shutdown.trigger();
    Ok(())
}
