//! A decided commit as one etcd transaction (R2): what it compares, and what it puts. Pure.

use stolon::{
    model::{ClusterData, Revision},
    store::{Keys, Txn},
};

use crate::{
    decide::{Commit, Holder, PrimaryChange},
    election::Leadership,
};

/// `data` is the commit's cluster data, dated and with their trace context; `traceparent` goes into the `primary` key.
pub fn transaction(
    keys: &Keys,
    leadership: &Leadership,
    commit: &Commit,
    data: &ClusterData,
    traceparent: &str,
) -> Result<Txn, serde_json::Error> {
    let txn = Txn::new()
        .when_created(leadership.key(), leadership.created())
        .when_revision(keys.cluster_data(), commit.from)
        .put(keys.cluster_data(), data.to_json());
    match &commit.change {
        Some(change) => primary(txn, keys, change, traceparent),
        None => Ok(txn),
    }
}

fn primary(txn: Txn, keys: &Keys, change: &PrimaryChange, traceparent: &str) -> Result<Txn, serde_json::Error> {
    let holder = match change.holder {
        Holder::Absent => Revision(0),
        Holder::Fenced(revision) => revision,
    };
    let mut key = change.key.clone();
    traceparent.clone_into(&mut key.traceparent);
    let winner = keys.keeper(&key.keeper);
    Ok(txn
        .when_revision(keys.primary(), holder)
        .when_created(winner.as_str(), change.registered)
        .when_lease(winner.as_str(), change.lease)
        .when_revision(keys.epoch(), change.epoch_at)
        .put_on(change.lease, keys.primary(), serde_json::to_vec(&key)?)
        .put(keys.epoch(), key.epoch.to_string()))
}
