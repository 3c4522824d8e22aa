//! A cluster on hosts of their own (network namespaces): addresses, mutual TLS between the daemons, with
//! etcd and within it, passwords for PostgreSQL, and data directories on disks of their own. Knows how to start, find and mend what runs on a host; what is
//! done to it is others' business.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    bins,
    certs::{Authority, Holder},
    cluster::{BASE, CLUSTER},
    disk::{Disk, Rack},
    etcd::{Etcd, Place},
    keys::Keys,
    netns::{Host, Network},
    postmaster, proc,
    process::{Outcome, Process, complete},
    runner::Test,
    sql::Target,
};

pub const PASSWORD: &str = "correct horse battery staple";
/// For killed processes to be gone when a stage is taken down.
const GONE: Duration = Duration::from_secs(5);
/// For a daemon that is asked to end.
const ENDED: Duration = Duration::from_secs(30);

/// What a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Etcd,
    Keeper,
    Sentinel,
    Proxy,
}

/// What a stage is made of.
#[derive(Default)]
pub struct Plan {
    /// Each host's roles. Hosts with etcd come first.
    pub hosts: Vec<Vec<Role>>,
    /// Initial cluster specification; none for the automatic one.
    pub spec: Option<Value>,
    /// MiB of the disk under each keeper's data; none for the machine's own.
    pub disk: Option<u64>,
    /// Flags and environment of all daemons.
    pub common: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// One daemon on its host.
struct Actor {
    host: usize,
    role: Role,
    args: Vec<String>,
    process: Option<Process>,
}

pub struct Stage<'a> {
    pub test: Test,
    pub network: &'a Network,
    pub etcd: Etcd,
    pub authority: Authority,
    holders: Vec<Holder>,
    operator: Holder,
    common: Vec<String>,
    env: Vec<(String, String)>,
    actors: Vec<Actor>,
    disks: Vec<(usize, Disk)>,
    /// Where the disks are; unmounted after them.
    rack: Option<Rack>,
    relays: Vec<(usize, Process)>,
}

