//! What one component needs of the cluster data: pure functions of the document and its revision, the same whether the
//! document came by etcd's watch or the view by a sentinel's stream. The newer revision wins (R5).

use std::{collections::BTreeMap, time::Duration};

use super::{
    ClusterData, ClusterUid, DbUid, Epoch, Generation, KeeperUid, Revision,
    cluster::{Db, DbInitMode, DbRole, Fencing, Lineage},
    spec::{AccessMode, BadSpec, NewConfig, Spec},
};

/// The primary of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    pub db: DbUid,
    pub keeper: KeeperUid,
}

#[derive(Clone, Debug, PartialEq)]
pub struct KeeperView {
    pub cluster_uid: ClusterUid,
    pub revision: Revision,
    pub epoch: Epoch,
    pub fencing: Option<Fencing>,
    pub primary: Option<Primary>,
    pub assignment: Option<Assignment>,
    pub timings: Timings,
    /// The primary is to prepare for being handed over in this epoch (R8).
    pub handover: bool,
    pub lineage: Vec<Lineage>,
}

/// Durations of the specification that a keeper follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    pub sleep_interval: Duration,
    pub request_timeout: Duration,
    pub fail_interval: Duration,
    pub ready_timeout: Duration,
}

/// The db object of one keeper.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub db: DbUid,
    pub generation: Generation,
    pub init: InitMode,
    pub role: Role,
    pub settings: Settings,
    /// Synchronous replication is in force: a standby runs with the blocking name (R21).
    pub synchronous: bool,
    pub use_pg_rewind: bool,
    /// Report the parameters of the new server, to be merged into the specification.
    pub merge_parameters: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InitMode {
    /// The database exists; only converge.
    None,
    New(NewConfig),
    Existing,
    /// Follow, else pg_rewind, else a base backup.
    Resync,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    Primary {
        /// Each has a slot.
        followers: Vec<DbUid>,
        /// Further slots, without `stolon_`.
        additional_slots: Vec<String>,
        /// Application names that commits wait for; empty for asynchronous.
        synchronous_names: Vec<String>,
    },
    Standby(Upstream),
}

/// The server that a standby follows; no address while its keeper has not registered one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub db: DbUid,
    pub address: Option<(String, u16)>,
}

/// What shapes `postgresql.conf` and `pg_hba.conf`, before the keeper's own lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub parameters: BTreeMap<String, String>,
    /// None: the default lines.
    pub hba: Option<Vec<String>>,
    pub max_standbys: u16,
    pub additional_wal_senders: u16,
    pub automatic_restart: bool,
    pub access: Access,
}

