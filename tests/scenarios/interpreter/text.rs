//! Cluster data and decisions as lines for people. Lists name keepers, because that is what operators know.

use std::collections::BTreeMap;

use stolon::model::{
    ClusterData, DbUid,
    cluster::{BLOCKING_NAME, Db, DbInitMode, DbRole, Fencing, Phase},
};

use super::decide::{Action, Commit, REVOKED, Step};

/// One line: where the cluster stands.
pub fn summary(data: &ClusterData) -> String {
    let facts = facts(data);
    let of = |key: &str| facts.get(key).cloned();
    let parts = ["1 primary", "2 list", "3 electable", "4 handover", "5 mark"];
    parts.iter().filter_map(|key| of(key)).collect::<Vec<_>>().join(", ")
}

/// What a commit changes, one line per fact; facts that go are said to go.
pub fn changes(before: Option<&ClusterData>, after: &ClusterData) -> Vec<String> {
    let (old, new) = (before.map(facts).unwrap_or_default(), facts(after));
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let mut lines: Vec<String> = new.iter().filter(|(k, v)| old.get(*k) != Some(v)).map(|(_, v)| v.clone()).collect();
    lines.extend(gone.map(|(key, text)| match key.split_once(' ') {
        Some((_, kind)) if kind.starts_with("db") => format!("gone: {}", text.split(':').next().unwrap_or(text)),
        Some((_, kind)) => format!("no {kind} any more"),
        None => format!("no {key} any more"),
    }));
    lines
}

/// Sorted by key: number, then kind.
fn facts(data: &ClusterData) -> BTreeMap<String, String> {
    let status = &data.cluster.status;
    let mut facts = BTreeMap::new();
    let mut add = |key: &str, text: String| facts.insert(key.to_owned(), text);
    if status.phase == Phase::Initializing {
        add("0 initialisation", "initialising".to_owned());
    }
    if let Some((uid, db)) = data.primary() {
        add("1 primary", format!("epoch {}, primary {}", status.epoch, db.spec.keeper_uid));
        if db.spec.synchronous_replication {
            add("2 list", format!("list {}", list(data, uid)));
            add("3 electable", format!("electable {}", names(data, db.status.synchronous_standbys.iter().flatten())));
        }
    }
    if let Some(handover) = &status.handover {
        let to = handover.to.as_ref().map_or("the best".to_owned(), ToString::to_string);
        add("4 handover", format!("handover to {to} in preparation"));
    }
    if let Some(mark) = data.fencing() {
        add("5 mark", marked(mark));
    }
    if let Some(revoked) = status.extra.get(REVOKED) {
        add("6 revoked leases", format!("revoked leases of proxies, with their TTL in ms: {revoked}"));
    }
    for entry in &status.history {
        let key = format!("7 lineage {:04}", entry.epoch.0);
        add(&key, format!("lineage: epoch {} is timeline {} from {}", entry.epoch, entry.timeline, entry.switch_lsn));
    }
    for (uid, db) in &data.dbs {
        add(&format!("8 db {uid}"), object(data, uid, db));
    }
    let keepers: Vec<&str> = data.keepers.keys().map(|uid| uid.as_str()).collect();
    add("9 keepers", format!("keepers [{}]", keepers.join(" ")));
    let proxies: Vec<&str> = data.proxy.spec.enabled_proxies.iter().map(|uid| uid.as_str()).collect();
    add("9 proxies", format!("proxies [{}]", proxies.join(" ")));
    facts
}

fn marked(mark: &Fencing) -> String {
    let planned = if mark.planned { ", planned" } else { "" };
    let to = mark.to.as_ref().map_or(String::new(), |to| format!(" to {to}"));
    format!("mark: epoch {} ends, stage {:?}{planned}{to}", mark.epoch, mark.stage)
        .replace("Fence", "fence")
        .replace("Recruit", "recruit")
}

pub fn object(data: &ClusterData, uid: &DbUid, db: &Db) -> String {
    let role = match db.spec.role {
        DbRole::Master if data.cluster.status.master.as_ref() == Some(uid) => {
            format!("primary, followers {}", names(data, db.spec.followers.iter()))
        }
        DbRole::Master => "former primary".to_owned(),
        DbRole::Standby => {
            let of = db.spec.follow_config.as_ref().and_then(|follow| follow.dbuid.as_ref());
            format!("standby of {}", of.map_or("nobody".to_owned(), |of| place(data, of)))
        }
    };
    let init = match db.spec.init_mode {
        DbInitMode::None => "",
        DbInitMode::New => ", to be created",
        DbInitMode::Resync => ", to be copied",
        DbInitMode::Existing | DbInitMode::Pitr => ", to be taken over",
    };
    let waits = if db.spec.synchronous_replication { ", synchronous" } else { "" };
    format!("db {uid} on {}: {role}{init}{waits}, generation {}", db.spec.keeper_uid, db.generation)
}

/// The settings that the specification gives each db.
pub fn settings(db: &Db) -> String {
    let spec = &db.spec;
    let request = spec.request_timeout.map_or("none".to_owned(), |timeout| format!("{:?}", timeout.0));
    let mut line = format!("db {}: requestTimeout {request}, maxStandbys {}", db.uid, spec.max_standbys);
    line.push_str(&format!(", usePgrewind {}, synchronous {}", spec.use_pgrewind, spec.synchronous_replication));
    for (name, value) in &spec.pg_parameters {
        line.push_str(&format!(", {name} = {value}"));
    }
    line
}

/// The keeper that a db is on.
pub fn place(data: &ClusterData, uid: &DbUid) -> String {
    data.dbs.get(uid).map_or_else(|| "gone".to_owned(), |db| db.spec.keeper_uid.to_string())
}

fn names<'a>(data: &ClusterData, list: impl Iterator<Item = &'a DbUid>) -> String {
    let mut names: Vec<String> = list.map(|uid| place(data, uid)).collect();
    names.sort();
    format!("[{}]", names.join(" "))
}

/// The stored list of a primary; `blocked` stands for the blocking name.
fn list(data: &ClusterData, uid: &DbUid) -> String {
    let db = &data.dbs[uid];
    let mut list: Vec<String> = db.spec.synchronous_standbys.iter().flatten().map(|uid| place(data, uid)).collect();
    list.sort();
    let others = db.spec.external_synchronous_standbys.iter().flatten();
    list.extend(others.map(|name| if name == BLOCKING_NAME { "blocked".to_owned() } else { name.clone() }));
    format!("[{}]", list.join(" "))
}

pub fn commit(commit: &Commit) -> String {
    let step = match &commit.step {
        Step::Elect { keeper, why, .. } => format!("Elect {keeper}: {why}"),
        Step::CallOff { why } => format!("CallOff: {why}"),
        other => format!("{other:?}"),
    };
    match &commit.change {
        Some(change) => format!("commit {step}; proof {:?}", change.proof),
        None => format!("commit {step}"),
    }
}

/// An effect beside the commit.
pub fn action(action: &Action) -> Option<String> {
    Some(match action {
        Action::Commit(_) => return None,
        Action::AskWitnesses { target, .. } => format!("act: ask everybody who reaches PostgreSQL of {target}"),
        Action::Redial { keeper, .. } => format!("act: dial {keeper} again"),
        Action::KnockPostgres { keeper, .. } => format!("act: knock at PostgreSQL of {keeper}"),
        Action::MeasureLease { proxy, .. } => format!("act: ask for the TTL of the lease of {proxy}"),
        Action::RevokeLease { proxy, .. } => format!("act: revoke the lease of {proxy}"),
        Action::Resign => "act: resign".to_owned(),
    })
}
