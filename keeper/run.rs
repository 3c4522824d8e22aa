//! Puts a keeper together, runs it, and ends it in order: PostgreSQL first, then the registration, then the rest.

use std::{sync::Arc, time::Duration};

use rand::random;
use stolon::{
    model::ClusterName,
    rpc::{Dialer, KeeperTalk, Listener, Services, Streams},
    store::{Begin, Registration, Store},
    task::{Shutdown, Tasks, clock, signals::EndRequests},
    wire::{Identity, v1::keeper_service_server::KeeperServiceServer},
};
use tokio::sync::{mpsc, watch};

use crate::{
    cli::Cli,
    converge::Converge,
    ground::Ground,
    guard::{Armed, Found, Keep, Program, keep},
    inherit::{Inheritance, inherit},
    pg::Sampler,
    plan::Leaving,
    probe::probe,
    report::{Fixed, info},
    senses,
    service::{Service, identity},
    shared::Shared,
    state::State,
    steps::Hands,
};

/// Idle cost against the age of positions; WAL that flows is seen twice within the interval of suspicion (R15).
const SAMPLE: Duration = Duration::from_millis(250);
/// How long a primary that is asked to end waits for its successor.
const HAND_OVER: Duration = Duration::from_secs(5);
/// For all tasks to end.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a keeper to its end. An error is one line for people.
pub async fn run(cli: Cli) -> Result<(), String> {
    let store = Store::new(&cli.store)?;
    let listener = Listener::bind(&cli.grpc, cli.port, "--port")?;
    let dialer = Dialer::new(&cli.grpc)?;
    let ground = Ground::prepare(&cli)?;
    let fixed = Arc::new(fixed(&cli, &ground, listener.advertised()));
    announce(&cli, &ground, &listener);
    let found = Found::look(ground.instance.keeper_dir()).await;
    let (shared, begin) = known(&ground, &store, found.as_ref().and_then(|found| found.armed)).await?;
    let user = ground.instance.run_as().map(|user| user.name().to_owned());
    let guard = Keep::new(ground.instance.keeper_dir().to_owned(), user, Program::own(), found);
    let sampler = Sampler::new(ground.instance.clone(), SAMPLE);
    let hands = Hands {
        shared: shared.clone(),
        instance: ground.instance.clone(),
        store: store.clone(),
        files: ground.files.clone(),
        place: ground.place.clone(),
        fixed: fixed.clone(),
        sampler: sampler.clone(),
        guard: guard.watch(),
    };
    look(&hands, &ground).await;
    let value = shared.look(|state, _| serde_json::to_vec(&info(state, &fixed)).unwrap_or_default());
    let registration =
        Registration::new(&store, store.keys().keeper(&ground.uid), |spec| spec.keeper_lease, value, begin);

    let (identities, identity) = watch::channel(shared.look(|state, _| identity(&cli.store.cluster_name, state)));
    let (events, views) = mpsc::channel(16);
    let streams: Streams<KeeperTalk> = Streams::new(dialer, store.mirror(), identity, shared.reports(), events);
    let service = Service {
        cluster: cli.store.cluster_name.clone(),
        shared: shared.clone(),
        store: store.clone(),
        streams: streams.clone(),
        fixed,
    };
    let ending = streams.clone();
    let (rest, body) = (Shutdown::new(), Shutdown::new());
    let mut tasks = Tasks::new();
    tasks.spawn("etcd watch", store.clone().watch(rest.clone()));
    tasks.spawn("registration", registration.clone().run(rest.clone()));
    tasks.spawn("streams", streams.run(rest.clone()));
    tasks.spawn("guard", guarded(shared.clone(), guard, rest.clone()));
    let services = Services::new().with(KeeperServiceServer::new(service));
    tasks.spawn("gRPC", listener.serve(services, rest.clone()));
    tasks.spawn("sampler", sampler.clone().run(rest.clone()));
    let name = cli.store.cluster_name.clone();
    sense(&mut tasks, &rest, &shared, &hands, &registration, views, (name, identities));

    let converge = Converge::new(hands, registration.clone()).run(body.clone());
    let ended = until_done(converge, &mut tasks, &cli, &shared, &body).await;
    ending.hush();
    end(&cli, &registration, ended, tasks, rest).await
}

/// The first line in the log, with the name that may have been made up a moment ago.
fn announce(cli: &Cli, ground: &Ground, listener: &Listener) {
    let postgres = ground.instance.binaries().version();
    tracing::info!(
        id = %ground.uid,
        cluster = %cli.store.cluster_name,
        data_dir = %ground.instance.keeper_dir().display(),
        grpc = listener.advertised(),
        postgres = format!("{}.{}", postgres.major, postgres.minor),
        version = env!("CARGO_PKG_VERSION"),
        "keeper starts"
    );
}

/// Without its keeper an idle guard ends, and one that is armed holds its deadline.
async fn guarded(shared: Shared, guard: Keep, rest: Shutdown) -> Result<(), String> {
    tokio::select! {
        () = rest.requested() => Ok(()),
        ended = keep(shared, guard) => ended,
    }
}

fn fixed(cli: &Cli, ground: &Ground, grpc_address: String) -> Fixed {
    Fixed {
        boot_uuid: format!("{:016x}{:016x}", random::<u64>(), random::<u64>()),
        version: ground.instance.binaries().version(),
        can_be_master: cli.can_be_master,
        can_be_synchronous_replica: cli.can_be_synchronous_replica,
        pg_address: ground.advertised.clone(),
        grpc_address,
        open_to_all: ground.open_to_all,
    }
}

