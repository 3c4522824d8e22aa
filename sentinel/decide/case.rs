//! One look at a readable cluster: the cluster data with their resolved specification, and what is known of each
//! keeper from its registration and its stream together. Draws no conclusion.

use std::time::Duration;

use stolon::{
    model::{
        ClusterData, DbUid, Epoch, Generation, KeeperUid, Moment, Revision, WalPosition,
        cluster::Db,
        registration::{KeeperInfo, Recruit},
        report::{KeeperReport, PostgresState},
        spec::{BadSpec, Spec},
    },
    store::{Mirror, Registered},
};

use crate::observe::{Observations, Peer, Timer};

pub struct Case<'a> {
    pub now: Moment,
    pub mirror: &'a Mirror,
    pub seen: &'a Observations,
    pub data: &'a ClusterData,
    pub revision: Revision,
    pub spec: Spec,
}

/// What is known of one keeper.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub registered: Option<&'a Registered<KeeperInfo>>,
    pub peer: Option<&'a Peer<KeeperReport>>,
}

impl<'a> Case<'a> {
    /// Fails when the specification can't be used.
    pub fn new(
        now: Moment,
        mirror: &'a Mirror,
        seen: &'a Observations,
        data: &'a ClusterData,
    ) -> Result<Case<'a>, BadSpec> {
        let spec = data.cluster.spec.resolve()?;
        let revision = mirror.cluster.as_ref().map_or(Revision(0), |stored| stored.revision);
        Ok(Case { now, mirror, seen, data, revision, spec })
    }

    pub fn keeper(&self, uid: &KeeperUid) -> Facts<'a> {
        let ours = |keeper: &&Registered<KeeperInfo>| {
            keeper.info.cluster_uid.as_ref().is_none_or(|cluster| cluster == &self.data.cluster.uid)
        };
        Facts { registered: self.mirror.keepers.get(uid).filter(ours), peer: self.seen.keepers.get(uid) }
    }

    pub fn since(&self, timer: Timer) -> Option<Moment> {
        self.seen.since(&timer)
    }

    /// True when a condition has held for longer than `limit`.
    pub fn lasts(&self, timer: Timer, limit: Duration) -> bool {
        self.since(timer).is_some_and(|since| self.now.since(since) >= limit)
    }

    pub fn epoch(&self) -> Epoch {
        self.data.epoch()
    }

    pub fn hears(&self, uid: &KeeperUid) -> bool {
        self.seen.hears(self.now, uid, self.spec.suspect_interval)
    }

    pub fn master(&self) -> Option<(&'a DbUid, &'a Db)> {
        self.data.primary()
    }

    /// True when the primary of the present epoch serves (R10).
    pub fn ready(&self) -> bool {
        let uid = self.data.cluster.status.master.as_ref();
        self.mirror
            .ready
            .as_ref()
            .is_some_and(|ready| ready.value.epoch == self.epoch() && Some(&ready.value.db) == uid)
    }

    /// True when the `primary` key stands for the present epoch.
    pub fn key_stands(&self) -> bool {
        let uid = self.data.cluster.status.master.as_ref();
        self.mirror.primary.as_ref().is_some_and(|held| held.value.epoch == self.epoch() && Some(&held.value.db) == uid)
    }

    /// PostgreSQL's identity of this cluster, as far as anybody knows it; 0 for unknown.
    pub fn system_id(&self) -> u64 {
        let Some((uid, db)) = self.master() else { return 0 };
        let stored = db.status.system_id.parse().unwrap_or(0);
        if stored != 0 { stored } else { self.keeper(&db.spec.keeper_uid).system_id(uid) }
    }
}

