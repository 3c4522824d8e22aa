//! etcd: one mirror of the cluster's keys by watch, registrations on leases, and compare-and-swap transactions.
//! Decides nothing; whoever writes shows by what it compares that it may.

mod fold;
mod keys;
mod line;
#[cfg(test)]
mod line_tests;
mod mirror;
mod registration;
mod tls;
mod txn;
mod watch;

use std::{sync::Arc, time::Duration};

use etcd_client::{Error, GetOptions, LeaseTimeToLiveOptions};
use tokio::sync::watch as channel;
use tonic::Code;

pub use fold::Entry;
pub use keys::Keys;
pub use line::StoreError;
pub use mirror::{Candidate, Held, Mirror, Registered, Stored};
pub use registration::{Begin, LeaseState, Registration};
pub use txn::{Change, Condition, Is, Outcome, Txn};

use crate::{
    cli::StoreArgs,
    model::{LeaseId, Revision},
    task::Shutdown,
    wire::v1,
};
use line::{Kind, Line};

/// A cluster's keys in etcd. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    line: Line,
    keys: Keys,
    mirror: channel::Sender<Option<Arc<Mirror>>>,
    /// The newest revision that somebody else has seen of this store.
    told: channel::Sender<Revision>,
}

impl Store {
    /// Makes no connection. An error is one line that names the flag or the file.
    pub fn new(args: &StoreArgs) -> Result<Store, String> {
        let keys = Keys::new(&args.store_prefix, &args.cluster_name);
        let (mirror, told) = (channel::Sender::new(None), channel::Sender::new(Revision(0)));
        Ok(Store(Arc::new(Inner { line: Line::new(args)?, keys, mirror, told })))
    }

    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// The newest snapshot, by watch or reading; `None` before the first. Its revision never falls.
    pub fn mirror(&self) -> channel::Receiver<Option<Arc<Mirror>>> {
        self.0.mirror.subscribe()
    }

    /// Somebody has seen this revision. Etcd is asked when the watch does not bring it soon: its member may be frozen or
    /// cut off. Proves nothing; an untrue one costs a reading.
    pub fn told(&self, revision: Revision) {
        self.0.told.send_if_modified(|known| {
            let newer = *known < revision;
            if newer {
                *known = revision;
            }
            newer
        });
    }

    /// Why what answers is not believed any more, in one line: it is another store than was known, or an older copy of it
    /// (R5). For good. Whoever waits for the mirror to change is woken by it.
    pub fn refusal(&self) -> Option<String> {
        self.0.line.refusal().map(str::to_owned)
    }

    /// Keeps the mirror up to date until the shutdown. One task of each daemon.
    pub async fn watch(self, shutdown: Shutdown) -> Result<(), String> {
        watch::run(&self, shutdown).await;
        Ok(())
    }

    /// A linearizable read of all keys. The mirror gets it too, if it is newer.
    pub async fn read(&self) -> Result<Arc<Mirror>, StoreError> {
        let base = self.0.keys.base();
        let seen = self.0.mirror.borrow().as_ref().map_or(Revision(0), |mirror| mirror.revision);
        let range = |client: etcd_client::Client| async move {
            client.kv_client().get(base, Some(GetOptions::new().with_prefix())).await
        };
        let answer = self.0.line.call(Kind::Read, range).await?;
        let header = answer.header();
        let mut mirror = Mirror {
            revision: Revision(header.map_or(0, |header| header.revision())),
            etcd_cluster: header.map_or(0, |header| header.cluster_id()),
            ..Mirror::default()
        };
        answer.kvs().iter().for_each(|kv| mirror.put(&self.0.keys, entry(kv)));
        let mirror = Arc::new(mirror);
        watch::publish(self, &mirror, seen)?;
        Ok(mirror)
    }

    /// Runs a transaction. `Unknown` when it may have been done: read before anything else.
    pub async fn transact(&self, txn: &Txn) -> Result<Outcome, StoreError> {
        let sent = std::sync::atomic::AtomicU32::new(0);
        let request = |client: etcd_client::Client| {
            sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move { client.kv_client().txn(txn.request()).await }
        };
        let answer = self.0.line.call(Kind::Write, request).await;
        let before = sent.into_inner() > 1;
        match answer {
            Ok(answer) if answer.succeeded() => {
                Ok(Outcome::Done(Revision(answer.header().map_or(0, |header| header.revision()))))
            }
            // An earlier attempt, whose answer was lost, may have been the one that changed what this one compared.
            Ok(_) if before => Err(StoreError::Unknown("it was sent again, and then conflicted".into())),
            Ok(_) => Ok(Outcome::Conflict),
            Err(StoreError::Unavailable(problem)) => Err(StoreError::Unknown(problem)),
            Err(other) => Err(other),
        }
    }

    /// The time that a lease was granted for; `None` when it is gone.
    pub async fn granted_ttl(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        let ask = |client: etcd_client::Client| async move {
            let options = Some(LeaseTimeToLiveOptions::new());
            client.lease_client().time_to_live(lease.0, options).await
        };
        let answer = self.0.line.call(Kind::Read, ask).await?;
        let granted = u64::try_from(answer.granted_ttl()).unwrap_or(0);
        Ok((answer.ttl() > 0).then(|| Duration::from_secs(granted)))
    }

    /// Ends a lease, and all keys on it. One that is gone already is fine.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revoke = |client: etcd_client::Client| async move {
            match client.lease_client().revoke(lease.0).await {
                Err(Error::GRpcStatus(status)) if status.code() == Code::NotFound => Ok(()),
                ended => ended.map(drop),
            }
        };
        self.0.line.call(Kind::Write, revoke).await
    }

    /// Health of the line and revision of the mirror; `lease` is the daemon's own registration.
    pub fn status(&self, lease: Option<&LeaseState>) -> v1::StoreStatus {
        let now = crate::task::clock::now();
        let revision = self.0.mirror.borrow().as_ref().map_or(0, |mirror| mirror.revision.0);
        let lease_remaining_ms = lease.map_or(0, |lease| crate::wire::millis(lease.deadline.since(now)));
        v1::StoreStatus { revision, lease_remaining_ms, ..self.0.line.status() }
    }
}

fn entry(kv: &etcd_client::KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: kv.value().to_vec(),
        lease: LeaseId(kv.lease()),
        created: Revision(kv.create_revision()),
        modified: Revision(kv.mod_revision()),
    }
}
