//! A cluster on loopback: etcd, keepers, sentinels, proxies, with their command lines, so that each can be killed and
//! started again as it was.

use std::{path::PathBuf, time::Duration};

use rustix::process::Signal;

use crate::{
    etcd::Etcd,
    keys::Keys,
    ports::free_port,
    postmaster, proc,
    process::{Outcome, Process, complete},
    runner::Test,
    sql::Target,
    wait::eventually,
};

pub const CLUSTER: &str = "stolon-cluster";
/// Below which the cluster's keys are.
pub const BASE: &str = "stolon/cluster/stolon-cluster/";

/// How many of each, and what they are given.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub etcd: usize,
    pub keepers: usize,
    pub sentinels: usize,
    pub proxies: usize,
    /// Flags for all daemons.
    pub common: Vec<String>,
    /// Flags for keepers.
    pub keeper: Vec<String>,
    /// Environment of all daemons.
    pub env: Vec<(String, String)>,
    /// Initial cluster specification; none for the automatic one.
    pub spec: Option<serde_json::Value>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let none = Vec::new;
        ClusterOptions {
            etcd: 1,
            keepers: 3,
            sentinels: 2,
            proxies: 1,
            common: none(),
            keeper: none(),
            env: Vec::new(),
            spec: None,
        }
    }
}

/// One daemon that can be started again with the same command line.
pub struct Daemon {
    pub name: String,
    program: &'static str,
    args: Vec<String>,
    env: Vec<(String, String)>,
    process: Option<Process>,
}

impl Daemon {
    pub fn new(name: &str, program: &'static str, args: Vec<String>, env: &[(String, String)]) -> Daemon {
        Daemon { name: name.into(), program, args, env: env.to_vec(), process: None }
    }

    pub fn start(&mut self, test: &Test) {
        self.process = Some(test.spawn(&self.name, self.program, &self.args, &self.env));
    }

    pub fn process(&mut self) -> &mut Process {
        let name = &self.name;
        self.process.as_mut().unwrap_or_else(|| panic!("{name} was not started"))
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log_text).unwrap_or_default()
    }

    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    }
}

pub struct Keeper {
    pub uid: String,
    pub data_dir: PathBuf,
    pub pg_port: u16,
    pub daemon: Daemon,
}

impl Keeper {
    /// The postmaster's pid, as its lock file says; `None` when there is no such process.
    pub fn postmaster(&self) -> Option<u32> {
        postmaster::running(&self.data_dir.join("postgres"))
    }

    /// The process that ends PostgreSQL at the deadline when the keeper can't (R4).
    pub fn guard(&self) -> Option<u32> {
        proc::within(&self.data_dir).into_iter().find(|pid| proc::command_line(*pid).contains(" guard "))
    }

    /// Every process of this keeper: itself, what descends from it, its guard, and PostgreSQL, adopted or not.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = if self.daemon.pid() == 0 { Vec::new() } else { proc::tree(self.daemon.pid()) };
        all.extend(self.postmaster().map(proc::tree).unwrap_or_default());
        all.extend(proc::within(&self.data_dir));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The youngest first, which are clients' sessions: what they acknowledged last is already on its way to standbys.
    pub fn signal_all(&self, signal: Signal) {
        self.processes().into_iter().rev().for_each(|pid| proc::signal(pid, signal));
    }

    pub fn kill_postgres(&self) {
        let pid = self.postmaster().unwrap_or_else(|| panic!("{} runs no PostgreSQL", self.uid));
        proc::signal(pid, Signal::KILL);
    }

    pub fn target(&self) -> Target {
        Target::loopback(self.pg_port)
    }
}

pub struct Cluster {
    pub test: Test,
    pub etcd: Etcd,
    pub keepers: Vec<Keeper>,
    pub sentinels: Vec<Daemon>,
    pub proxies: Vec<Daemon>,
    pub proxy_ports: Vec<u16>,
}

/// A cluster of three on a loaded machine; normally a few seconds.
const FORM: Duration = Duration::from_secs(60);

impl Cluster {
    /// Everything running; not waited for.
    pub async fn launch(test: Test, options: ClusterOptions) -> Cluster {
        let etcd = Etcd::start(&test, options.etcd).await;
        let mut cluster =
            Cluster { test, etcd, keepers: vec![], sentinels: vec![], proxies: vec![], proxy_ports: vec![] };
        (0..options.keepers).for_each(|_| cluster.add_keeper(&options));
        (0..options.sentinels).for_each(|_| cluster.add_sentinel(&options));
        (0..options.proxies).for_each(|_| cluster.add_proxy(&options));
        cluster
    }

    /// Everything running, all standbys streaming, and the proxy answering.
    pub async fn start(test: Test, options: ClusterOptions) -> Cluster {
        let cluster = Cluster::launch(test, options).await;
        cluster.settled().await;
        cluster
    }

    fn common(&self, options: &ClusterOptions) -> Vec<String> {
        let mut args = vec!["--cluster-name".into(), CLUSTER.into(), "--store-endpoints".into(), self.etcd.endpoints()];
        args.extend(options.common.clone());
        args
    }

    /// Starts one more keeper, `postgresN`.
    pub fn add_keeper(&mut self, options: &ClusterOptions) {
        let (uid, pg_port) = (format!("postgres{}", self.keepers.len()), free_port());
        let data_dir = self.test.folder().join("data").join(&uid);
        let mut args = self.common(options);
        args.extend(["--id".into(), uid.clone(), "--data-dir".into(), data_dir.display().to_string()]);
        args.extend(["--port".into(), "0".into(), "--pg-port".into(), pg_port.to_string()]);
        args.extend(options.keeper.clone());
        let mut daemon = Daemon::new(&uid, "stolon-keeper", args, &options.env);
        daemon.start(&self.test);
        self.keepers.push(Keeper { uid, data_dir, pg_port, daemon });
    }

