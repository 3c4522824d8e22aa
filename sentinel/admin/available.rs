//! Can a client write now, as far as is known? The keys in etcd come first (`problems`); this looks at what was observed of
//! the primary: it says that it serves, its last probe is young, and those that its commits wait for stream. Pure.

use std::time::Duration;

use stolon::{
    model::{
        ClusterData, Moment,
        cluster::{BLOCKING_NAME, Db},
        registration::PrimaryKey,
        report::{KeeperReport, PostgresState, ProbeResult},
    },
    store::Mirror,
};

use super::problems;
use crate::{decide::Facts, observe::Observations};

/// Ten heartbeats (R13) without one.
pub const SILENT: Duration = Duration::from_secs(1);
/// The keeper probes every second and gives a probe some time (R13).
const STALE: Duration = Duration::from_secs(3);

/// Why a client's write would not succeed now; `None` when it would. Cluster data that can't be used take nothing away.
pub fn obstacle(now: Moment, mirror: &Mirror, seen: &Observations) -> Option<String> {
    let none = || Some("no primary serves".to_owned());
    let (Some(primary), Some(ready)) = (&mirror.primary, &mirror.ready) else { return none() };
    if (primary.value.epoch, &primary.value.db) != (ready.value.epoch, &ready.value.db) {
        return none();
    }
    let data = mirror.data().filter(|_| problems::unusable(mirror).is_none()).map(|(data, _)| &**data);
    if data.is_some_and(|data| !problems::available(mirror, data)) {
        return none();
    }
    let silent = unanswered(now, mirror, seen, &primary.value);
    silent.or_else(|| data.and_then(|data| commits_wait(now, seen, data)))
}

fn unanswered(now: Moment, mirror: &Mirror, seen: &Observations, primary: &PrimaryKey) -> Option<String> {
    let keeper = &primary.keeper;
    let facts = Facts { registered: mirror.keepers.get(keeper), peer: seen.keepers.get(keeper) };
    if let Some(report) = facts.report().filter(|_| seen.hears(now, keeper, SILENT)) {
        return unfit(report, keeper.as_str(), facts.serves(&primary.db, true));
    }
    // Its keeper is gone or silent: PostgreSQL may serve all the same, while the lease lasts.
    let knock = seen.knocks.get(keeper).and_then(|knock| knock.result);
    let round = seen.round.as_ref().filter(|round| &round.target == keeper);
    let results: Vec<ProbeResult> = round
        .into_iter()
        .flat_map(|round| round.others.values().chain([&round.own]).flatten().copied())
        .chain(knock)
        .collect();
    if results.contains(&ProbeResult::Answered) {
        return None;
    }
    let just_ended = facts.peer.is_some_and(|peer| !peer.connected && now.since(peer.since) < SILENT);
    let unasked = results.is_empty() && just_ended;
    (!unasked).then(|| format!("keeper {keeper} of the primary is silent, and nobody reaches its PostgreSQL"))
}

fn unfit(report: &KeeperReport, keeper: &str, serves: bool) -> Option<String> {
    if !serves {
        let state = match report.postgres.state {
            PostgresState::Starting => "is starting, or recovers from a crash",
            PostgresState::Stopped => "does not run",
            _ => "does not serve as a primary",
        };
        return Some(format!("PostgreSQL of keeper {keeper}, the primary, {state}"));
    }
    let age = report.postgres.probe_age.filter(|age| *age > STALE)?;
    Some(format!("PostgreSQL of keeper {keeper}, the primary, has not taken a write for {} s", age.as_secs()))
}

/// Synchronous: each name of the list is waited for (R18).
fn commits_wait(now: Moment, seen: &Observations, data: &ClusterData) -> Option<String> {
    let (_, db) = data.primary().filter(|(_, db)| db.spec.synchronous_replication)?;
    if db.spec.external_synchronous_standbys.iter().flatten().any(|name| name == BLOCKING_NAME) {
        return Some("commits wait: too few synchronous standbys (minSynchronousStandbys)".into());
    }
    let missing = db.spec.synchronous_standbys.iter().flatten().find(|uid| {
        let standby = data.dbs.get(*uid);
        !standby.is_some_and(|standby| streams(now, seen, standby))
    })?;
    Some(format!("commits wait for synchronous standby db {missing}, which does not stream"))
}

fn streams(now: Moment, seen: &Observations, standby: &Db) -> bool {
    let keeper = &standby.spec.keeper_uid;
    let report = seen.keepers.get(keeper).and_then(|peer| peer.report.as_ref());
    // A silent keeper says nothing of its PostgreSQL, which may stream on.
    !seen.hears(now, keeper, SILENT) || report.is_some_and(|(report, _)| report.postgres.wal_streaming)
}
