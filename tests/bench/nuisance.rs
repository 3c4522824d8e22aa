//! What a cluster must bear without a failover: each nuisance, done to hosts under a writing client. Judges nothing.

use std::{
    fmt,
    process::Command,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use stolon_tests::{
    netfault::Drops,
    netns::{Host, Network},
    proc,
    process::Process,
    stage::Role,
};

use crate::hosts::{DATABASES, Hosts, signal_all};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nuisance {
    /// As many endless loops as there are cores
    Cpu,
    /// SIGSTOP for 2 s of one component after the other, but for the primary's PostgreSQL
    Pause,
    /// etcd's members restarted one after the other
    EtcdRestart,
    /// 1 % of all packets lost at every host
    Loss,
    /// Disks that stall for 300 ms, the primary's among them
    Fsync,
}

const STOP: Duration = Duration::from_secs(2);
/// Between two pauses: a stopped component is one at a time, and its neighbours have forgotten it.
const BETWEEN: Duration = Duration::from_secs(4);
const STALL: Duration = Duration::from_millis(300);
const BETWEEN_STALLS: Duration = Duration::from_secs(2);

/// One component that can be stopped, and the processes that make it up.
struct Component {
    name: String,
    pids: Vec<u32>,
}

impl Nuisance {
    /// Bothers the cluster for at least `span`, and leaves everything as it was. `primary` is the primary's host.
    pub async fn bother(self, hosts: &mut Hosts<'_>, primary: usize, span: Duration) {
        let end = Instant::now() + span;
        match self {
            Nuisance::Cpu => cpu(hosts, span).await,
            Nuisance::Pause => loop {
                // Always all of them: the last ones would never have their turn.
                for component in components(hosts, primary) {
                    pause(&component).await;
                }
                if Instant::now() > end {
                    return;
                }
            },
            Nuisance::EtcdRestart => loop {
                roll(hosts).await;
                if Instant::now() > end {
                    return;
                }
            },
            Nuisance::Loss => {
                let network = hosts.stage.network;
                let _lossy: Vec<Lossy<'_>> = network.hosts.iter().map(|host| Lossy::new(host, network)).collect();
                tokio::time::sleep(span).await;
            }
            Nuisance::Fsync => {
                for host in (0..DATABASES).cycle() {
                    hosts.stage.disk(host).stall(STALL).await;
                    tokio::time::sleep(BETWEEN_STALLS).await;
                    if Instant::now() > end {
                        return;
                    }
                }
            }
        }
    }
}

async fn cpu(hosts: &Hosts<'_>, span: Duration) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let burn = |index: usize| {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        Process::spawn(hosts.folder(), &format!("burn{index}"), command)
    };
    let _burning: Vec<Process> = (0..cores).map(burn).collect();
    tokio::time::sleep(span).await;
}

/// Everything but the PostgreSQL that is the primary. Its keeper is among them: a server that answers, and whose WAL
/// flows, is not dead because its keeper is silent (R15).
fn components(hosts: &Hosts<'_>, primary: usize) -> Vec<Component> {
    let mut all = Vec::new();
    for host in 0..DATABASES {
        let mut add = |name: &str, pids: Vec<u32>| all.push(Component { name: format!("{name} of host {host}"), pids });
        let keeper: Vec<u32> = hosts.stage.pid(host, Role::Keeper).into_iter().collect();
        if host != primary {
            add("keeper and PostgreSQL", hosts.database_processes(host));
            add("PostgreSQL", hosts.postgres_processes(host));
        }
        add("keeper", keeper);
        add("sentinel", hosts.stage.pid(host, Role::Sentinel).into_iter().collect());
        add("etcd", hosts.stage.pid(host, Role::Etcd).into_iter().collect());
    }
    all.push(Component { name: "proxy".into(), pids: hosts.stage.pid(DATABASES, Role::Proxy).into_iter().collect() });
    all
}

async fn pause(component: &Component) {
    assert!(!component.pids.is_empty(), "no process of {}", component.name);
    let stopped = Stopped(&component.pids);
    signal_all(stopped.0, Signal::STOP);
    tokio::time::sleep(STOP).await;
    drop(stopped);
    tokio::time::sleep(BETWEEN).await;
    let dead: Vec<&u32> = component.pids[..1].iter().filter(|pid| !proc::alive(**pid)).collect();
    if !dead.is_empty() {
        println!("  {} did not outlive a pause of {} s", component.name, STOP.as_secs());
    }
}

/// Goes on when dropped.
struct Stopped<'p>(&'p [u32]);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        signal_all(self.0, Signal::CONT);
    }
}

/// In good order, as an operator does it: the next one when the former answers again.
async fn roll(hosts: &mut Hosts<'_>) {
    for member in 0..DATABASES {
        hosts.restart_etcd(member).await;
        tokio::time::sleep(BETWEEN).await;
    }
}

/// A host that loses one packet in a hundred of those that come in.
struct Lossy<'n>(&'n Host, &'n Network);

impl<'n> Lossy<'n> {
    fn new(host: &'n Host, network: &'n Network) -> Lossy<'n> {
        let arriving = vec!["iifname != \"lo\" numgen random mod 100 < 1".to_owned()];
        host.drop_packets(&Drops { arriving, ..Drops::default() });
        Lossy(host, network)
    }
}

impl Drop for Lossy<'_> {
    fn drop(&mut self) {
        self.0.mend(self.1);
    }
}

impl fmt::Display for Nuisance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
