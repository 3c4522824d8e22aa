//! A connection's right to forward, as its task sees it: read before every byte goes out, and a way to be told that it
//! is over. Decides nothing: the gate does, under its lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use stolon::{model::Moment, task::clock};
use tokio::sync::watch;

use crate::gate::{Grant, Route, Serial};

/// One grant of the gate, shared by all connections that live on it.
#[derive(Debug)]
pub struct Pass {
    pub serial: Serial,
    pub route: Route,
    /// Nanoseconds since boot; 0 once it is revoked.
    until: AtomicU64,
    revoked: watch::Sender<bool>,
}

impl Pass {
    pub fn new(grant: &Grant) -> Pass {
        let until = AtomicU64::new(nanos(grant.until));
        Pass { serial: grant.serial, route: grant.route.clone(), until, revoked: watch::Sender::new(false) }
    }

    /// True while bytes may be forwarded. Looks at the clock: a process that was frozen past the deadline finds out
    /// here, whoever is scheduled first.
    pub fn holds(&self) -> bool {
        nanos(clock::now()) < self.until.load(Ordering::Acquire)
    }

    /// Returns once the grant is over.
    pub async fn revoked(&self) {
        // The sender lives in `self`: the channel can't close.
        let _ = self.revoked.subscribe().wait_for(|revoked| *revoked).await;
    }

    pub fn renew(&self, until: Moment) {
        self.until.store(nanos(until), Ordering::Release);
    }

    pub fn revoke(&self) {
        self.until.store(0, Ordering::Release);
        self.revoked.send_replace(true);
    }
}

fn nanos(moment: Moment) -> u64 {
    let since_boot: Duration = moment.since_boot();
    u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX)
}
