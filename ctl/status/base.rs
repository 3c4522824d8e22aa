//! What etcd alone tells about a cluster, and what is wrong with what it holds.

use stolon::{
    model::{
        ClusterData, ClusterName, Epoch, KeeperUid,
        cluster::Phase,
        cluster::Stage,
        cluster::{Db, DbRole},
    },
    store::Mirror,
};

use super::shape::{Cluster, Fencing, Keeper, Position, Primary, Proxy, Sentinel, Status, some};

pub fn base(name: &ClusterName, mirror: &Mirror) -> Status {
    let data = mirror.data().map(|(data, _)| &**data);
    let mut cluster = data.map_or_else(|| by_keys(mirror), head);
    cluster.name = name.to_string();
    cluster.revision = mirror.cluster.as_ref().map(|stored| stored.revision.0);
    cluster.available = data.is_some_and(|data| serves(mirror, data));
    let leader = mirror.leader().map(|candidate| candidate.uid.as_str());
    let sentinels = mirror.sentinels.values().map(|registered| &registered.info).map(|info| Sentinel {
        uid: info.uid.to_string(),
        leader: Some(info.uid.as_str()) == leader,
        grpc_address: some(&info.grpc_address),
    });
    let proxies = mirror.proxies.values().map(|registered| &registered.info).map(|info| Proxy {
        uid: info.uid.to_string(),
        generation: info.generation.0,
        listen_address: some(&info.listen_address),
        grpc_address: some(&info.grpc_address),
        ..Proxy::default()
    });
    Status {
        cluster,
        keepers: keepers(mirror, data),
        sentinels: sentinels.collect(),
        proxies: proxies.collect(),
        problems: damage(mirror),
        ..Status::default()
    }
}

/// No sentinel answered: says so, and what follows from etcd's keys.
pub fn alone(status: &mut Status, mirror: &Mirror, problem: String) {
    status.problems.push(format!("{problem}: shown is what etcd holds, without reports of now"));
    if mirror.leader().is_none() {
        status.problems.push("no sentinel leads: nothing can change the primary".into());
    }
    if mirror.cluster.is_none() {
        status.problems.push("there is no cluster data yet: the cluster is not initialised".into());
    } else if !status.cluster.available && status.cluster.fencing.is_none() {
        status.problems.push("no primary serves".into());
    }
}

/// What can't be read, or can't be.
fn damage(mirror: &Mirror) -> Vec<String> {
    let mut found: Vec<String> =
        mirror.malformed.iter().map(|(key, problem)| format!("key {key} in etcd: {problem}")).collect();
    match mirror.cluster.as_ref().map(|stored| &stored.data) {
        Some(Err(unreadable)) => found.push(unreadable.to_string()),
        Some(Ok(data)) => found.extend(impossible(data)),
        None => {}
    }
    found
}

fn impossible(data: &ClusterData) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(master) = &data.cluster.status.master
        && !data.dbs.contains_key(master)
    {
        found.push(format!("cluster data: the primary is db {master}, which is not among its dbs"));
    }
    for (uid, db) in &data.dbs {
        let keeper = &db.spec.keeper_uid;
        if !data.keepers.contains_key(keeper) {
            found
                .push(format!("cluster data: db {uid} is assigned to keeper {keeper}, which is not among its keepers"));
        }
    }
    if let Err(bad) = data.cluster.spec.resolve() {
        found.push(bad.to_string());
    }
    found
}

fn head(data: &ClusterData) -> Cluster {
    let status = &data.cluster.status;
    let primary = data.primary().map(|(uid, db)| Primary {
        keeper: db.spec.keeper_uid.to_string(),
        db: uid.to_string(),
        address: some(&db.status.listen_address).map(|host| format!("{host}:{}", db.status.port)),
        held_for_ms: None,
        position: position(db.status.timeline_id, db.status.xlog_pos),
    });
    Cluster {
        master_keeper_uid: primary.as_ref().map(|primary| primary.keeper.clone()),
        master_db_uid: primary.as_ref().map(|primary| primary.db.clone()),
        uid: Some(data.cluster.uid.to_string()),
        phase: Some(phase(status.phase).to_owned()),
        epoch: Some(status.epoch.0),
        primary,
        fencing: status.fencing.as_ref().map(|mark| Fencing {
            epoch: mark.epoch.0,
            stage: match mark.stage {
                Stage::Fence => "fence".into(),
                Stage::Recruit => "recruit".into(),
            },
            planned: mark.planned,
            reason: mark.reason.clone(),
        }),
        ..Cluster::default()
    }
}

