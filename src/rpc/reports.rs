//! Where heartbeats come from: a function that makes the report of this instant, and a way to say "send it now".

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{model::spec::HEARTBEAT_INTERVAL, wire::millis};

/// Source of a daemon's heartbeats. Each stream calls the function at each beat, so that the ages inside are
/// true when they leave; it must not block, nor do disk I/O or SQL (R13).
pub struct Reports<R> {
    make: Arc<dyn Fn() -> R + Send + Sync>,
    urged: watch::Receiver<String>,
    /// Milliseconds between two beats.
    every: Arc<AtomicU64>,
}

impl<R> Clone for Reports<R> {
    fn clone(&self) -> Self {
        Reports { make: self.make.clone(), urged: self.urged.clone(), every: self.every.clone() }
    }
}

/// The daemon's end: asks all streams for a report at once.
#[derive(Clone, Debug)]
pub struct Urge(watch::Sender<String>);

impl<R> Reports<R> {
    pub fn new(make: impl Fn() -> R + Send + Sync + 'static) -> (Reports<R>, Urge) {
        let sender = watch::Sender::new(String::new());
        let every = Arc::new(AtomicU64::new(millis(HEARTBEAT_INTERVAL)));
        (Reports { make: Arc::new(make), urged: sender.subscribe(), every }, Urge(sender))
    }

    /// `heartbeatInterval`, as it is set now.
    pub(super) fn every(&self) -> Duration {
        Duration::from_millis(self.every.load(Ordering::Relaxed))
    }

    /// Counts from the next beat on.
    pub(super) fn set_every(&self, interval: Duration) {
        self.every.store(millis(interval).max(1), Ordering::Relaxed);
    }

    /// The report of this instant.
    pub fn now(&self) -> R {
        (self.make)()
    }

    pub(super) fn urged(&mut self) -> &mut watch::Receiver<String> {
        &mut self.urged
    }
}

impl Urge {
    /// Sends a report on every stream at once. Call it after the state that the function reads has changed. The
    /// traceparent (empty for none) is of the work that caused the change; several calls before the streams have run
    /// make one report with the last one's.
    pub fn now(&self, traceparent: String) {
        self.0.send_replace(traceparent);
    }
}
