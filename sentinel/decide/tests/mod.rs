//! Golden scenarios over the pure core: a small cluster whose keepers and proxies say what the test lets them say.
//! Every decision goes through the checker, and deciding again on its result changes nothing.

mod failover;
mod first;
mod handover;
mod members;
mod rules;
mod simulation;
mod suspicion;
mod switchover;
mod synchronous;
mod synchronous_elections;
mod town;
mod voices;

use std::time::Duration;

use stolon::model::{DbUid, KeeperUid, ProxyUid};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn keeper(uid: &str) -> KeeperUid {
    KeeperUid::parse(uid).unwrap()
}

fn proxy(uid: &str) -> ProxyUid {
    ProxyUid::parse(uid).unwrap()
}

fn db(uid: &str) -> DbUid {
    DbUid::parse(uid).unwrap()
}
