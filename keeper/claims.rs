//! The two transactions by which a keeper claims what is its own: `ready` (R10), and the key `primary` put back (R3). Pure:
//! what each compares is the whole of its safety.

use stolon::{
    model::{
        Epoch, KeeperUid, LeaseId, Revision,
        registration::{PrimaryKey, ReadyKey},
    },
    store::{Keys, Mirror, Txn},
};

/// Writes `ready`, as long as the key `primary` is the one of revision `held`.
pub fn announce(keys: &Keys, held: Revision, lease: LeaseId, ready: &ReadyKey) -> Result<Txn, String> {
    let value = serde_json::to_vec(ready).map_err(|error| error.to_string())?;
    let txn = Txn::new().when_revision(keys.primary(), held).put(keys.served(), value.clone());
    Ok(txn.put_on(lease, keys.ready(), value))
}

/// Puts `primary` of `epoch` back on `lease`, which must carry the registration, when neither the cluster data nor the
/// absence of the key have changed since `mirror`. The error says in one line why that may not be asked for.
pub fn put_back(keys: &Keys, mirror: &Mirror, me: &KeeperUid, epoch: Epoch, lease: LeaseId) -> Result<Txn, String> {
    let (data, revision) = mirror.data().ok_or("no cluster data")?;
    let own =
        data.primary().filter(|(_, db)| data.epoch() == epoch && data.fencing().is_none() && db.spec.keeper_uid == *me);
    let (db, _) = own.ok_or_else(|| format!("epoch {epoch} is no longer ours"))?;
    let key = PrimaryKey { keeper: me.clone(), db: db.clone(), epoch, traceparent: String::new() };
    let value = serde_json::to_vec(&key).map_err(|error| error.to_string())?;
    Ok(Txn::new()
        .when_revision(keys.cluster_data(), revision)
        .when_created(keys.primary(), Revision(0))
        .when_lease(keys.keeper(me), lease)
        .put_on(lease, keys.primary(), value))
}
