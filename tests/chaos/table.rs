//! The faults: one row each. Bounds are far above what is measured on a quiet machine, because this may run on a busy one.

use std::time::Duration;

use crate::fault::{
    Act::{self, *},
    Expect::{self, *},
    Fault,
    From::*,
    Prey::*,
    Strike,
    Way::*,
    When::{self, *},
    Who::{self, *},
};

const fn strike(who: Who, act: Act) -> Strike {
    at(After(0), who, act)
}

const fn at(when: When, who: Who, act: Act) -> Strike {
    Strike { when, who, act }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn fails_over(within: u64) -> Expect {
    FailsOver { within: secs(within) }
}

/// Longer than any lease lives.
const fn stays(gap: u64) -> Expect {
    Stays { watch: secs(9), gap: secs(gap) }
}

const fn blocks(after: u64) -> Expect {
    Blocks { after: secs(after), watch: secs(6) }
}

const fn any_way() -> Expect {
    AnyWay { watch: secs(20) }
}

const fn recovers(within: u64) -> Expect {
    Recovers { within: secs(within) }
}

const fn fault(name: &'static str, strikes: &'static [Strike], expect: Expect) -> Fault {
    Fault { name, strikes, expect, synchronous: None, may_lose: 4 }
}

const fn but_synchronous(fault: Fault, expect: Expect) -> Fault {
    Fault { synchronous: Some(expect), ..fault }
}

pub static FAULTS: &[Fault] = &[
    // Processes of the primary.
    fault("kill-postmaster", &[strike(Primary, Kill(Postmaster))], fails_over(5)),
    fault("kill-postgres", &[strike(Primary, Kill(Postgres))], fails_over(5)),
    fault("kill-keeper-restarted", &[strike(Primary, Kill(Keeper)), at(After(300), Primary, Mend)], stays(1)),
    fault("kill-keeper", &[strike(Primary, Kill(Keeper))], fails_over(25)),
    fault("kill-keeper-and-postgres", &[strike(Primary, Kill(KeeperAndPostgres))], fails_over(6)),
    fault("kill-primary-host", &[strike(Primary, Kill(Everything))], fails_over(25)),
    fault("freeze-postmaster", &[strike(Primary, Freeze(Postmaster))], fails_over(45)),
    fault("freeze-postgres", &[strike(Primary, Freeze(Postgres))], fails_over(45)),
    fault("freeze-keeper", &[strike(Primary, Freeze(Keeper))], fails_over(25)),
    fault("freeze-keeper-2s", &[strike(Primary, Freeze(Keeper)), at(After(2000), Primary, Mend)], stays(1)),
    fault("freeze-keeper-and-postgres", &[strike(Primary, Freeze(KeeperAndPostgres))], fails_over(10)),
    fault("freeze-primary-host", &[strike(Primary, Freeze(Everything))], fails_over(25)),
    fault("vanish-primary-host", &[strike(Primary, Vanish)], fails_over(25)),
    // Processes of others.
    fault("kill-standby-host", &[strike(Standby, Kill(Everything))], stays(5)),
    fault("freeze-standby-host", &[strike(Standby, Freeze(Everything))], stays(5)),
    but_synchronous(fault("kill-both-standbys", &[strike(Standbys, Kill(KeeperAndPostgres))], stays(2)), blocks(2)),
    fault("kill-sentinel-leader", &[strike(Leader, Kill(Sentinel))], stays(1)),
    fault("freeze-sentinel-leader", &[strike(Leader, Freeze(Sentinel))], stays(1)),
    fault("kill-sentinel-follower", &[strike(Follower, Kill(Sentinel))], stays(1)),
    fault("kill-all-sentinels", &[strike(Databases, Kill(Sentinel))], stays(1)),
    fault("kill-proxy", &[strike(OneProxy, Kill(Proxy))], stays(1)),
    fault("freeze-proxy", &[strike(OneProxy, Freeze(Proxy))], stays(1)),
    fault("kill-etcd-follower", &[strike(EtcdFollower, Kill(Etcd))], stays(2)),
    fault("freeze-etcd-follower", &[strike(EtcdFollower, Freeze(Etcd))], stays(2)),
    fault("kill-etcd-leader", &[strike(EtcdLeader, Kill(Etcd))], stays(4)),
    fault("freeze-etcd-leader", &[strike(EtcdLeader, Freeze(Etcd))], stays(4)),
    fault("kill-all-etcd", &[strike(Databases, Kill(Etcd))], blocks(8)),
    fault("kill-all-etcd-2s", &[strike(Databases, Kill(Etcd)), at(After(1500), Databases, Mend)], stays(8)),
    // Several at once.
    // The last server has no standby left to wait for.
    but_synchronous(
        fault(
            "kill-standby-then-primary",
            &[strike(Standby, Kill(KeeperAndPostgres)), at(After(3000), Primary, Kill(KeeperAndPostgres))],
            fails_over(15),
        ),
        blocks(5),
    ),
    fault(
        "kill-primary-and-sentinel-leader",
        &[strike(Primary, Kill(KeeperAndPostgres)), strike(Leader, Kill(Sentinel))],
        fails_over(25),
    ),
    fault(
        "kill-primary-and-etcd-follower",
        &[strike(EtcdFollower, Kill(Etcd)), strike(Primary, Kill(KeeperAndPostgres))],
        fails_over(12),
    ),
    fault(
        "kill-primary-and-etcd-leader",
        &[strike(EtcdLeader, Kill(Etcd)), strike(Primary, Kill(KeeperAndPostgres))],
        fails_over(25),
    ),
    fault(
        "kill-postgres-without-sentinels",
        &[strike(Databases, Kill(Sentinel)), strike(Primary, Kill(Postgres))],
        recovers(15),
    ),
    fault("power-failure", &[strike(Databases, Kill(Everything)), at(After(1000), Databases, Mend)], recovers(60)),
    fault(
        "freeze-proxy-and-primary",
        &[strike(OneProxy, Freeze(Proxy)), strike(Primary, Freeze(KeeperAndPostgres))],
        fails_over(25),
    ),
    // The network of the primary's host.
    fault("cut-everything", &[strike(Primary, Cut(World, Both))], fails_over(25)),
    fault("cut-arriving", &[strike(Primary, Cut(World, In))], fails_over(25)),
    fault("cut-leaving", &[strike(Primary, Cut(World, Out))], fails_over(25)),
    fault("cut-etcd", &[strike(Primary, Cut(Store, Both))], fails_over(25)),
    fault("cut-etcd-leaving", &[strike(Primary, Cut(Store, Out))], fails_over(25)),
    fault("cut-sentinels", &[strike(Primary, Cut(Sentinels, Both))], stays(1)),
    but_synchronous(fault("cut-standbys", &[strike(Primary, Cut(OtherDatabases, Both))], stays(2)), blocks(2)),
    but_synchronous(fault("cut-standbys-leaving", &[strike(Primary, Cut(OtherDatabases, Out))], stays(2)), blocks(2)),
    fault("cut-proxies", &[strike(Primary, Cut(Clients, Both))], blocks(1)),
    fault("lose-3-percent", &[strike(Primary, Lose(3))], stays(6)),
    fault("lose-1-percent-everywhere", &[strike(Databases, Lose(1))], stays(6)),
    fault("slow-2-mbit", &[strike(Primary, Slow(2000))], stays(3)),
    fault("delay-everywhere-25-ms", &[strike(Databases, Delay(25))], stays(4)),
    fault("delay-40-ms", &[strike(Primary, Delay(40))], stays(3)),
    // The disk under its data.
    fault("stall-disk-1s", &[strike(Primary, StallDisk), at(After(1000), Primary, Mend)], stays(4)),
    fault("stall-disk", &[strike(Primary, StallDisk)], fails_over(50)),
    // Shorter than failInterval: clients see errors until there is room again.
    fault("fill-disk-8s", &[strike(Primary, FillDisk), at(After(8000), Primary, Mend)], recovers(20)),
    fault("fill-disk-with-wal", &[strike(Primary, FillDisk), strike(Primary, WriteMuch)], fails_over(60)),
    // A second fault in the middle of a failover. The frozen proxy makes its middle long.
    fault(
        "leader-dies-under-the-mark",
        &[
            strike(OneProxy, Freeze(Proxy)),
            strike(Primary, Kill(KeeperAndPostgres)),
            at(Marked, Leader, Kill(Sentinel)),
        ],
        fails_over(35),
    ),
    fault(
        "etcd-leader-dies-under-the-mark",
        &[
            strike(OneProxy, Freeze(Proxy)),
            strike(Primary, Kill(KeeperAndPostgres)),
            at(Marked, EtcdLeader, Kill(Etcd)),
        ],
        fails_over(35),
    ),
    fault(
        "old-primary-wakes-under-the-mark",
        &[strike(OneProxy, Freeze(Proxy)), strike(Primary, Freeze(KeeperAndPostgres)), at(Marked, Primary, Mend)],
        recovers(25),
    ),
    // Synchronously nobody else may have what the winner acknowledged, if it came so far.
    but_synchronous(
        fault(
            "winner-dies-when-elected",
            &[strike(Primary, Kill(KeeperAndPostgres)), at(Elected, Winner, Kill(KeeperAndPostgres))],
            fails_over(45),
        ),
        any_way(),
    ),
    but_synchronous(
        fault(
            "winner-freezes-when-elected",
            &[strike(Primary, Kill(Postgres)), at(Elected, Winner, Freeze(KeeperAndPostgres))],
            fails_over(45),
        ),
        any_way(),
    ),
    but_synchronous(
        fault(
            "winner-is-cut-when-elected",
            &[strike(Primary, Kill(Postgres)), at(Elected, Winner, Cut(World, Both))],
            fails_over(60),
        ),
        any_way(),
    ),
];

/// Struck in turn, again and again, each time with two of three hosts left.
pub static REPEATED: &[&str] =
    &["kill-primary-host", "vanish-primary-host", "kill-keeper-and-postgres", "cut-everything"];

/// How often.
pub const ROUNDS: usize = 50;

pub fn named(name: &str) -> &'static Fault {
    FAULTS.iter().find(|fault| fault.name == name).unwrap_or_else(|| panic!("no fault is named {name}"))
}
