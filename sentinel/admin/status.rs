//! The whole cluster in one answer: what etcd says, with what was observed beside it. A function of both and the time.

use std::collections::BTreeSet;

use stolon::{
    model::{
        ClusterData, KeeperUid, Moment,
        cluster::{Db, DbRole},
        view,
    },
    store::Mirror,
    wire::{millis, v1},
};

use super::{
    available::{self, SILENT},
    problems,
};
use crate::{
    decide::Facts,
    observe::{Observations, Peer},
};

/// Without the uid of who answers, and the reasons of the leader.
pub fn cluster(now: Moment, mirror: &Mirror, seen: &Observations) -> v1::GetClusterStatusResponse {
    let stored = mirror.data();
    let data = stored.map(|(data, _)| &**data);
    let primary = data.and_then(|data| data.primary());
    let primary = primary.map(|(db, object)| view::Primary { db: db.clone(), keeper: object.spec.keeper_uid.clone() });
    let obstacle = available::obstacle(now, mirror, seen);
    v1::GetClusterStatusResponse {
        cluster_uid: data.map(|data| data.cluster.uid.to_string()).unwrap_or_default(),
        revision: mirror.cluster.as_ref().map_or(0, |stored| stored.revision.0),
        epoch: data.map_or(0, |data| data.epoch().0),
        fencing: data.and_then(|data| data.fencing()).map(Into::into),
        primary: primary.as_ref().map(Into::into),
        available: obstacle.is_none(),
        problems: problems::visible(mirror)
            .into_iter()
            .chain(obstacle)
            .chain(silent(now, mirror, seen))
            .chain(failures(seen))
            .collect(),
        sentinels: sentinels(mirror),
        keepers: keepers(now, mirror, data, seen),
        proxies: proxies(now, mirror, seen),
        answered_by: String::new(),
    }
}

fn facts<'a>(mirror: &'a Mirror, seen: &'a Observations, uid: &KeeperUid) -> Facts<'a> {
    Facts { registered: mirror.keepers.get(uid), peer: seen.keepers.get(uid) }
}

/// Registered, so that its process may live, and not heard.
fn silent(now: Moment, mirror: &Mirror, seen: &Observations) -> Vec<String> {
    let missed = mirror.keepers.keys().filter(|uid| !seen.hears(now, uid, SILENT));
    let line = |uid: &KeeperUid| match seen.keepers.get(uid).and_then(|peer| peer.report.as_ref()) {
        Some((_, at)) => {
            format!("keeper {uid} is silent: its last report is {:.1} s old", now.since(*at).as_secs_f64())
        }
        None => format!("keeper {uid} is registered and has not reported to this sentinel yet"),
    };
    missed.map(line).collect()
}

fn failures(seen: &Observations) -> impl Iterator<Item = String> + '_ {
    let told = seen.keepers.iter().filter(|(_, peer)| peer.connected);
    let failing = told.filter_map(|(uid, peer)| peer.report.as_ref().map(|(report, _)| (uid, &report.failure)));
    failing.filter(|(_, failure)| !failure.is_empty()).map(|(uid, failure)| format!("keeper {uid}: {failure}"))
}

fn sentinels(mirror: &Mirror) -> Vec<v1::SentinelEntry> {
    let leader = mirror.leader().map(|leader| &leader.uid);
    let entry = |(uid, registered): (_, &stolon::store::Registered<stolon::model::registration::SentinelInfo>)| {
        v1::SentinelEntry {
            uid: format!("{uid}"),
            leader: leader == Some(uid),
            grpc_address: registered.info.grpc_address.clone(),
        }
    };
    mirror.sentinels.iter().map(entry).collect()
}

fn keepers(now: Moment, mirror: &Mirror, data: Option<&ClusterData>, seen: &Observations) -> Vec<v1::KeeperEntry> {
    let named = data.into_iter().flat_map(|data| data.keepers.keys());
    let uids: BTreeSet<&KeeperUid> = named.chain(mirror.keepers.keys()).collect();
    uids.into_iter().map(|uid| keeper(now, mirror, data, seen, uid)).collect()
}

fn keeper(
    now: Moment,
    mirror: &Mirror,
    data: Option<&ClusterData>,
    seen: &Observations,
    uid: &KeeperUid,
) -> v1::KeeperEntry {
    let facts = facts(mirror, seen, uid);
    let db = data.and_then(|data| data.db_of(uid)).map(|(_, db)| db);
    let failed = data.and_then(|data| data.keepers.get(uid)).is_some_and(|keeper| keeper.status.force_fail);
    let here = seen.hears(now, uid, SILENT);
    let (report, report_age_ms) = last(now, facts.peer);
    v1::KeeperEntry {
        uid: uid.to_string(),
        db: db.map(|db| db.uid.to_string()).unwrap_or_default(),
        role: data.zip(db).map(|(data, db)| role(data, db)).unwrap_or_default().into(),
        listen_address: facts.postgres_address().map(|(host, port)| join(&host, port)).unwrap_or_default(),
        grpc_address: facts.info().map(|info| info.grpc_address.clone()).unwrap_or_default(),
        registered: facts.registered.is_some(),
        healthy: here && !failed && facts.failure().is_empty(),
        postgres_healthy: db.is_some_and(|db| here && facts.serves(&db.uid, db.spec.role == DbRole::Master)),
        wanted_generation: db.map_or(0, |db| db.generation.0),
        current_generation: db.and_then(|db| facts.generation(&db.uid)).map_or(0, |generation| generation.0),
        report,
        report_age_ms,
        synchronous: data.zip(db).and_then(|(data, db)| data.synchronous(&db.uid)).unwrap_or_default().into(),
    }
}

fn role(data: &ClusterData, db: &Db) -> &'static str {
    match db.spec.role {
        DbRole::Master if data.cluster.status.master.as_ref() == Some(&db.uid) => "primary",
        DbRole::Master => "former primary",
        DbRole::Standby => "standby",
    }
}

fn proxies(now: Moment, mirror: &Mirror, seen: &Observations) -> Vec<v1::ProxyEntry> {
    let entry = |(uid, registered): (_, &stolon::store::Registered<stolon::model::registration::ProxyInfo>)| {
        let (report, report_age_ms) = last(now, seen.proxies.get(uid));
        v1::ProxyEntry {
            uid: format!("{uid}"),
            listen_address: registered.info.listen_address.clone(),
            grpc_address: registered.info.grpc_address.clone(),
            report,
            report_age_ms,
        }
    };
    mirror.proxies.iter().map(entry).collect()
}

/// The last report over an open stream, with its age in milliseconds.
fn last<R, M: for<'a> From<&'a R>>(now: Moment, peer: Option<&Peer<R>>) -> (Option<M>, u64) {
    match peer.filter(|peer| peer.connected).and_then(|peer| peer.report.as_ref()) {
        Some((report, at)) => (Some(report.into()), millis(now.since(*at))),
        None => (None, 0),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