/// Without cluster data that can be read: who holds the authority.
fn by_keys(mirror: &Mirror) -> Cluster {
    let Some(held) = mirror.primary.as_ref().map(|held| &held.value) else { return Cluster::default() };
    let ready = mirror.ready.as_ref().map(|held| &held.value).filter(|ready| ready.epoch == held.epoch);
    Cluster {
        master_keeper_uid: Some(held.keeper.to_string()),
        master_db_uid: Some(held.db.to_string()),
        epoch: Some(held.epoch.0),
        primary: Some(Primary {
            keeper: held.keeper.to_string(),
            db: held.db.to_string(),
            address: ready.map(|ready| format!("{}:{}", ready.address, ready.port)),
            ..Primary::default()
        }),
        ..Cluster::default()
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Initializing => "initializing",
        Phase::Normal => "normal",
    }
}

/// The primary of the cluster data's epoch holds its key and wrote that it serves (R10).
fn serves(mirror: &Mirror, data: &ClusterData) -> bool {
    let epoch = data.epoch();
    let (Some((db, _)), Some(primary), Some(ready)) = (data.primary(), &mirror.primary, &mirror.ready) else {
        return false;
    };
    let of = |epochs: [Epoch; 2]| epochs == [epoch, epoch];
    data.fencing().is_none() && of([primary.value.epoch, ready.value.epoch]) && &ready.value.db == db
}

/// Those of the cluster data, and those that are only registered.
fn keepers(mirror: &Mirror, data: Option<&ClusterData>) -> Vec<Keeper> {
    let mut uids: Vec<&KeeperUid> = data.into_iter().flat_map(|data| data.keepers.keys()).collect();
    uids.extend(mirror.keepers.keys());
    uids.sort();
    uids.dedup();
    uids.into_iter().map(|uid| keeper(uid, mirror, data)).collect()
}

fn keeper(uid: &KeeperUid, mirror: &Mirror, data: Option<&ClusterData>) -> Keeper {
    let info = mirror.keepers.get(uid).map(|registered| &registered.info);
    let db = data.and_then(|data| data.db_of(uid)).map(|(_, db)| db);
    let address = match (db, info) {
        (Some(db), _) if !db.status.listen_address.is_empty() => {
            format!("{}:{}", db.status.listen_address, db.status.port)
        }
        (_, Some(info)) if !info.pg_address.is_empty() => format!("{}:{}", info.pg_address, info.pg_port),
        _ => String::new(),
    };
    Keeper {
        uid: uid.to_string(),
        listen_address: address,
        healthy: info.is_some(),
        pg_healthy: info.is_some() && db.is_some_and(|db| db.status.healthy),
        pg_wanted_generation: db.map_or(0, |db| db.generation.0),
        pg_current_generation: db.map_or(0, |db| db.status.current_generation.0),
        db: db.map(|db| db.uid.to_string()),
        synchronous: data.zip(db).and_then(|(data, db)| data.synchronous(&db.uid)).map(str::to_owned),
        role: data.zip(db).map(|(data, db)| role(data, db).to_owned()),
        registered: info.is_some(),
        grpc_address: info.and_then(|info| some(&info.grpc_address)),
        position: db.map(|db| position(db.status.timeline_id, db.status.xlog_pos)).unwrap_or_default(),
        leaving: info.is_some_and(|info| info.leaving),
        ..Keeper::default()
    }
}

fn role(data: &ClusterData, db: &Db) -> &'static str {
    match db.spec.role {
        DbRole::Master if data.cluster.status.master.as_ref() == Some(&db.uid) => "primary",
        DbRole::Master => "former primary",
        DbRole::Standby => "standby",
    }
}

/// As stored: 0 means that it is not known.
fn position(timeline: u32, lsn: stolon::model::Lsn) -> Position {
    match timeline {
        0 => Position::default(),
        _ => Position { timeline: Some(timeline), lsn: Some(lsn.to_string()) },
    }
}
