//! What is measured: the kinds of failover, what each is expected to take, and what it does to the primary's host. Knows
//! no figures.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use stolon_tests::stage::Role;

use crate::{
    calm::Together,
    hosts::{Hosts, signal_all},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `kill -9` of the postmaster alone
    Postmaster,
    /// `kill -9` of all of PostgreSQL
    Postgres,
    /// `kill -9` of the keeper, what belongs to it, and all of PostgreSQL
    KeeperAndPostgres,
    /// SIGSTOP of everything on the primary's host
    HostFrozen,
    /// The cable of the primary's host is pulled
    CutOff,
    /// The host with the primary and the leading sentinel is gone at once
    Leader,
    /// The same host held etcd's leader too
    LeaderAndEtcd,
    /// A handover that was asked for, one client
    Switchover,
    /// The same under eight clients that write without a pause
    SwitchoverBusy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Asynchronous replication, the default
    Async,
    /// Synchronous: one standby at least and at most
    Sync,
}

/// How a handover is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handover {
    /// `stolonctl switchover`
    Switchover,
    /// SIGTERM to the primary's keeper
    Sigterm,
}

/// Upper bounds of the gap, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aim {
    pub p50: Option<f64>,
    pub max: Option<f64>,
    /// In multiples of the floor's median.
    pub ratio: Option<f64>,
}

impl Kind {
    pub fn what(self) -> &'static str {
        match self {
            Kind::Postmaster => "`kill -9` of the postmaster",
            Kind::Postgres => "`kill -9` of all of PostgreSQL",
            Kind::KeeperAndPostgres => "`kill -9` of keeper and PostgreSQL",
            Kind::HostFrozen => "host frozen",
            Kind::CutOff => "host cut off",
            Kind::Leader => "host of primary and leading sentinel gone",
            Kind::LeaderAndEtcd => "… which held etcd's leader too",
            Kind::Switchover => "switchover, idle",
            Kind::SwitchoverBusy => "switchover, eight writers",
        }
    }

    pub fn aim(self) -> Aim {
        let aim = |p50, max, ratio| Aim { p50, max, ratio };
        match self {
            Kind::Postmaster | Kind::Postgres => aim(Some(300.0), None, Some(4.0)),
            Kind::KeeperAndPostgres => aim(Some(400.0), None, None),
            Kind::HostFrozen | Kind::CutOff => aim(Some(1500.0), Some(3000.0), None),
            Kind::Leader => aim(None, Some(5000.0), None),
            Kind::LeaderAndEtcd => aim(None, Some(8000.0), None),
            Kind::Switchover => aim(Some(250.0), None, None),
            Kind::SwitchoverBusy => aim(Some(400.0), None, None),
        }
    }

    pub fn planned(self) -> bool {
        matches!(self, Kind::Switchover | Kind::SwitchoverBusy)
    }

    /// Clients, and their pause between two statements.
    pub fn writers(self) -> (usize, Duration) {
        match self {
            Kind::SwitchoverBusy => (8, Duration::ZERO),
            _ => (1, Duration::from_millis(2)),
        }
    }

    pub fn together(self) -> Together {
        Together {
            sentinel: matches!(self, Kind::Leader | Kind::LeaderAndEtcd),
            etcd: matches!(self, Kind::LeaderAndEtcd),
        }
    }

    /// The processes that a strike of this kind signals; looked up before, so that the strike itself takes no time.
    pub fn victims(self, hosts: &Hosts<'_>, primary: usize) -> Vec<u32> {
        match self {
            Kind::Postmaster => hosts.stage.postmaster(primary).into_iter().collect(),
            Kind::Postgres => hosts.postgres_processes(primary),
            Kind::KeeperAndPostgres => hosts.database_processes(primary),
            Kind::HostFrozen | Kind::Leader | Kind::LeaderAndEtcd => hosts.all_processes(primary),
            Kind::CutOff => Vec::new(),
            Kind::Switchover | Kind::SwitchoverBusy => hosts.stage.pid(primary, Role::Keeper).into_iter().collect(),
        }
    }

    /// Strikes; a handover is asked for. Returns when that is done; an error says why it could not be.
    pub fn strike(self, hosts: &Hosts<'_>, primary: usize, victims: &[u32], by: Handover) -> Result<(), String> {
        match self {
            Kind::Postmaster | Kind::Postgres | Kind::KeeperAndPostgres => signal_all(victims, Signal::KILL),
            Kind::HostFrozen => signal_all(victims, Signal::STOP),
            Kind::CutOff => cut(hosts, primary),
            Kind::Leader | Kind::LeaderAndEtcd => {
                // As when the power goes: no process says good-bye, and no kernel answers for one.
                signal_all(victims, Signal::STOP);
                cut(hosts, primary);
                signal_all(victims, Signal::KILL);
            }
            Kind::Switchover | Kind::SwitchoverBusy if by == Handover::Sigterm => signal_all(victims, Signal::TERM),
            Kind::Switchover | Kind::SwitchoverBusy => {
                let outcome = hosts.stage.operator(&["switchover"], Duration::from_secs(60));
                if outcome.code != Some(0) {
                    let first = outcome.err.lines().next().unwrap_or("no word about it").to_owned();
                    return Err(format!("stolonctl switchover ended with {:?}: {first}", outcome.code));
                }
            }
        }
        Ok(())
    }
}

/// Pulls the cable.
fn cut(hosts: &Hosts<'_>, host: usize) {
    hosts.stage.network.hosts[host].cut(hosts.stage.network);
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Async => "async",
            Mode::Sync => "sync",
        })
    }
}
