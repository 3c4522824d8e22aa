//! Puts a sentinel's answer over what etcd told.

use stolon::{model::Lsn, wire::v1};

use super::{
    ask::Answer,
    shape::{Fencing, Keeper, Position, Proxy, Sentinel, Source, Status, some},
};

pub fn add(status: &mut Status, answer: Answer) {
    let Answer { cluster: told, leads, silent } = answer;
    let head = &mut status.cluster;
    head.available = told.available;
    // A sentinel that can't read the cluster data of now tells what it knew last.
    head.uid = head.uid.take().or_else(|| some(&told.cluster_uid));
    head.epoch = head.epoch.or(Some(told.epoch).filter(|epoch| *epoch > 0));
    head.fencing = told.fencing.as_ref().map(fencing);
    status.source = Source { sentinel: some(&told.answered_by), leader: leads };
    status.sentinels = told.sentinels.iter().map(sentinel).collect();
    let lsn = primary_lsn(&told);
    status.keepers = told.keepers.iter().map(|entry| keeper(entry, lsn)).collect();
    for proxy in &mut status.proxies {
        if let Some(entry) = told.proxies.iter().find(|entry| entry.uid == proxy.uid) {
            report(proxy, entry);
        }
    }
    if let Some(primary) = &mut head.primary
        && let Some(keeper) = status.keepers.iter().find(|keeper| keeper.uid == primary.keeper)
    {
        primary.position = keeper.position.clone();
    }
    for line in told.problems.into_iter().chain(silent) {
        if !status.problems.contains(&line) {
            status.problems.push(line);
        }
    }
}

/// Position of the primary, by its own report.
fn primary_lsn(told: &v1::GetClusterStatusResponse) -> Option<Lsn> {
    let primary = told.primary.as_ref()?;
    let entry = told.keepers.iter().find(|entry| entry.uid == primary.keeper)?;
    let position = entry.report.as_ref()?.postgres.as_ref()?.position.as_ref()?;
    Some(Lsn(position.lsn))
}

fn keeper(entry: &v1::KeeperEntry, primary: Option<Lsn>) -> Keeper {
    let report = entry.report.as_ref();
    let postgres = report.and_then(|report| report.postgres.as_ref());
    let position = postgres.and_then(|postgres| postgres.position.as_ref());
    let standby = entry.role == "standby";
    Keeper {
        uid: entry.uid.clone(),
        listen_address: entry.listen_address.clone(),
        healthy: entry.healthy,
        pg_healthy: entry.postgres_healthy,
        pg_wanted_generation: entry.wanted_generation,
        pg_current_generation: entry.current_generation,
        db: some(&entry.db),
        role: some(&entry.role),
        registered: entry.registered,
        grpc_address: some(&entry.grpc_address),
        state: postgres.and_then(|postgres| state(postgres.state())),
        position: Position {
            timeline: position.map(|position| position.timeline),
            lsn: position.map(|position| Lsn(position.lsn).to_string()),
        },
        lag: position.zip(primary).filter(|_| standby).map(|(own, primary)| primary.ahead_of(Lsn(own.lsn))),
        streaming: postgres.filter(|_| standby).map(|postgres| postgres.wal_streaming),
        synchronous: some(&entry.synchronous),
        leaving: report.is_some_and(|report| report.leaving),
        failure: report.and_then(|report| some(&report.failure)),
        pid: postgres.map(|postgres| postgres.pid).filter(|pid| *pid > 0),
        report_age_ms: report.map(|_| entry.report_age_ms),
    }
}

fn state(state: v1::PostgresState) -> Option<String> {
    let name = match state {
        v1::PostgresState::Unspecified => return None,
        v1::PostgresState::Absent => "absent",
        v1::PostgresState::Copying => "copying",
        v1::PostgresState::Stopped => "stopped",
        v1::PostgresState::Starting => "starting",
        v1::PostgresState::Standby => "standby",
        v1::PostgresState::Primary => "primary",
    };
    Some(name.to_owned())
}

fn report(proxy: &mut Proxy, entry: &v1::ProxyEntry) {
    let Some(report) = &entry.report else { return };
    proxy.route_epoch = Some(report.route_epoch).filter(|epoch| *epoch > 0);
    proxy.connections = Some(report.connections);
    proxy.report_age_ms = Some(entry.report_age_ms);
}

fn sentinel(entry: &v1::SentinelEntry) -> Sentinel {
    Sentinel { uid: entry.uid.clone(), leader: entry.leader, grpc_address: some(&entry.grpc_address) }
}

fn fencing(mark: &v1::Fencing) -> Fencing {
    let stage = match mark.stage() {
        v1::FencingStage::Recruit => "recruit",
        v1::FencingStage::Fence | v1::FencingStage::Unspecified => "fence",
    };
    Fencing { epoch: mark.epoch, stage: stage.into(), planned: mark.planned, reason: mark.reason.clone() }
}
