//! The cluster that is measured: a stage of three database hosts, each with etcd, keeper and sentinel, and one with a
//! proxy, with default settings. Knows which processes make up what is struck, and no measurements.

use std::{path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use stolon_tests::{
    Test, eventually,
    netns::Network,
    proc,
    sql::Target,
    stage::{Plan, Role, Stage},
};

/// Hosts with a database; the proxy's follows them.
pub const DATABASES: usize = 3;
/// Hosts that a network for this cluster needs.
pub const HOSTS: usize = DATABASES + 1;
/// For whatever a cluster does by itself: forming, rejoining, electing a leader.
pub const WAIT: Duration = Duration::from_secs(90);
/// MiB of a disk of its own.
const DISK: u64 = 2048;

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
    pub stage: Stage<'n>,
}

impl<'n> Hosts<'n> {
    /// Starts everything. To be called inside the switch's namespace.
    pub async fn start(test: Test, network: &'n Network, setup: Setup) -> Hosts<'n> {
        let database = || vec![Role::Etcd, Role::Keeper, Role::Sentinel];
        let mut plan = Plan {
            hosts: vec![database(), database(), database(), vec![Role::Proxy]],
            spec: setup.spec,
            disk: setup.disks.then_some(DISK),
            ..Plan::default()
        };
        if let Some(collector) = setup.collector {
            plan.common = vec!["--otlp-endpoint".into(), collector];
            plan.env = vec![("OTEL_BSP_SCHEDULE_DELAY".into(), "500".into())];
        }
        Hosts { stage: Stage::launch(test, network, plan).await }
    }

    /// The keeper, its PostgreSQL and whatever else works for them on a host, the youngest first: clients' sessions, and
    /// what they acknowledged last is already on its way.
    pub fn database_processes(&self, host: usize) -> Vec<u32> {
        let others = [self.stage.pid(host, Role::Etcd), self.stage.pid(host, Role::Sentinel)];
        self.all_processes(host).into_iter().filter(|pid| !others.contains(&Some(*pid))).collect()
    }

    /// PostgreSQL's alone.
    pub fn postgres_processes(&self, host: usize) -> Vec<u32> {
        self.stage.postgres(host).into_iter().rev().collect()
    }

    /// Every process on a host.
    pub fn all_processes(&self, host: usize) -> Vec<u32> {
        self.stage.processes(host).into_iter().rev().collect()
    }

    pub fn proxy(&self) -> Target {
        self.stage.proxy(DATABASES)
    }

    /// Host of the primary that serves, and its epoch.
    pub async fn primary(&self) -> (usize, u64) {
        eventually("a primary that serves", WAIT, async || self.stage.primary().await).await
    }

    pub fn folder(&self) -> &Path {
        self.stage.test.folder()
    }
}

pub fn signal_all(pids: &[u32], signal: Signal) {
    pids.iter().for_each(|pid| proc::signal(*pid, signal));
}
