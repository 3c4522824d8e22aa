//! The layer against real PostgreSQL. Each test has nodes of its own in a temporary folder; dropping a node kills whatever
//! runs on it. `STOLON_TEST_PG_BIN` names a folder with another version's programs.

mod copies;
mod disk;
mod follow;
mod initdb;
mod kill;
mod lifecycle;
mod look;
mod promote;
mod recruit;
mod rewind;
mod settings;
mod synchronous;

use std::{
    fs,
    future::Future,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use stolon::model::{
    DbUid,
    spec::NewConfig,
    view::{Access, Settings},
};
use tempfile::TempDir;

use super::*;

/// Longer than anything here takes on a busy machine; a test that meets it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const PASSWORD: &str = r"se:cr'e\t-9f3a";

/// One instance in a folder of its own.
pub(crate) struct Node {
    pub(crate) instance: Instance,
    db: DbUid,
    settings: Settings,
    _folder: TempDir,
    /// Kept, so that all copies that live at one time are of one database.
    template_kept: Option<Arc<Node>>,
}

/// A database made once and copied by every test that needs one; it goes when nobody holds it any more.
fn template() -> Arc<Node> {
    static TEMPLATE: Mutex<Weak<Node>> = Mutex::new(Weak::new());
    let mut template = TEMPLATE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(there) = template.upgrade() {
        return there;
    }
    let made = std::thread::scope(|scope| {
        let make = || {
            let node = Node::empty("template");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(node.instance.initdb(&NewConfig::default())).unwrap();
            Arc::new(node)
        };
        scope.spawn(make).join().unwrap()
    });
    *template = Arc::downgrade(&made);
    made
}

impl Node {
    /// Without a database, with passwords.
    fn empty(name: &str) -> Node {
        Node::with(name, scram())
    }

    fn with(name: &str, credentials: Credentials) -> Node {
        let folder = tempfile::Builder::new().prefix("keeper-pg-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let keeper_dir = folder.path().join(name);
        let run_as = RunAs::resolve(None).unwrap();
        match &run_as {
            Some(user) => user.prepare(&keeper_dir).unwrap(),
            None => fs::create_dir(&keeper_dir).unwrap(),
        }
        let config = InstanceConfig {
            socket_dir: keeper_dir.canonicalize().unwrap(),
            keeper_dir,
            binaries: binaries(),
            run_as,
            credentials,
            listen_address: "127.0.0.1".into(),
            port: free_port(),
        };
        let db = DbUid::parse(name).unwrap();
        Node {
            instance: Instance::new(config).unwrap(),
            db,
            settings: settings(),
            _folder: folder,
            template_kept: None,
        }
    }

    /// A stopped primary; all of them have the same system id and the same WAL.
    pub(crate) fn copied(name: &str) -> Node {
        let (template, mut node) = (template(), Node::empty(name));
        copy(&template.instance.data_dir(), &node.instance.data_dir());
        node.template_kept = Some(template);
        node
    }

    /// A running primary that accepts connections.
    pub(crate) async fn primary(name: &str) -> (Node, Postmaster) {
        let node = Node::copied(name);
        let postmaster = node.start(ConfRole::Primary).await;
        (node, postmaster)
    }

    /// A running standby that streams from `upstream`.
    async fn standby(name: &str, upstream: &Node) -> (Node, Postmaster) {
        let node = Node::copied(name);
        node.slot_at(upstream).await;
        let postmaster = node.start(node.following(upstream)).await;
        node.wait_streaming(upstream).await;
        (node, postmaster)
    }

    fn following(&self, upstream: &Node) -> ConfRole {
        ConfRole::Standby { upstream: Some(("127.0.0.1".into(), upstream.port())) }
    }

    fn port(&self) -> u16 {
        self.instance.config().port
    }

    fn server(&self) -> Server {
        Server { host: "127.0.0.1".into(), port: self.port() }
    }

    fn configure(&self, role: ConfRole) -> ConfChange {
        self.configure_sync(role, "")
    }

    fn configure_sync(&self, role: ConfRole, names: &str) -> ConfChange {
        let input = ConfInput {
            db: &self.db,
            settings: &self.settings,
            role,
            synchronous_standby_names: names.into(),
            admit: Admit::Everybody,
        };
        self.instance.write_conf(&input).unwrap()
    }

    pub(crate) async fn start(&self, role: ConfRole) -> Postmaster {
        self.configure(role);
        let postmaster = Postmaster::spawn(&self.instance).unwrap();
        within("the start", postmaster.wait_status(&[PmStatus::Ready])).await.unwrap();
        postmaster
    }

    /// The first column of each row.
    async fn try_sql(&self, statement: &str) -> Result<Vec<String>, PgError> {
        sql::session(sql::local(&self.instance), PATIENCE, "a test", async |client| {
            let rows = sql::rows(&client, statement).await?;
            Ok(rows.iter().map(|row| row.get(0).unwrap_or_default().to_owned()).collect())
        })
        .await
    }

    async fn sql(&self, statement: &str) -> String {
        let rows = self.try_sql(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        rows.into_iter().next().unwrap_or_default()
    }

    async fn lsn(&self, expression: &str) -> stolon::model::Lsn {
        self.sql(&format!("SELECT {expression}")).await.parse().unwrap()
    }

    async fn wait_sql(&self, statement: &str, wanted: &str) {
        let what = format!("{statement} = {wanted}");
        until(&what, async || {
            self.try_sql(statement).await.is_ok_and(|rows| rows.first().is_some_and(|r| r == wanted))
        })
        .await;
    }

    /// Makes this node's slot on another.
    async fn slot_at(&self, upstream: &Node) {
        let slots = upstream.try_sql("SELECT slot_name FROM pg_replication_slots").await.unwrap();
        let slots = slots.into_iter().chain([self.db.slot()]).collect();
        upstream.instance.refresh_slots(&slots).await.unwrap();
    }

    async fn wait_streaming(&self, upstream: &Node) {
        let name = self.db.slot();
        let statement = format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'");
        upstream.wait_sql(&statement, "streaming").await;
    }

    /// Waits until this standby has replayed what the primary has flushed now.
    async fn catch_up(&self, primary: &Node) {
        let lsn = primary.lsn("pg_current_wal_flush_lsn()").await;
        self.wait_sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'"), "t").await;
    }

    /// Ids of all processes that work in the data directory.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let data = self.instance.data_dir();
        let here = move || {
            let folder = proc::Folder::at(&data);
            let works_here = |pid: &u32| folder.is_some() && proc::Folder::of_process(*pid) == folder;
            proc::all().filter(works_here).collect::<Vec<_>>()
        };
        runas::as_user(self.instance.run_as(), here).unwrap()
    }

    /// Starts sessions that insert rows one by one until their end.
    fn writers(&self, count: usize) -> Writers {
        let tasks = (0..count).map(|_| {
            let config = sql::local(&self.instance);
            tokio::spawn(async move {
                let _ = sql::session(config, PATIENCE, "write", async |client| {
                    loop {
                        client.simple_query("INSERT INTO t VALUES (1, repeat('x', 300))").await?;
                    }
                    #[expect(unreachable_code)]
                    Ok(())
                })
                .await;
            })
        });
        Writers(tasks.collect())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let file = fs::read_to_string(self.instance.data_dir().join("postmaster.pid")).unwrap_or_default();
        kill_postgres(&self.instance.data_dir(), None, self.instance.run_as());
        release(&file);
    }
}

/// Takes away the shared memory of a killed server, of which the kernel has few: nobody starts it again. Its lock file
/// names the postmaster (line 1) and the segment's number (line 7); one that is in use is not touched.
fn release(file: &str) {
    let lines: Vec<&str> = file.lines().collect();
    let Some(number) = lines.get(6).and_then(|line| line.split_whitespace().nth(1)) else { return };
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Columns: key, number, mode, size, maker, last user, processes that have it.
        match rows.find(|row| row.len() > 6 && row[1] == number && row[4] == lines[0]).map(|row| row[6] == "0") {
            Some(true) => return drop(Command::new("ipcrm").args(["-m", number]).output()),
            Some(false) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            _ => return,
        }
    }
}

/// Sessions that write; dropped, they end.
struct Writers(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Writers {
    fn drop(&mut self) {
        self.0.iter().for_each(|task| task.abort());
    }
}

fn scram() -> Credentials {
    let login = |name: &str, text: &str| Login { name: name.into(), auth: Auth::Scram(Secret::new(text)) };
    Credentials { superuser: login("super user", PASSWORD), replication: login("rep-l", "re:pl'-77\\") }
}

fn trust() -> Credentials {
    let login = |name: &str| Login { name: name.into(), auth: Auth::Trust };
    Credentials { superuser: login("postgres"), replication: login("repl") }
}

/// Nothing here cuts the power, so nothing has to reach the disk, whose slowness would be that of other tests as well.
fn settings() -> Settings {
    let parameters = [("shared_buffers", "16MB"), ("log_min_messages", "fatal"), ("fsync", "off")];
    Settings {
        parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        hba: None,
        max_standbys: 4,
        additional_wal_senders: 2,
        automatic_restart: false,
        access: Access::Everywhere,
    }
}

fn binaries() -> Binaries {
    let given = std::env::var_os("STOLON_TEST_PG_BIN").map(PathBuf::from);
    Binaries::find(given.as_deref()).unwrap()
}

/// A port that nobody listens on, below the range that the kernel hands out to clients.
fn free_port() -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut port = next.unwrap_or_else(|| 20_000 + (std::process::id() % 1200) as u16 * 10);
    loop {
        port = if port >= 32_000 { 20_000 } else { port + 1 };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            *next = Some(port);
            return port;
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// `future`, within the tests' patience.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Looks again and again until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A figure for people, shown by `--nocapture`.
pub(crate) fn figure(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (Some(worst), Some(middle)) = (times.last(), times.get(times.len() / 2)) else { return };
    println!("{what}: median {middle:.1?}, worst {worst:.1?} of {}", times.len());
}
