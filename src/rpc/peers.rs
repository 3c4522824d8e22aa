//! Streams that a server has open, for status answers: who, from where, since when.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    model::Moment,
    task::clock,
    wire::{millis, v1},
};

#[derive(Debug)]
struct Entry {
    uid: String,
    address: String,
    since: Moment,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

/// All streams that peers hold to this server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Mutex<Table>>);

/// One stream; gone from the table when dropped.
#[derive(Debug)]
pub struct Peer {
    table: Peers,
    number: u64,
}

impl Peers {
    pub fn new() -> Peers {
        Peers::default()
    }

    /// Counts a stream; take the address from `Request::remote_addr`.
    pub fn enter(&self, address: Option<SocketAddr>) -> Peer {
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        table.entries.insert(number, Entry { uid: String::new(), address, since: clock::now() });
        Peer { table: self.clone(), number }
    }

    pub fn status(&self) -> Vec<v1::StreamStatus> {
        let now = clock::now();
        let status = |entry: &Entry| v1::StreamStatus {
            peer: entry.uid.clone(),
            address: entry.address.clone(),
            connected: true,
            since_ms: millis(now.since(entry.since)),
            error: String::new(),
        };
        self.lock().entries.values().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// The peer has said who it is.
    pub fn named(&self, uid: &str) {
        if let Some(entry) = self.table.lock().entries.get_mut(&self.number) {
            entry.uid = uid.to_owned();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.table.lock().entries.remove(&self.number);
    }
}