impl<'a> Stage<'a> {
    /// Everything started; not waited for. The caller's thread is in the switch's namespace.
    pub async fn launch(test: Test, network: &'a Network, plan: Plan) -> Stage<'a> {
        let authority = Authority::new(test.folder(), "ca");
        let issue = |(i, host): (usize, &Host)| authority.issue(&format!("host{i}"), &[&host.address]);
        let holders: Vec<Holder> = network.hosts.iter().enumerate().map(issue).collect();
        let operator = authority.issue("operator", &["operator"]);
        let place = |(host, holder): (&Host, &Holder)| Place {
            host: host.address.clone(),
            client_port: 2379,
            peer_port: 2380,
            namespace: Some(host.namespace.name.clone()),
            holder: Some(holder.clone()),
        };
        let with_etcd = plan.hosts.iter().take_while(|roles| roles.contains(&Role::Etcd)).count();
        let places = network.hosts[..with_etcd].iter().zip(&holders).map(place).collect();
        let etcd = Etcd::start_at(&test, places).await;
        let mut stage = Stage {
            test,
            network,
            etcd,
            authority,
            holders,
            operator,
            common: plan.common.clone(),
            env: plan.env.clone(),
            actors: Vec::new(),
            disks: Vec::new(),
            rack: None,
            relays: Vec::new(),
        };
        stage.furnish(&plan);
        for (host, roles) in plan.hosts.iter().enumerate() {
            roles.iter().for_each(|role| stage.employ(host, *role));
        }
        (0..plan.hosts.len()).for_each(|host| stage.revive(host));
        stage
    }

    /// Files that the daemons are given.
    fn furnish(&mut self, plan: &Plan) {
        let folder = self.test.folder().to_owned();
        std::fs::write(folder.join("password"), PASSWORD).expect("the password's file");
        if let Some(spec) = &plan.spec {
            std::fs::write(folder.join("spec.json"), spec.to_string()).expect("the specification's file");
        }
        let data = self.test.subfolder("data");
        self.rack = plan.disk.map(|_| Rack::new(&data));
        for (host, _) in plan.hosts.iter().enumerate().filter(|(_, roles)| roles.contains(&Role::Keeper)) {
            // Hosts of one machine share its file system.
            let sockets = self.test.subfolder(&format!("s{host}"));
            std::fs::set_permissions(&sockets, PermissionsExt::from_mode(0o777)).expect("the sockets' folder");
            if let Some(size) = plan.disk {
                self.disks.push((host, Disk::new(&data.join(format!("disk{host}")), size)));
            }
        }
    }

    fn employ(&mut self, host: usize, role: Role) {
        let (address, folder) = (&self.network.hosts[host].address, self.test.folder().display());
        let line = match role {
            Role::Etcd => return,
            Role::Keeper => format!(
                "--id host{host} --data-dir {} --pg-unix-socket-dir {folder}/s{host} --pg-listen-address {address} \
                 --pg-su-username admin --pg-su-passwordfile {folder}/password --pg-repl-username repl \
                 --pg-repl-passwordfile {folder}/password",
                self.data_dir(host).display()
            ),
            Role::Sentinel => {
                let spec = self.test.folder().join("spec.json");
                let given =
                    if spec.exists() { format!(" --initial-cluster-spec {}", spec.display()) } else { String::new() };
                format!("--port 6431{given}")
            }
            Role::Proxy => format!("--listen-address {address} --port 25432 --grpc-port 6432"),
        };
        let mut args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        args.extend(["--cluster-name", CLUSTER, "--grpc-listen-address", address].map(str::to_owned));
        args.extend(["--store-endpoints".to_owned(), self.etcd.endpoints()]);
        args.extend([self.holders[host].flags(), self.holders[host].store_flags(), self.common.clone()].concat());
        self.actors.push(Actor { host, role, args, process: None });
    }

    /// Starts what should run on a host and doesn't.
    pub fn revive(&mut self, host: usize) {
        if host < self.etcd.members.len() && !self.etcd.running(host) {
            self.etcd.start_member(host);
        }
        for actor in self.actors.iter_mut().filter(|actor| actor.host == host) {
            if actor.process.as_mut().is_some_and(Process::running) {
                continue;
            }
            let program = match actor.role {
                Role::Keeper => "stolon-keeper",
                Role::Sentinel => "stolon-sentinel",
                Role::Proxy => "stolon-proxy",
                Role::Etcd => unreachable!("etcd's members are no actors"),
            };
            let mut command = self.network.hosts[host].namespace.command(&bins::bin(program));
            command.args(&actor.args).envs(self.env.iter().map(|(name, value)| (name, value)));
            actor.process = Some(Process::spawn(self.test.folder(), &format!("{program}{host}"), command));
        }
    }

    /// Asks a daemon to end, and starts it again when it has.
    pub fn restart(&mut self, host: usize, role: Role) {
        let actor = self.actors.iter_mut().find(|actor| actor.host == host && actor.role == role);
        if let Some(process) = actor.and_then(|actor| actor.process.as_mut()) {
            process.terminate(ENDED);
        }
        self.revive(host);
    }

    /// Runs `stolonctl VERB`, as an operator does.
    pub fn operator(&self, verb: &[&str], bound: Duration) -> Outcome {
        let mut command = self.test.command("stolonctl");
        command.args(verb).args(["--cluster-name", CLUSTER, "--store-endpoints", &self.etcd.endpoints()]);
        command.args(self.operator.flags()).args(self.operator.store_flags());
        complete(self.test.folder(), &mut command, bound)
    }

    /// Takes every fault of a host away: disk and network, then whatever is frozen (PostgreSQL before those who would tell
    /// it to stop), then whatever is dead.
    pub fn mend(&mut self, host: usize) {
        self.disks.iter().filter(|(of, _)| *of == host).for_each(|(_, disk)| disk.mend());
        self.relays.retain(|(of, _)| *of != host);
        self.network.hosts[host].mend(self.network);
        self.processes(host).into_iter().rev().for_each(|pid| proc::signal(pid, Signal::CONT));
        self.revive(host);
    }

    pub fn mend_all(&mut self) {
        (0..self.network.hosts.len()).for_each(|host| self.mend(host));
    }

    /// Frames to and from a host take so much longer, each way.
    pub fn delay(&mut self, host: usize, milliseconds: u32) {
        let relay = self.network.hosts[host].delay(self.network, self.test.folder(), milliseconds);
        self.relays.push((host, relay));
    }

    /// Every process on a host, whoever started it, the oldest first.
    pub fn processes(&self, host: usize) -> Vec<u32> {
        proc::in_namespace(&self.network.hosts[host].namespace.name)
    }

    /// PostgreSQL's processes on a host, the oldest first.
    pub fn postgres(&self, host: usize) -> Vec<u32> {
        self.processes(host).into_iter().filter(|pid| proc::program(*pid) == "postgres").collect()
    }

    pub fn postmaster(&self, host: usize) -> Option<u32> {
        postmaster::running(&self.data_dir(host).join("postgres"))
    }

    /// The process that a host's role is, when it runs.
    pub fn pid(&self, host: usize, role: Role) -> Option<u32> {
        if role == Role::Etcd {
            return self.etcd.pid(host).filter(|pid| proc::alive(*pid));
        }
        let actor = self.actors.iter().find(|actor| actor.host == host && actor.role == role)?;
        actor.process.as_ref().map(Process::pid).filter(|pid| proc::alive(*pid))
    }

    pub fn disk(&self, host: usize) -> &Disk {
        let found = self.disks.iter().find(|(of, _)| *of == host);
        &found.unwrap_or_else(|| panic!("host {host} has no disk of its own")).1
    }

    pub fn daemons(&self) -> impl Iterator<Item = &Process> {
        self.actors.iter().filter_map(|actor| actor.process.as_ref())
    }

    pub fn data_dir(&self, host: usize) -> PathBuf {
        self.test.folder().join(format!("data/disk{host}/keeper"))
    }

    pub fn hosts_of(&self, role: Role) -> Vec<usize> {
        let etcd = 0..if role == Role::Etcd { self.etcd.members.len() } else { 0 };
        etcd.chain(self.actors.iter().filter(|actor| actor.role == role).map(|actor| actor.host)).collect()
    }

    pub fn address(&self, host: usize) -> &str {
        &self.network.hosts[host].address
    }

    /// The host with an address, be it followed by a port.
    pub fn host_at(&self, address: &str) -> Option<usize> {
        let bare = address.split(':').next();
        self.network.hosts.iter().position(|host| Some(host.address.as_str()) == bare)
    }

    /// Clients' way in, at a host with a proxy.
    pub fn proxy(&self, host: usize) -> Target {
        Target::at(self.address(host), 25432).with_user("admin", PASSWORD)
    }

    /// A host's PostgreSQL itself.
    pub fn server(&self, host: usize) -> Target {
        Target::at(self.address(host), 5432).with_user("admin", PASSWORD)
    }

    pub async fn keys(&self) -> Result<Keys, String> {
        Keys::read(&self.etcd, BASE).await
    }

    /// Host of the primary that serves, and its epoch.
    pub async fn primary(&self) -> Result<(usize, u64), String> {
        let (uid, epoch) = self.keys().await?.serving()?;
        let host = uid.trim_start_matches("host").parse().map_err(|_| format!("unknown keeper {uid}"))?;
        Ok((host, epoch))
    }

    /// Host of the sentinel that leads.
    pub async fn leader(&self) -> Result<usize, String> {
        let keys = self.keys().await?;
        let uid = keys.election.first().ok_or("no sentinel stands for election")?;
        let info = keys.sentinels.get(uid).ok_or_else(|| format!("sentinel {uid} is not registered"))?;
        self.host_at(&info.grpc_address).ok_or_else(|| format!("no host at {}", info.grpc_address))
    }
}

impl Drop for Stage<'_> {
    /// Must not panic: it also runs after a failure. Nothing dies on a file system that hangs.
    fn drop(&mut self) {
        self.disks.iter().for_each(|(_, disk)| disk.mend());
        self.relays.clear();
        let end = std::time::Instant::now() + GONE;
        loop {
            let left: Vec<u32> = (0..self.network.hosts.len()).flat_map(|host| self.processes(host)).collect();
            if left.is_empty() || std::time::Instant::now() > end {
                break;
            }
            left.into_iter().for_each(|pid| proc::signal(pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(10));
        }
        self.disks.clear();
        self.rack = None;
    }
}

/// For a stage's data to be on disks of their own, loop devices must work here.
pub fn disks_allowed() -> bool {
    Path::new("/dev/loop-control").exists()
}
