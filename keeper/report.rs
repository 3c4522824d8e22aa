//! What a keeper tells of itself: heartbeats on its streams, and its registration in etcd, which is written again only when
//! something in it means something new.

use std::collections::BTreeMap;

use stolon::model::{
    DbUid, Lsn, Moment,
    registration::{DataDir, KeeperInfo, PostgresInfo},
    report::{AuthorityReport, KeeperReport, PostgresReport, PostgresState},
};

use crate::{
    plan::{Data, Leaving},
    state::{Phase, State},
};

/// Made without disk or SQL (R13).
pub fn heartbeat(state: &State, now: Moment) -> KeeperReport {
    KeeperReport {
        view_revision: state.view_revision(),
        promised: state.journal.promised,
        authority: state
            .grant(now)
            .map(|grant| AuthorityReport { epoch: grant.epoch, remaining: grant.deadline.since(now) }),
        recruit: recruit(state),
        leaving: state.leaving != Leaving::No,
        prepared: state.prepared,
        failure: failure(state),
        postgres: postgres(state, now),
    }
}

fn recruit(state: &State) -> Option<stolon::model::registration::Recruit> {
    state.journal.recruit.filter(|recruit| recruit.epoch == state.journal.promised.next())
}

fn failure(state: &State) -> String {
    let known = [&state.foreign, &state.failure, &state.unfit.disk, &state.unfit.server];
    known.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
}

fn postgres(state: &State, now: Moment) -> PostgresReport {
    let sample = state.sample.as_ref();
    PostgresReport {
        state: server(state, now),
        db: state.db.uid.clone(),
        generation: state.db.generation,
        system_id: state.system_id,
        position: sample.map(|sample| sample.position).or(state.stopped_at),
        position_age: now.since(sample.map_or(state.run.since, |sample| sample.at)),
        position_final: position_final(state),
        probe_age: state.probed.map(|at| now.since(at)),
        wal_streaming: sample.is_some_and(|sample| sample.streaming),
        wal_advances: sample.map_or(0, |sample| sample.advances),
        primary_epoch: if state.run.phase == Phase::Primary { state.journal.primary_epoch } else { Default::default() },
        parameters: merged(state),
        in_sync: in_sync(state),
        pid: state.run.id.map_or(0, |id| id.pid),
    }
}

/// The holder of an epoch that it was primary in, and whose server was ended for want of authority, starts it again in
/// place: to call it dead would make a failover of each outage of etcd (execution 16).
fn restarts(state: &State, now: Moment) -> bool {
    let (journal, held) = (&state.journal, state.grant(now).map(|grant| grant.epoch));
    state.run.crash.is_none() && held == Some(journal.primary_epoch) && journal.promised < journal.primary_epoch
}

fn server(state: &State, now: Moment) -> PostgresState {
    match (state.run.phase, state.data) {
        (Phase::Stopped, _) if state.copying => PostgresState::Copying,
        (Phase::Stopped, Data::Absent | Data::Incomplete) => PostgresState::Absent,
        (Phase::Stopped, _) if restarts(state, now) => PostgresState::Starting,
        (Phase::Stopped, _) => PostgresState::Stopped,
        (Phase::StartingPrimary | Phase::StartingStandby | Phase::Promoting, _) => PostgresState::Starting,
        (Phase::Standby, _) => PostgresState::Standby,
        (Phase::Primary, _) => PostgresState::Primary,
    }
}

/// What a successor must have for a handover to lose nothing (R8).
fn position_final(state: &State) -> bool {
    state.run.phase == Phase::Stopped && state.data == Data::Primary && state.stopped_clean
}

/// Only what is proven under the applied generation (R18).
fn in_sync(state: &State) -> Vec<DbUid> {
    let names = state.synchronous.confirmed();
    names.filter_map(|name| DbUid::parse(name.strip_prefix("stolon_")?).ok()).collect()
}

/// Only until they are merged into the specification.
fn merged(state: &State) -> BTreeMap<String, String> {
    let wanted = state.view.as_ref().and_then(|view| view.assignment.as_ref());
    if wanted.is_some_and(|assignment| assignment.merge_parameters) {
        state.parameters.clone()
    } else {
        BTreeMap::new()
    }
}

/// What does not change while the keeper runs.
#[derive(Clone, Debug)]
pub struct Fixed {
    pub boot_uuid: String,
    pub version: stolon::model::cluster::BinaryVersion,
    pub can_be_master: bool,
    pub can_be_synchronous_replica: bool,
    pub pg_address: (String, u16),
    pub grpc_address: String,
    pub open_to_all: bool,
}

/// The registration's value, with `infoUID` left empty.
pub fn info(state: &State, fixed: &Fixed) -> KeeperInfo {
    KeeperInfo {
        info_uid: String::new(),
        uid: state.me.clone(),
        cluster_uid: state.keeper.cluster_uid.clone(),
        boot_uuid: fixed.boot_uuid.clone(),
        postgres_binary_version: fixed.version,
        postgres_state: postgres_info(state, fixed),
        can_be_master: fixed.can_be_master,
        can_be_synchronous_replica: fixed.can_be_synchronous_replica,
        pg_address: fixed.pg_address.0.clone(),
        pg_port: fixed.pg_address.1,
        grpc_address: fixed.grpc_address.clone(),
        data: data_dir(state),
        promised: state.journal.promised,
        recruit: recruit(state),
        leaving: state.leaving != Leaving::No,
        open_to_all: fixed.open_to_all,
        extra: Default::default(),
    }
}