/// From where superuser and replication connections are admitted.
#[derive(Clone, Debug, PartialEq)]
pub enum Access {
    Everywhere,
    /// Only from these hosts.
    Only(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProxyView {
    pub cluster_uid: ClusterUid,
    pub revision: Revision,
    pub epoch: Epoch,
    pub fencing: Option<Fencing>,
    pub primary: Option<Primary>,
    /// Clients need no credentials: the proxy must listen on loopback only.
    pub open_to_all: bool,
    pub proxy_timeout: Duration,
}

/// Field of `cluster.status` that says that clients need no credentials.
pub const OPEN_TO_ALL: &str = "openToAll";

fn primary(data: &ClusterData) -> Option<Primary> {
    data.primary().map(|(uid, db)| Primary { db: uid.clone(), keeper: db.spec.keeper_uid.clone() })
}

impl KeeperView {
    pub fn derive(data: &ClusterData, revision: Revision, keeper: &KeeperUid) -> Result<KeeperView, BadSpec> {
        let spec = data.cluster.spec.resolve()?;
        Ok(KeeperView {
            cluster_uid: data.cluster.uid.clone(),
            revision,
            epoch: data.epoch(),
            fencing: data.fencing().cloned(),
            primary: primary(data),
            assignment: data.db_of(keeper).map(|(_, db)| assignment(data, &spec, db)),
            timings: Timings {
                sleep_interval: spec.sleep_interval,
                request_timeout: spec.request_timeout,
                fail_interval: spec.fail_interval,
                ready_timeout: spec.ready_timeout,
            },
            handover: data.cluster.status.handover.as_ref().is_some_and(|handover| handover.epoch == data.epoch()),
            lineage: data.cluster.status.history.clone(),
        })
    }

    /// True when the view names this keeper's db as the primary of `epoch`.
    pub fn names_primary(&self, keeper: &KeeperUid) -> bool {
        self.primary.as_ref().is_some_and(|primary| &primary.keeper == keeper)
    }
}

impl ProxyView {
    pub fn derive(data: &ClusterData, revision: Revision) -> Result<ProxyView, BadSpec> {
        let spec = data.cluster.spec.resolve()?;
        Ok(ProxyView {
            cluster_uid: data.cluster.uid.clone(),
            revision,
            epoch: data.epoch(),
            fencing: data.fencing().cloned(),
            primary: primary(data),
            open_to_all: data
                .cluster
                .status
                .extra
                .get(OPEN_TO_ALL)
                .is_some_and(|v| v == &serde_json::Value::Bool(true)),
            proxy_timeout: spec.proxy_timeout,
        })
    }
}

fn assignment(data: &ClusterData, spec: &Spec, db: &Db) -> Assignment {
    let wanted = &db.spec;
    Assignment {
        db: db.uid.clone(),
        generation: db.generation,
        init: match wanted.init_mode {
            DbInitMode::None => InitMode::None,
            DbInitMode::New => InitMode::New(wanted.new_config.clone().unwrap_or_default()),
            DbInitMode::Existing | DbInitMode::Pitr => InitMode::Existing,
            DbInitMode::Resync => InitMode::Resync,
        },
        role: role(data, db),
        settings: Settings {
            parameters: wanted.pg_parameters.clone(),
            hba: wanted.pg_hba.clone(),
            max_standbys: wanted.max_standbys,
            additional_wal_senders: wanted.additional_wal_senders,
            automatic_restart: spec.automatic_restart,
            access: access(data, spec, db),
        },
        synchronous: wanted.synchronous_replication,
        use_pg_rewind: wanted.use_pgrewind,
        merge_parameters: wanted.include_config,
    }
}

fn role(data: &ClusterData, db: &Db) -> Role {
    let wanted = &db.spec;
    match (wanted.role, wanted.follow_config.as_ref().and_then(|follow| follow.dbuid.as_ref())) {
        (DbRole::Standby, Some(upstream)) => {
            Role::Standby(Upstream { db: upstream.clone(), address: address(data, upstream) })
        }
        _ => Role::Primary {
            followers: wanted.followers.clone(),
            additional_slots: wanted.additional_replication_slots.clone().unwrap_or_default(),
            synchronous_names: synchronous_names(db),
        },
    }
}

fn synchronous_names(db: &Db) -> Vec<String> {
    if !db.spec.synchronous_replication {
        return Vec::new();
    }
    let own = db.spec.synchronous_standbys.iter().flatten().map(DbUid::slot);
    own.chain(db.spec.external_synchronous_standbys.iter().flatten().cloned()).collect()
}

fn address(data: &ClusterData, db: &DbUid) -> Option<(String, u16)> {
    let status = &data.dbs.get(db)?.status;
    let port = status.port.parse().ok()?;
    (!status.listen_address.is_empty()).then(|| (status.listen_address.clone(), port))
}

fn access(data: &ClusterData, spec: &Spec, db: &Db) -> Access {
    match spec.access {
        AccessMode::All => Access::Everywhere,
        AccessMode::Strict => Access::Only(
            data.dbs
                .values()
                .filter(|other| other.uid != db.uid)
                .filter_map(|other| address(data, &other.uid))
                .map(|a| a.0)
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured() -> ClusterData {
        ClusterData::parse(include_bytes!("testdata/clusterdata.json")).unwrap()
    }

    #[test]
    fn a_standby_follows_the_primarys_stored_address() {
        let keeper = KeeperUid::parse("keeper1").unwrap();
        let view = KeeperView::derive(&captured(), Revision(9), &keeper).unwrap();
        let Role::Standby(upstream) = view.assignment.unwrap().role else { panic!("keeper1 is a standby") };
        assert_eq!(upstream.address, Some(("127.0.0.1".to_owned(), 15432)));
        assert!(view.primary.is_some_and(|primary| primary.keeper.as_str() == "keeper0"));
    }

    #[test]
    fn a_primary_waits_for_its_synchronous_standbys_by_their_slot_names() {
        let keeper = KeeperUid::parse("keeper0").unwrap();
        let view = KeeperView::derive(&captured(), Revision(9), &keeper).unwrap();
        let Role::Primary { synchronous_names, additional_slots, .. } = view.assignment.unwrap().role else {
            panic!("keeper0 is the primary")
        };
        assert_eq!(synchronous_names, ["stolon_50e47c12"]);
        assert_eq!(additional_slots, ["extra"]);
    }

    #[test]
    fn a_keeper_without_a_db_has_no_assignment() {
        let keeper = KeeperUid::parse("stranger").unwrap();
        assert!(KeeperView::derive(&captured(), Revision(9), &keeper).unwrap().assignment.is_none());
    }
}