    pub fn add_sentinel(&mut self, options: &ClusterOptions) {
        let name = format!("sentinel{}", self.sentinels.len());
        let mut args = self.common(options);
        args.extend(["--port".into(), "0".into()]);
        if let Some(spec) = &options.spec {
            let path = self.test.folder().join("spec.json");
            std::fs::write(&path, spec.to_string()).expect("the specification's file");
            args.extend(["--initial-cluster-spec".into(), path.display().to_string()]);
        }
        let mut daemon = Daemon::new(&name, "stolon-sentinel", args, &options.env);
        daemon.start(&self.test);
        self.sentinels.push(daemon);
    }

    pub fn add_proxy(&mut self, options: &ClusterOptions) {
        let (name, port) = (format!("proxy{}", self.proxies.len()), free_port());
        let mut args = self.common(options);
        args.extend(["--port".into(), port.to_string(), "--grpc-port".into(), "0".into()]);
        let mut daemon = Daemon::new(&name, "stolon-proxy", args, &options.env);
        daemon.start(&self.test);
        self.proxies.push(daemon);
        self.proxy_ports.push(port);
    }

    pub fn start_keeper(&mut self, index: usize) {
        self.keepers[index].daemon.start(&self.test);
    }

    /// Clients' way in.
    pub fn proxy(&self) -> Target {
        Target::loopback(self.proxy_ports[0])
    }

    /// Each PostgreSQL itself.
    pub fn servers(&self) -> Vec<Target> {
        self.keepers.iter().map(Keeper::target).collect()
    }

    /// `stolonctl VERB ARGS` to its end.
    pub fn stolonctl(&self, verb: &str, args: &[&str]) -> Outcome {
        let mut command = self.test.command("stolonctl");
        command.args([verb, "--cluster-name", CLUSTER, "--store-endpoints", &self.etcd.endpoints()]).args(args);
        complete(self.test.folder(), &mut command, Duration::from_secs(60))
    }

    pub async fn keys(&self) -> Result<Keys, String> {
        Keys::read(&self.etcd, BASE).await
    }

    /// Index of the keeper that serves, and its epoch, once there is one.
    pub async fn primary(&self) -> (usize, u64) {
        let (uid, epoch) =
            eventually("a primary that serves", FORM, async || self.keys().await.and_then(|keys| keys.serving())).await;
        (self.index(&uid), epoch)
    }

    pub fn index(&self, uid: &str) -> usize {
        self.keepers.iter().position(|keeper| keeper.uid == uid).unwrap_or_else(|| panic!("unknown keeper {uid}"))
    }

    /// Index of the sentinel that leads: its process is found by its log's uid, else by its gRPC port.
    pub async fn leader(&self) -> usize {
        let pid_of = |port: u16| self.sentinels.iter().position(|daemon| listens(daemon.pid(), port));
        eventually("a leading sentinel", FORM, async || {
            let keys = self.keys().await?;
            let uid = keys.election.first().ok_or("no candidate")?;
            let info = keys.sentinels.get(uid).ok_or_else(|| format!("{uid} is not registered"))?;
            let port = info.grpc_address.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("no port")?;
            pid_of(port).ok_or_else(|| format!("no sentinel listens on {port}"))
        })
        .await
    }

    /// Waits until a primary serves, the proxy leads to it, and every other keeper's PostgreSQL streams from it.
    pub async fn settled(&self) -> (usize, u64) {
        let standbys = self.keepers.len() - 1;
        self.settled_with(standbys).await
    }

    pub async fn settled_with(&self, standbys: usize) -> (usize, u64) {
        let (primary, epoch) = self.primary().await;
        if !self.proxies.is_empty() {
            eventually("the proxy leads to a primary", FORM, async || {
                let answer = self.proxy().value("SELECT pg_is_in_recovery()").await?;
                if answer == "f" { Ok(()) } else { Err("it leads to a standby".to_owned()) }
            })
            .await;
        }
        self.streaming(standbys).await;
        (primary, epoch)
    }

    /// Waits until so many standbys stream from the primary, and have all of it.
    pub async fn streaming(&self, standbys: usize) {
        let sql = "SELECT count(*) FILTER (WHERE state = 'streaming' AND replay_lsn = pg_current_wal_lsn()), \
                   string_agg(application_name || ' ' || state, ', ') FROM pg_stat_replication";
        eventually(&format!("{standbys} standbys stream"), FORM, async || {
            let (uid, _) = self.keys().await?.serving()?;
            let rows = self.keepers[self.index(&uid)].target().query(sql).await?;
            let row = rows.into_iter().next().ok_or("no row")?;
            if row[0].parse() == Ok(standbys) { Ok(()) } else { Err(format!("{row:?} at {uid}")) }
        })
        .await;
    }
}

/// True when a process has a listening TCP socket on the port.
fn listens(pid: u32, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let wanted = format!(":{port:04X}");
    let inodes: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|f| f.len() > 9 && f[1].ends_with(&wanted) && f[3] == "0A")
        .map(|f| format!("socket:[{}]", f[9]))
        .collect();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .any(|to| inodes.iter().any(|i| to.as_os_str() == i.as_str()))
}