fn data_dir(state: &State) -> Option<DataDir> {
    let whole = matches!(state.data, Data::Primary | Data::Standby) && state.system_id != 0;
    whole.then(|| DataDir { system_id: state.system_id, db: state.db.uid.clone() })
}

fn postgres_info(state: &State, fixed: &Fixed) -> Option<PostgresInfo> {
    let uid = state.db.uid.clone().filter(|_| !state.db.initializing)?;
    let position = state.sample.as_ref().map(|sample| sample.position).or(state.stopped_at);
    Some(PostgresInfo {
        uid,
        generation: state.db.generation,
        listen_address: fixed.pg_address.0.clone(),
        port: fixed.pg_address.1.to_string(),
        healthy: matches!(state.run.phase, Phase::Standby | Phase::Primary),
        system_id: state.system_id.to_string(),
        timeline_id: position.map_or(0, |position| position.timeline),
        xlog_pos: position.map_or(Lsn(0), |position| position.lsn),
        position_final: position_final(state),
        pg_parameters: merged(state),
        synchronous_standbys: in_sync(state),
        older_wal_file: String::new(),
        extra: Default::default(),
    })
}

/// Remembers what was registered last. A position goes along with other news and is none by itself; one that has become
/// known, or final, is.
#[derive(Debug, Default)]
pub struct Registered(Option<KeeperInfo>);

impl Registered {
    /// The bytes to write, when there is something new in `info`; `fresh` is their `infoUID`.
    pub fn news(&mut self, info: KeeperInfo, fresh: impl FnOnce() -> String) -> Option<Vec<u8>> {
        let new = essence(&info);
        if self.0.as_ref() == Some(&new) {
            return None;
        }
        self.0 = Some(new);
        serde_json::to_vec(&KeeperInfo { info_uid: fresh(), ..info }).ok()
    }
}

fn essence(info: &KeeperInfo) -> KeeperInfo {
    let mut essence = info.clone();
    if let Some(postgres) = essence.postgres_state.as_mut().filter(|postgres| postgres.healthy) {
        postgres.xlog_pos = Lsn(u64::from(postgres.xlog_pos > Lsn(0)));
    }
    essence
}

#[cfg(test)]
mod tests {
    use stolon::model::{Epoch, KeeperUid};

    use super::*;
    use crate::journal::{DbState, Journal, KeeperState};

    fn state() -> State {
        let me = KeeperUid::parse("k1").unwrap();
        let db = DbState { uid: Some(DbUid::parse("d1").unwrap()), ..DbState::default() };
        let mut state = State::new(me, KeeperState::default(), db, Journal::default(), Moment::default());
        (state.run.phase, state.data, state.system_id) = (Phase::Standby, Data::Standby, 7);
        state
    }

    fn fixed() -> Fixed {
        Fixed {
            boot_uuid: "b".into(),
            version: Default::default(),
            can_be_master: true,
            can_be_synchronous_replica: true,
            pg_address: ("127.0.0.1".into(), 5432),
            grpc_address: "127.0.0.1:5431".into(),
            open_to_all: true,
        }
    }

    #[test]
    fn a_position_that_moves_is_no_news_and_a_promise_is() {
        let (mut state, mut registered) = (state(), Registered::default());
        let mut news = |state: &State| registered.news(info(state, &fixed()), || "u".into()).is_some();
        assert!(news(&state));
        state.stopped_at = Some(stolon::model::WalPosition { timeline: 1, lsn: Lsn(100) });
        assert!(news(&state), "it has become known");
        state.stopped_at = Some(stolon::model::WalPosition { timeline: 1, lsn: Lsn(200) });
        assert!(!news(&state));
        state.run.phase = Phase::Stopped;
        assert!(news(&state), "it stopped, and the position is final");
        state.journal.promised = Epoch(3);
        assert!(news(&state) && !news(&state));
    }

    #[test]
    fn what_probes_found_is_told_until_they_succeed_or_the_server_ends() {
        let mut state = state();
        let id = crate::pg::ProcessId { pid: 7, started: 1 };
        (state.run.id, state.unfit.disk) = (Some(id), "is full".into());
        assert_eq!(heartbeat(&state, Moment::default()).failure, "is full");
        state.failure = "can't follow".into();
        assert_eq!(heartbeat(&state, Moment::default()).failure, "can't follow");
        state.failure.clear();
        state.ended(id, Moment::default());
        assert_eq!(heartbeat(&state, Moment::default()).failure, "");
    }

    #[test]
    fn a_recruit_of_an_earlier_epoch_is_not_reported() {
        let mut state = state();
        state.journal.promised = Epoch(3);
        let position = stolon::model::WalPosition { timeline: 1, lsn: Lsn(5) };
        state.journal.recruit = Some(stolon::model::registration::Recruit { epoch: Epoch(3), position });
        assert_eq!(heartbeat(&state, Moment::default()).recruit, None);
        state.journal.promised = Epoch(2);
        assert!(heartbeat(&state, Moment::default()).recruit.is_some());
    }
}