/// What the directory remembers, and what runs on it.
async fn known(ground: &Ground, store: &Store, armed: Option<Armed>) -> Result<(Shared, Begin), String> {
    let (db, journal) = (ground.files.db_state(), ground.files.journal());
    let (db, journal) = (db.map_err(|e| e.to_string())?, journal.map_err(|e| e.to_string())?);
    let parameters = crate::steps::initial_parameters(&db);
    let mut state = State::new(ground.uid.clone(), ground.state.clone(), db, journal, clock::now());
    state.parameters = parameters;
    state.folder = Some(ground.place.folder());
    state.directory = ground.instance.keeper_dir().display().to_string();
    let Inheritance { server, begin } = inherit(ground, &mut state, store, armed).await?;
    let shared = Shared::new(state);
    if let Some((server, phase)) = server {
        shared.started(&server, phase);
    }
    Ok((shared, begin))
}

async fn look(hands: &Hands, ground: &Ground) {
    if let Err(error) = hands.look_at_control().await {
        tracing::error!("{error}");
    }
    let unknown = hands.shared.look(|state, _| state.system_id != 0 && state.db.uid.is_none());
    if unknown {
        tracing::error!(
            "--data-dir {}: it holds a PostgreSQL database that no keeper of this cluster made; it is left alone unless the \
             cluster specification names this keeper (initMode existing)",
            ground.instance.keeper_dir().display()
        );
    }
}

type Views = mpsc::Receiver<stolon::rpc::FromSentinel<stolon::model::view::KeeperView>>;

fn sense(
    tasks: &mut Tasks,
    rest: &Shutdown,
    shared: &Shared,
    hands: &Hands,
    registration: &Registration,
    views: Views,
    (cluster, identities): (ClusterName, watch::Sender<Identity>),
) {
    let until = |task: std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>>| {
        let rest = rest.clone();
        async move {
            tokio::select! {
                () = rest.requested() => Ok(()),
                ended = task => ended,
            }
        }
    };
    let store = hands.store.clone();
    tasks.spawn("mirror", until(Box::pin(senses::mirror(shared.clone(), store.clone()))));
    tasks.spawn("views", until(Box::pin(senses::views(shared.clone(), store.clone(), views))));
    tasks.spawn("lease", until(Box::pin(senses::lease(shared.clone(), registration.lease()))));
    tasks.spawn("exits", until(Box::pin(senses::exits(shared.clone()))));
    tasks.spawn("adopted", until(Box::pin(senses::adopted(shared.clone()))));
    tasks.spawn("deadline", until(Box::pin(senses::deadline(shared.clone()))));
    tasks.spawn("authority", until(Box::pin(senses::authority(shared.clone(), store))));
    tasks.spawn("samples", until(Box::pin(senses::samples(shared.clone(), hands.sampler.clone()))));
    tasks.spawn(
        "commits",
        until(Box::pin(senses::commits(shared.clone(), hands.instance.clone(), hands.sampler.clone()))),
    );
    tasks.spawn("probe", until(Box::pin(probe(shared.clone(), hands.instance.clone()))));
    tasks.spawn("identity", until(Box::pin(rename(shared.clone(), registration.clone(), cluster, identities))));
}

/// Streams are opened anew when the hello changes: another lease, or a cluster joined.
async fn rename(
    shared: Shared,
    registration: Registration,
    cluster: ClusterName,
    identities: watch::Sender<Identity>,
) -> Result<(), String> {
    let mut lease = registration.lease();
    loop {
        let now = shared.look(|state, _| identity(&cluster, state));
        let held = lease.borrow_and_update().as_ref().map(|lease| lease.id).unwrap_or_default();
        let now = Identity { lease: held, ..now };
        identities.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        if lease.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// How the keeper's work came to its end.
enum Ended {
    /// PostgreSQL is stopped.
    Stopped,
    /// PostgreSQL is left to the next keeper.
    Left,
    Failed(String),
}

async fn until_done(
    converge: impl Future<Output = Result<(), String>>,
    tasks: &mut Tasks,
    cli: &Cli,
    shared: &Shared,
    body: &Shutdown,
) -> Ended {
    let mut requests = match EndRequests::listen() {
        Ok(requests) => requests,
        Err(error) => return Ended::Failed(error),
    };
    let mut converge = std::pin::pin!(converge);
    loop {
        tokio::select! {
            ended = &mut converge => return match ended {
                Ok(()) => Ended::Stopped,
                Err(error) => Ended::Failed(error),
            },
            ended = tasks.next_end() => {
                let what = ended.map_or_else(String::new, |ended| match ended.result {
                    Ok(()) => format!("task {} ended", ended.task),
                    Err(error) => format!("{}: {error}", ended.task),
                });
                return Ended::Failed(what);
            }
            () = requests.next() => {}
        }
        if cli.leave_postgres {
            tracing::info!("PostgreSQL is left to the next keeper");
            body.trigger();
            return Ended::Left;
        }
        leave(shared);
    }
}

/// The first request hands over; a second one does not wait for a successor.
fn leave(shared: &Shared) {
    shared.change(|state, now| {
        state.leaving = match state.leaving {
            Leaving::No => Leaving::HandOver { until: now + HAND_OVER },
            Leaving::HandOver { .. } => Leaving::HandOver { until: now },
        };
    });
    shared.urge(String::new());
}

async fn end(cli: &Cli, registration: &Registration, ended: Ended, tasks: Tasks, rest: Shutdown) -> Result<(), String> {
    if matches!(ended, Ended::Stopped) && !cli.leave_postgres {
        // Nothing that the lease stood for runs any more.
        registration.farewell().await;
    }
    rest.trigger();
    let rest = tasks.run(rest, GRACE).await;
    match ended {
        Ended::Failed(problem) => Err(problem),
        Ended::Stopped | Ended::Left => rest,
    }
}
