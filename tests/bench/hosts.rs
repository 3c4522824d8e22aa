//! The cluster that is measured: three database hosts, each with etcd, keeper and sentinel, and one with a proxy; every
//! host a network namespace with an address of its own, mutual TLS between the daemons, passwords for PostgreSQL,
//! default settings else. Hosts can be struck and mended; who leads where can be arranged. Knows no measurements.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use stolon_tests::{
    Test, bins,
    certs::{Authority, Holder},
    cluster::{BASE, CLUSTER},
    etcd::{Etcd, Place},
    eventually,
    keys::Keys,
    netns::{Host, Network},
    postmaster, proc,
    process::{Outcome, Process, complete},
    sql::Target,
};

use crate::disks::Disks;

/// Hosts with a database; the proxy's follows them.
pub const DATABASES: usize = 3;
/// Hosts that a network for this cluster needs.
pub const HOSTS: usize = DATABASES + 1;
const PROXY_PORT: u16 = 25432;
const PASSWORD: &str = "correct horse battery staple";
/// For whatever a cluster does by itself: forming, rejoining, electing a leader.
pub const WAIT: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Keeper,
    Sentinel,
    Proxy,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Keeper => "stolon-keeper",
            Program::Sentinel => "stolon-sentinel",
            Program::Proxy => "stolon-proxy",
        }
    }
}

/// A daemon on its host, with what it takes to start it again.
struct Part {
    host: usize,
    program: Program,
    process: Process,
}

/// What the cluster is made with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Initial cluster specification; `None` for the automatic one.
    pub spec: Option<Value>,
    /// For `--otlp-endpoint`.
    pub collector: Option<String>,
    /// A disk of its own for each host's data.
    pub disks: bool,
}

pub struct Hosts<'n> {
    parts: Vec<Part>,
    pub etcd: Etcd,
    holders: Vec<Holder>,
    operator: Holder,
    setup: Setup,
    pub network: &'n Network,
    /// Empty unless asked for; before the folder that they are mounted in.
    pub disks: Disks,
    /// The last to go: ends whatever still works in its folder.
    pub test: Test,
}

