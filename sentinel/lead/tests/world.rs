//! A real etcd, sentinels in this process, and keepers that only pretend to have a PostgreSQL.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use stolon::{
    model::{
        ClusterName, Epoch, KeeperUid, LeaseId, Lsn, WalPosition,
        cluster::Stage,
        registration::{KeeperInfo, Recruit},
        report::{AuthorityReport, KeeperReport, PostgresReport, PostgresState},
        view::{KeeperView, Role},
    },
    rpc::{Dialer, FromSentinel, KeeperTalk, Reports, Streams, TlsArgs, Urge},
    store::{Begin, LeaseState, Registration, Store, Txn},
    task::{Shutdown, Tasks},
    wire::Identity,
};
use tokio::sync::{mpsc, watch};

use crate::{
    cli::Cli,
    run::{new_uid, run},
};

/// An etcd of its own, gone with its folder when dropped.
pub struct Etcd {
    process: Child,
    folder: PathBuf,
    url: String,
}

/// Below the range that outgoing connections take theirs from.
fn free_port() -> u16 {
    let mut tries = std::iter::repeat_with(|| rand::random_range(20_000..32_000));
    tries.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Etcd {
    pub fn start() -> Etcd {
        let folder =
            std::env::temp_dir().join(format!("sentinel-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        std::fs::create_dir_all(&folder).unwrap();
        let (url, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.join("data")).args(["--initial-cluster", &format!("default={peer}")]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
        Etcd { process: command.spawn().expect("etcd is in PATH"), folder, url }
    }

    pub fn cli(&self) -> Cli {
        let flags = ["x", "--cluster-name", "c", "--port", "0", "--store-endpoints", &self.url];
        stolon::cli::try_parse("STSENTINELTEST", flags).unwrap()
    }

    pub fn store(&self) -> Store {
        Store::new(&self.cli().store).unwrap()
    }

    /// A sentinel that ends in good order at the shutdown.
    pub fn sentinel(&self, tasks: &mut Tasks) -> Shutdown {
        let shutdown = Shutdown::new();
        tasks.spawn("sentinel", run(self.cli(), new_uid(), shutdown.clone()));
        shutdown
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a pretended keeper has in its memory and on its disk.
#[derive(Default)]
struct Memory {
    view: Option<KeeperView>,
    promised: Epoch,
    dead: bool,
}

pub struct Fake {
    memory: Arc<Mutex<Memory>>,
    urge: Urge,
}

impl Fake {
    pub fn start(etcd: &Etcd, uid: &str, tasks: &mut Tasks) -> Fake {
        let uid = KeeperUid::parse(uid).unwrap();
        let (store, memory, shutdown) = (etcd.store(), Arc::new(Mutex::new(Memory::default())), Shutdown::new());
        let key = store.keys().keeper(&uid);
        let value = serde_json::to_vec(&info(&uid)).unwrap();
        let registration = Registration::new(&store, key, |_| Duration::from_secs(5), value, Begin::Anew);
        let (make, name) = (memory.clone(), uid.clone());
        let (reports, urge) = Reports::new(move || report(&mut make.lock().unwrap(), &name));
        let cluster_name = ClusterName::parse("c").unwrap();
        let identity = Identity { cluster_name, cluster_uid: None, uid: uid.to_string(), lease: LeaseId::NONE };
        let (sender, events) = mpsc::channel(1);
        let (named, identity) = watch::channel(identity);
        tasks.spawn("identity", registered(registration.lease(), named));
        let dialer = Dialer::with_files(&TlsArgs::default()).unwrap();
        let streams = Streams::<KeeperTalk>::new(dialer, store.mirror(), identity, reports, sender);
        tasks.spawn("watch", store.clone().watch(shutdown.clone()));
        tasks.spawn("streams", streams.run(shutdown.clone()));
        tasks.spawn("views", follow(store, registration.clone(), uid, memory.clone(), urge.clone(), events));
        tasks.spawn("registration", registration.run(shutdown));
        Fake { memory, urge }
    }

    pub fn die(&self) {
        self.memory.lock().unwrap().dead = true;
        self.urge.now(String::new());
    }
}

/// The hello names the lease of the registration.
async fn registered(
    mut lease: watch::Receiver<Option<LeaseState>>,
    identity: watch::Sender<Identity>,
) -> Result<(), String> {
    loop {
        let id = lease.borrow_and_update().as_ref().map_or(LeaseId::NONE, |lease| lease.id);
        identity.send_if_modified(|identity| std::mem::replace(&mut identity.lease, id) != id);
        if lease.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn info(uid: &KeeperUid) -> KeeperInfo {
    let info = serde_json::json!({"infoUID": "a", "uid": uid, "bootUUID": "b",
        "postgresBinaryVersion": {"Maj": 15, "Min": 1}, "pgAddress": "127.0.0.1", "pgPort": 1});
    serde_json::from_value(info).unwrap()
}

/// Takes views in, and says so; a primary that lives writes `ready`.
async fn follow(
    store: Store,
    registration: Registration,
    uid: KeeperUid,
    memory: Arc<Mutex<Memory>>,
    urge: Urge,
    mut events: mpsc::Receiver<FromSentinel<KeeperView>>,
) -> Result<(), String> {
    while let Some(event) = events.recv().await {
        let view = event.view;
        let dead = {
            let mut memory = memory.lock().unwrap();
            if memory.view.as_ref().is_some_and(|known| known.revision >= view.revision) {
                continue;
            }
            memory.view = Some(view.clone());
            memory.dead
        };
        urge.now(event.traceparent);
        let lease = registration.lease().borrow().as_ref().map(|lease| lease.id);
        if let (true, false, None, Some(lease)) = (view.names_primary(&uid), dead, &view.fencing, lease) {
            let ready = serde_json::json!({"keeper": uid, "db": view.primary.unwrap().db, "epoch": view.epoch,
                "address": "127.0.0.1", "port": 1, "timeline": view.epoch.0, "switchLSN": 1000});
            let key = store.keys().ready();
            store.transact(&Txn::new().put_on(lease, key, ready.to_string())).await.unwrap();
        }
    }
    Ok(())
}

fn report(memory: &mut Memory, uid: &KeeperUid) -> KeeperReport {
    let Some((view, assignment)) = memory.view.as_ref().and_then(|view| Some((view, view.assignment.as_ref()?))) else {
        return KeeperReport::default();
    };
    let position = WalPosition { timeline: 1, lsn: Lsn(1000) };
    let mark = view.fencing.as_ref();
    let primary = matches!(assignment.role, Role::Primary { .. });
    let recruits = !primary && mark.is_some_and(|mark| mark.stage == Stage::Recruit);
    if let Some(mark) = mark.filter(|_| recruits || view.names_primary(uid)) {
        memory.promised = mark.epoch;
    }
    let stopped = primary && (memory.dead || mark.is_some() || !view.names_primary(uid));
    let authority = (primary && mark.is_none() && view.names_primary(uid))
        .then_some(AuthorityReport { epoch: view.epoch, remaining: Duration::from_secs(4) });
    KeeperReport {
        view_revision: view.revision,
        promised: memory.promised,
        recruit: recruits.then_some(Recruit { epoch: view.epoch.next(), position }),
        authority,
        postgres: PostgresReport {
            state: match (primary, stopped) {
                (true, true) => PostgresState::Stopped,
                (true, false) => PostgresState::Primary,
                _ => PostgresState::Standby,
            },
            db: Some(assignment.db.clone()),
            generation: assignment.generation,
            system_id: 7,
            position: Some(position),
            probe_age: Some(Duration::ZERO),
            wal_streaming: !primary && !recruits,
            parameters: [("max_connections".to_owned(), "100".to_owned())].into(),
            ..PostgresReport::default()
        },
        ..KeeperReport::default()
    }
}
