//! What a fault is, as values: who is struck, by what, when, and what has to come of it. Knows nothing of how it is done.

use std::time::Duration;

use serde_json::{Value, json};

/// How the cluster replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Asynchronous,
    Synchronous,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Asynchronous => "async",
            Mode::Synchronous => "sync",
        }
    }

    /// The cluster's specification: little WAL is kept, because the disks are small.
    pub fn spec(self) -> Value {
        let mut spec = json!({
            "initMode": "new",
            "usePgrewind": true,
            "pgParameters": {"max_wal_size": "64MB", "min_wal_size": "32MB"},
        });
        if self == Mode::Synchronous {
            spec["synchronousReplication"] = json!(true);
            spec["minSynchronousStandbys"] = json!(1);
            spec["maxSynchronousStandbys"] = json!(1);
        }
        spec
    }
}

/// Processes of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prey {
    Postmaster,
    /// All of PostgreSQL.
    Postgres,
    Keeper,
    KeeperAndPostgres,
    Sentinel,
    Proxy,
    Etcd,
    /// Whatever runs on the host.
    Everything,
}

/// What a host is cut off from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    World,
    /// All of etcd, the member of its own host too.
    Store,
    /// PostgreSQL of the other database hosts.
    OtherDatabases,
    /// All sentinels, its own too.
    Sentinels,
    /// The hosts with proxies.
    Clients,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    /// Nothing arrives.
    In,
    /// Nothing leaves.
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Kill(Prey),
    Freeze(Prey),
    /// The cable is pulled and every process freezes.
    Vanish,
    /// Packets vanish, without an error on either side.
    Cut(From, Way),
    /// Percent of the packets vanish, each way.
    Lose(u8),
    /// Kilobits per second.
    Slow(u32),
    /// Milliseconds, each way.
    Delay(u32),
    StallDisk,
    FillDisk,
    /// More WAL than there are files for: 100 MB, or as much as is taken.
    WriteMuch,
    /// Everything that was done to the host is undone, and what is dead is started again, as by a supervisor.
    Mend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Primary,
    Standby,
    Standbys,
    /// Where the leading sentinel is.
    Leader,
    /// A sentinel that doesn't lead.
    Follower,
    EtcdLeader,
    /// A member that doesn't lead etcd, on another host than the primary if there is one.
    EtcdFollower,
    /// All three, with etcd, keeper and sentinel.
    Databases,
    OneProxy,
    AllProxies,
    /// Who was elected meanwhile.
    Winner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So many milliseconds after the strike before.
    After(u64),
    /// A change of the primary has begun.
    Marked,
    /// The next primary is named, and may not serve yet.
    Elected,
}

#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub when: When,
    pub who: Who,
    pub act: Act,
}

/// What has to come of it, while the fault lasts.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// Another host acknowledges through each proxy that wasn't struck.
    FailsOver { within: Duration },
    /// The same primary in the same epoch, with no longer gap than this.
    Stays { watch: Duration, gap: Duration },
    /// Commits stop, after so long at the latest, and do not come back while it lasts.
    Blocks { after: Duration, watch: Duration },
    /// Whoever it is, somebody acknowledges again.
    Recovers { within: Duration },
    /// A matter of the instant: only what holds for every trial is asked.
    AnyWay { watch: Duration },
}

pub struct Fault {
    pub name: &'static str,
    pub strikes: &'static [Strike],
    pub expect: Expect,
    /// Where synchronous replication makes a difference.
    pub synchronous: Option<Expect>,
    /// Rows acknowledged through proxies that asynchronous replication may lose: those in flight when WAL stops to flow.
    pub may_lose: usize,
}

impl Fault {
    pub fn expected(&self, mode: Mode) -> Expect {
        match mode {
            Mode::Asynchronous => self.expect,
            Mode::Synchronous => self.synchronous.unwrap_or(self.expect),
        }
    }

    /// True when commits wait for a standby as long as it lasts, at a primary that lives: what blocks either way is no such
    /// wait, and what has no primary cuts its clients.
    pub fn commits_wait(&self, mode: Mode) -> bool {
        mode == Mode::Synchronous && matches!(self.synchronous, Some(Expect::Blocks { .. }))
    }

    pub fn may_lose(&self, mode: Mode) -> usize {
        if mode == Mode::Synchronous { 0 } else { self.may_lose }
    }
}