impl<'n> Hosts<'n> {
    /// Starts everything. To be called inside the switch's namespace.
    pub async fn start(test: Test, network: &'n Network, setup: Setup) -> Hosts<'n> {
        let place = |host: &Host| Place {
            host: host.address.clone(),
            client_port: 2379,
            peer_port: 2380,
            namespace: Some(host.namespace.name.clone()),
            holder: None,
        };
        let etcd = Etcd::start_at(&test, network.hosts[..DATABASES].iter().map(place).collect()).await;
        let authority = Authority::new(test.folder(), "ca");
        let issue = |(i, host): (usize, &Host)| authority.issue(&format!("host{i}"), &[&host.address]);
        let holders = network.hosts.iter().enumerate().map(issue).collect();
        let operator = authority.issue("operator", &["operator"]);
        let mut hosts =
            Hosts { parts: Vec::new(), etcd, holders, operator, setup, network, disks: Disks::default(), test };
        hosts.prepare();
        for host in 0..DATABASES {
            hosts.start_part(host, Program::Keeper);
            hosts.start_part(host, Program::Sentinel);
        }
        hosts.start_part(DATABASES, Program::Proxy);
        hosts
    }

    /// Files that the daemons read. Hosts of one machine share its file system, but not their sockets' folders.
    fn prepare(&mut self) {
        std::fs::write(self.file("password"), PASSWORD).expect("the password's file");
        if let Some(spec) = &self.setup.spec {
            std::fs::write(self.file("spec.json"), spec.to_string()).expect("the specification's file");
        }
        if self.setup.disks {
            self.disks = Disks::at((0..DATABASES).map(|host| self.data_dir(host)).collect());
        }
        for host in 0..DATABASES {
            let sockets = self.file(&format!("s{host}"));
            std::fs::create_dir_all(&sockets).expect("the sockets' folder");
            std::fs::set_permissions(&sockets, PermissionsExt::from_mode(0o777)).expect("its permissions");
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.test.folder().join(name)
    }

    pub fn data_dir(&self, host: usize) -> PathBuf {
        self.file(&format!("data/host{host}"))
    }

    fn start_part(&mut self, host: usize, program: Program) {
        let at = &self.network.hosts[host];
        let mut command = at.namespace.command(&bins::bin(program.name()));
        command.args(["--cluster-name", CLUSTER, "--store-endpoints", &self.etcd.endpoints()]);
        command.args(["--grpc-listen-address", &at.address]).args(self.holders[host].flags());
        command.args(self.own_flags(host, program));
        if let Some(collector) = &self.setup.collector {
            command.args(["--otlp-endpoint", collector]).env("OTEL_BSP_SCHEDULE_DELAY", "500");
        }
        let process = Process::spawn(self.test.folder(), &format!("{}{host}", program.name()), command);
        self.parts.push(Part { host, program, process });
    }

    fn own_flags(&self, host: usize, program: Program) -> Vec<String> {
        let address = &self.network.hosts[host].address;
        let text = |path: PathBuf| path.display().to_string();
        let line = match program {
            Program::Keeper => {
                let (data, secret) = (text(self.data_dir(host)), text(self.file("password")));
                let sockets = text(self.file(&format!("s{host}")));
                format!(
                    "--id host{host} --data-dir {data} --pg-unix-socket-dir {sockets} --pg-listen-address {address} \
                     --pg-su-username admin --pg-su-passwordfile {secret} --pg-repl-username repl \
                     --pg-repl-passwordfile {secret}"
                )
            }
            Program::Sentinel if self.setup.spec.is_some() => {
                format!("--port 6431 --initial-cluster-spec {}", text(self.file("spec.json")))
            }
            Program::Sentinel => "--port 6431".to_owned(),
            Program::Proxy => format!("--listen-address {address} --port {PROXY_PORT} --grpc-port 6432"),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    fn part(&mut self, host: usize, program: Program) -> Option<&mut Process> {
        let found = self.parts.iter_mut().find(|part| part.host == host && part.program == program);
        found.map(|part| &mut part.process)
    }

    /// Pid of a daemon that was started; it may have ended.
    pub fn pid(&self, host: usize, program: Program) -> Option<u32> {
        self.parts.iter().find(|part| part.host == host && part.program == program).map(|part| part.process.pid())
    }

    /// Asks a daemon to end, and starts it again when it has.
    pub fn restart(&mut self, host: usize, program: Program) {
        if let Some(process) = self.part(host, program) {
            process.terminate(Duration::from_secs(30));
        }
        self.revive(host);
    }

    /// Starts what has ended on a host, etcd's member too.
    pub fn revive(&mut self, host: usize) {
        self.parts.retain_mut(|part| part.host != host || part.process.running());
        let wanted: &[Program] =
            if host == DATABASES { &[Program::Proxy] } else { &[Program::Keeper, Program::Sentinel] };
        for program in wanted {
            if self.pid(host, *program).is_none() {
                self.start_part(host, *program);
            }
        }
    }

    pub fn postmaster(&self, host: usize) -> Option<u32> {
        postmaster::running(&self.data_dir(host).join("postgres"))
    }

    /// The keeper, its PostgreSQL and whatever else works for them on a host, the youngest first: clients' sessions, and
    /// what they acknowledged last is already on its way.
    pub fn database_processes(&self, host: usize) -> Vec<u32> {
        let mut all =
            self.pid(host, Program::Keeper).filter(|pid| proc::alive(*pid)).map(proc::tree).unwrap_or_default();
        all.extend(self.postmaster(host).map(proc::tree).unwrap_or_default());
        all.extend(proc::within(&self.data_dir(host)));
        youngest_first(all)
    }

    /// PostgreSQL's alone.
    pub fn postgres_processes(&self, host: usize) -> Vec<u32> {
        youngest_first(self.postmaster(host).map(proc::tree).unwrap_or_default())
    }

    /// Every process on a host.
    pub fn all_processes(&self, host: usize) -> Vec<u32> {
        let name = &self.network.hosts[host].namespace.name;
        let out = Command::new("ip").args(["netns", "pids", name]).output().expect("ip can be run");
        let pids = String::from_utf8_lossy(&out.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect();
        youngest_first(pids)
    }

    /// Everything as it was: nothing stopped, the cable in, all programs running. Not waited for.
    pub fn mend(&mut self, host: usize) {
        signal_all(&self.all_processes(host), Signal::CONT);
        self.network.hosts[host].heal(self.network);
        if host < DATABASES && self.etcd_process(host).is_none() {
            self.etcd.kill_member(host);
            self.etcd.start_member(host);
        }
        self.revive(host);
    }

    /// Pid of etcd's member on a host.
    pub fn etcd_process(&self, host: usize) -> Option<u32> {
        let is_etcd = |pid: &u32| proc::command_line(*pid).split(' ').next().is_some_and(|name| name.ends_with("etcd"));
        self.all_processes(host).into_iter().filter(|pid| proc::alive(*pid)).find(is_etcd)
    }

    pub fn proxy(&self) -> Target {
        Target::at(&self.network.hosts[DATABASES].address, PROXY_PORT).with_user("admin", PASSWORD)
    }

    pub fn postgres(&self, host: usize) -> Target {
        Target::at(&self.network.hosts[host].address, 5432).with_user("admin", PASSWORD)
    }

    pub async fn keys(&self) -> Result<Keys, String> {
        Keys::read(&self.etcd, BASE).await
    }

    /// Host of the primary that serves, and its epoch.
    pub async fn primary(&self) -> (usize, u64) {
        let look = async || self.keys().await.and_then(|keys| keys.serving());
        let (uid, epoch) = eventually("a primary that serves", WAIT, look).await;
        (host_of(&uid).unwrap_or_else(|| panic!("a keeper by the name of {uid}")), epoch)
    }

    /// Host of the leading sentinel.
    pub async fn sentinel_leader(&self) -> Result<usize, String> {
        let keys = self.keys().await?;
        let uid = keys.election.first().ok_or("no candidate")?;
        let info = keys.sentinels.get(uid).ok_or_else(|| format!("{uid} is not registered"))?;
        let address = info.grpc_address.split(':').next().unwrap_or_default();
        let host = self.network.hosts.iter().position(|host| host.address == address);
        host.ok_or_else(|| format!("no host at {}", info.grpc_address))
    }

    /// Runs `stolonctl VERB`, as an operator does.
    pub fn operator(&self, verb: &[&str], bound: Duration) -> Outcome {
        let mut command = self.test.command("stolonctl");
        command.args(verb).args(["--cluster-name", CLUSTER, "--store-endpoints", &self.etcd.endpoints()]);
        command.args(self.operator.flags());
        complete(self.test.folder(), &mut command, bound)
    }

    pub fn folder(&self) -> &Path {
        self.test.folder()
    }
}

/// Number in a keeper's name.
pub fn host_of(uid: &str) -> Option<usize> {
    uid.strip_prefix("host")?.parse().ok()
}

pub fn signal_all(pids: &[u32], signal: Signal) {
    pids.iter().for_each(|pid| proc::signal(*pid, signal));
}

fn youngest_first(mut pids: Vec<u32>) -> Vec<u32> {
    pids.sort_unstable();
    pids.dedup();
    pids.reverse();
    pids
}
