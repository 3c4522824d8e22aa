//! The cluster's specification, carried into the specification of each db; generations grow with it, and with nothing
//! else.

use stolon::model::{
    ClusterData, DbUid, Generation, KeeperUid,
    cluster::{Db, DbInitMode, DbRole, DbSpec, DbStatus},
    godur::GoDuration,
    spec::{Spec, StoredSpec},
};

use super::Case;

/// Raises the generation of each db whose specification differs from `before`.
pub fn bump(before: &ClusterData, next: &mut ClusterData) {
    for (uid, db) in &mut next.dbs {
        if let Some(old) = before.dbs.get(uid).filter(|old| old.spec != db.spec) {
            db.generation = old.generation.next();
        }
    }
}

/// Writes what the cluster's specification says into all dbs; also what was merged into it just now.
pub fn carry(case: &Case<'_>, next: &mut ClusterData) {
    let stored = &next.cluster.spec;
    let merged = stored.resolve();
    let spec = merged.as_ref().unwrap_or(&case.spec);
    for db in next.dbs.values_mut() {
        apply(spec, stored, &mut db.spec);
    }
}

fn apply(spec: &Spec, stored: &StoredSpec, db: &mut DbSpec) {
    db.request_timeout = Some(GoDuration(spec.request_timeout));
    db.max_standbys = spec.max_standbys;
    db.use_pgrewind = spec.use_pg_rewind;
    db.additional_wal_senders = spec.additional_wal_senders;
    let slots = stored.additional_master_replication_slots.clone();
    db.additional_replication_slots = slots.filter(|_| db.role == DbRole::Master);
    db.pg_parameters = spec.parameters.clone();
    db.pg_hba = spec.hba.clone();
}

/// A db object on a keeper, of generation 1, without a status.
pub fn new_db(
    spec: &Spec,
    stored: &StoredSpec,
    uid: DbUid,
    keeper: &KeeperUid,
    init_mode: DbInitMode,
    role: DbRole,
) -> Db {
    let mut db = bare_db(uid, keeper, init_mode, role);
    apply(spec, stored, &mut db.spec);
    db
}

fn bare_db(uid: DbUid, keeper: &KeeperUid, init_mode: DbInitMode, role: DbRole) -> Db {
    Db {
        uid,
        generation: Generation(1),
        change_time: String::new(),
        spec: DbSpec {
            keeper_uid: keeper.clone(),
            request_timeout: None,
            max_standbys: 0,
            synchronous_replication: false,
            use_pgrewind: false,
            additional_wal_senders: 0,
            additional_replication_slots: None,
            init_mode,
            new_config: None,
            pitr_config: None,
            pg_parameters: Default::default(),
            pg_hba: None,
            role,
            follow_config: None,
            followers: Vec::new(),
            include_config: false,
            synchronous_standbys: None,
            external_synchronous_standbys: None,
            extra: Default::default(),
        },
        status: DbStatus::default(),
        extra: Default::default(),
    }
}