impl<'a> Facts<'a> {
    pub fn info(&self) -> Option<&'a KeeperInfo> {
        self.registered.map(|registered| &registered.info)
    }

    /// The latest report of the stream that is open; what an earlier stream said may be of a former process.
    pub fn report(&self) -> Option<&'a KeeperReport> {
        let peer = self.peer.filter(|peer| peer.connected)?;
        peer.report.as_ref().filter(|(_, at)| *at >= peer.since).map(|(report, _)| report)
    }

    /// The latest report, even of a stream that ended.
    pub fn last(&self) -> Option<(&'a KeeperReport, Moment)> {
        self.peer.and_then(|peer| peer.report.as_ref()).map(|(report, at)| (report, *at))
    }

    /// The promise on disk (R8); what was promised once stays promised (R25).
    pub fn promised(&self) -> Epoch {
        let told = self.last().map_or(Epoch::NONE, |(report, _)| report.promised);
        told.max(self.info().map_or(Epoch::NONE, |info| info.promised))
    }

    /// The final position under the promise for `epoch`.
    pub fn recruit(&self, epoch: Epoch) -> Option<Recruit> {
        let told = self.report().and_then(|report| report.recruit);
        told.into_iter()
            .chain(self.info().and_then(|info| info.recruit))
            .find(|recruit| recruit.epoch == epoch && self.promised().next() >= epoch)
    }

    /// What this keeper's primary wrote last in `epoch` is known: it was stopped in good order, and promised (R8). Told
    /// once, it holds.
    pub fn ended_clean(&self, db: &DbUid, epoch: Epoch) -> bool {
        let told = self.last().is_some_and(|(report, _)| {
            let postgres = &report.postgres;
            report.promised >= epoch && postgres.position_final && postgres.db.as_ref() == Some(db)
        });
        let registered = self.info().filter(|info| info.promised >= epoch);
        let registered = registered.and_then(|info| info.postgres_state.as_ref());
        told || registered.is_some_and(|postgres| postgres.position_final && postgres.uid == *db)
    }

    pub fn leaving(&self) -> bool {
        self.report().map_or_else(|| self.info().is_some_and(|info| info.leaving), |report| report.leaving)
    }

    pub fn failure(&self) -> &'a str {
        self.report().map_or("", |report| &report.failure)
    }

    /// State of the server, when the stream is open.
    pub fn state(&self) -> Option<PostgresState> {
        self.report().map(|report| report.postgres.state)
    }

    /// Generation of `db` that the keeper has applied; unset when it has not reported this db.
    pub fn generation(&self, db: &DbUid) -> Option<Generation> {
        match self.report() {
            Some(report) => (report.postgres.db.as_ref() == Some(db)).then_some(report.postgres.generation),
            None => {
                let postgres = self.info()?.postgres_state.as_ref()?;
                (&postgres.uid == db).then_some(postgres.generation)
            }
        }
    }

    /// True when the server of `db` accepts connections, in the role given.
    pub fn serves(&self, db: &DbUid, primary: bool) -> bool {
        match self.report() {
            Some(report) => {
                let wanted = if primary { PostgresState::Primary } else { PostgresState::Standby };
                report.postgres.db.as_ref() == Some(db) && report.postgres.state == wanted
            }
            None => self
                .info()
                .and_then(|info| info.postgres_state.as_ref())
                .is_some_and(|postgres| &postgres.uid == db && postgres.healthy),
        }
    }

    /// Position of `db`, the further of what was told and what is registered.
    pub fn position(&self, db: &DbUid) -> Option<WalPosition> {
        let told = self.last().map(|(report, _)| &report.postgres).filter(|postgres| postgres.db.as_ref() == Some(db));
        let told = told.and_then(|postgres| postgres.position);
        let stored = self.info().and_then(|info| info.postgres_state.as_ref()).filter(|postgres| &postgres.uid == db);
        told.max(stored.map(|postgres| WalPosition { timeline: postgres.timeline_id, lsn: postgres.xlog_pos }))
    }

    /// System identifier of the server of `db`; 0 for unknown.
    pub fn system_id(&self, db: &DbUid) -> u64 {
        let told = self.last().map(|(report, _)| &report.postgres).filter(|postgres| postgres.db.as_ref() == Some(db));
        let told = told.map_or(0, |postgres| postgres.system_id);
        if told != 0 { told } else { self.info().and_then(|info| info.data.as_ref()).map_or(0, |data| data.system_id) }
    }

    /// True when the data directory holds `db`.
    pub fn holds(&self, db: &DbUid) -> bool {
        let told = self.report().and_then(|report| report.postgres.db.as_ref());
        let written = self.info().and_then(|info| info.data.as_ref()).and_then(|data| data.db.as_ref());
        told == Some(db) || written == Some(db)
    }

    /// PostgreSQL's registered address.
    pub fn postgres_address(&self) -> Option<(String, u16)> {
        self.info()
            .map(|info| (info.pg_address.clone(), info.pg_port))
            .filter(|(host, port)| !host.is_empty() && *port != 0)
    }
}
