//! What the daemons of the scenarios' cluster say, and their registrations; each word is one method. Decides nothing.

use stolon::model::{
    DbUid, Epoch, LeaseId, Lsn, WalPosition,
    cluster::{Db, DbRole},
    registration::{DataDir, KeeperInfo, ProxyInfo, ReadyKey, Recruit},
    report::{AuthorityReport, KeeperReport, PostgresReport, PostgresState, ProbeResult, ProxyReport},
};
use stolon::store::{Held, Registered};

use super::{
    keeper, ms, proxy, secs,
    town::{SYSTEM, Town},
};
use crate::observe::{Probe, Round};

impl Town {
    pub fn register(&mut self, uid: &str) {
        let number = self.bump();
        let info = KeeperInfo {
            info_uid: number.to_string(),
            uid: keeper(uid),
            cluster_uid: None,
            boot_uuid: "boot".into(),
            postgres_binary_version: Default::default(),
            postgres_state: None,
            can_be_master: true,
            can_be_synchronous_replica: true,
            pg_address: "127.0.0.1".into(),
            pg_port: 5432,
            grpc_address: "127.0.0.1:5431".into(),
            data: None,
            promised: Epoch::NONE,
            recruit: None,
            leaving: false,
            open_to_all: false,
            extra: Default::default(),
        };
        let registered = Registered { info, lease: LeaseId(number.0), created: number, modified: number };
        self.mirror.keepers.insert(keeper(uid), registered);
        self.seen.keeper_connected(self.now, &keeper(uid));
        self.seen.keeper_report(self.now, &keeper(uid), KeeperReport::default());
    }

    pub fn register_proxy(&mut self, uid: &str) {
        let number = self.bump();
        let info = ProxyInfo {
            info_uid: number.to_string(),
            uid: proxy(uid),
            generation: Default::default(),
            proxy_timeout: 15_000_000_000,
            fenced_epoch: Epoch::NONE,
            listen_address: String::new(),
            grpc_address: String::new(),
            extra: Default::default(),
        };
        let registered = Registered { info, lease: LeaseId(number.0), created: number, modified: number };
        self.mirror.proxies.insert(proxy(uid), registered);
        self.seen.proxy_connected(self.now, &proxy(uid));
        self.seen.proxy_report(self.now, &proxy(uid), ProxyReport::default());
    }

    pub fn info(&mut self, uid: &str, change: impl FnOnce(&mut KeeperInfo)) {
        self.bump();
        change(&mut self.mirror.keepers.get_mut(&keeper(uid)).unwrap().info);
    }

    /// A keeper's next report, from the last one.
    pub fn report(&mut self, uid: &str, change: impl FnOnce(&mut KeeperReport)) {
        let peer = &self.seen.keepers[&keeper(uid)];
        let mut report = peer.report.as_ref().map(|(report, _)| report.clone()).unwrap_or_default();
        change(&mut report);
        self.seen.keeper_report(self.now, &keeper(uid), report);
    }

    pub fn fence(&mut self, uid: &str, epoch: u64) {
        let report = ProxyReport { fenced_epoch: Epoch(epoch), ..ProxyReport::default() };
        self.seen.proxy_report(self.now, &proxy(uid), report);
    }

    pub fn promise(&mut self, uid: &str, epoch: u64) {
        self.report(uid, |report| {
            report.promised = Epoch(epoch);
            report.authority = None;
            report.postgres.state = PostgresState::Stopped;
        });
    }

    /// Promised, after a stop in good order.
    pub fn stop(&mut self, uid: &str, epoch: u64) {
        self.promise(uid, epoch);
        self.report(uid, |report| report.postgres.position_final = true);
    }

    pub fn recruit(&mut self, uid: &str, epoch: u64, timeline: u32, lsn: u64) {
        let position = WalPosition { timeline, lsn: Lsn(lsn) };
        self.report(uid, |report| {
            report.promised = Epoch(epoch - 1);
            report.recruit = Some(Recruit { epoch: Epoch(epoch), position });
            report.postgres.position = Some(position);
            report.postgres.wal_streaming = false;
        });
    }

    /// The primary of the data comes up and writes `ready`, on the timeline of its epoch.
    pub fn serve(&mut self) {
        let data = self.data().clone();
        let (uid, object) = data.primary().unwrap();
        let name = object.spec.keeper_uid.clone();
        let (epoch, revision) = (data.epoch(), self.bump());
        let timeline = u32::try_from(epoch.0).unwrap();
        let lease = self.mirror.keepers[&name].lease;
        let switch = if epoch.0 > 1 { Lsn(900 + 100 * epoch.0) } else { Lsn(0) };
        let value = ReadyKey {
            keeper: name.clone(),
            db: uid.clone(),
            epoch,
            address: "127.0.0.1".into(),
            port: 5432,
            timeline,
            switch_lsn: switch,
            traceparent: String::new(),
        };
        self.mirror.ready = Some(Held { value, lease, modified: revision });
        self.speak(name.as_str());
    }

    /// A keeper reports that it has done all that the data ask of it.
    pub fn speak(&mut self, name: &str) {
        let data = self.data().clone();
        let Some((uid, object)) = data.db_of(&keeper(name)) else { return };
        let primary = data.cluster.status.master.as_ref() == Some(uid);
        let epoch = data.epoch();
        let standing = object.spec.role == DbRole::Standby;
        if !primary && !standing {
            return;
        }
        let timeline = u32::try_from(epoch.0).unwrap();
        let lsn = Lsn(1000 * epoch.0 + if primary { 10 } else { 0 });
        let postgres = PostgresReport {
            state: if primary { PostgresState::Primary } else { PostgresState::Standby },
            db: Some(uid.clone()),
            generation: object.generation,
            system_id: SYSTEM,
            position: Some(WalPosition { timeline, lsn }),
            probe_age: Some(ms(50)),
            wal_streaming: !primary,
            primary_epoch: if primary { epoch } else { Epoch::NONE },
            parameters: [("max_connections".to_owned(), "100".to_owned())].into(),
            pid: 1,
            in_sync: if primary && self.confirming { self.streaming(object) } else { Vec::new() },
            ..PostgresReport::default()
        };
        let prepared = if primary && data.cluster.status.handover.is_some() { epoch } else { Epoch::NONE };
        let authority = primary.then_some(AuthorityReport { epoch, remaining: secs(4) });
        let promised = self.seen.keepers[&keeper(name)].report.as_ref().map_or(Epoch::NONE, |(r, _)| r.promised);
        let report = KeeperReport { postgres, authority, promised, prepared, ..KeeperReport::default() };
        self.seen.keeper_report(self.now, &keeper(name), report);
        self.info(name, |info| {
            info.cluster_uid = Some(data.cluster.uid.clone());
            info.data = Some(DataDir { system_id: SYSTEM, db: Some(uid.clone()) });
        });
    }

    /// Names of a primary's list whose standbys stream.
    fn streaming(&self, primary: &Db) -> Vec<DbUid> {
        let streams = |uid: &&DbUid| {
            let peers = self.seen.keepers.values().filter(|peer| peer.connected);
            let mut reports = peers.filter_map(|peer| peer.report.as_ref()).map(|(report, _)| &report.postgres);
            reports.any(|postgres| postgres.db.as_ref() == Some(*uid) && postgres.wal_streaming)
        };
        primary.spec.synchronous_standbys.iter().flatten().filter(streams).cloned().collect()
    }

    /// The registration goes, with the keys on its lease.
    pub fn expire(&mut self, name: &str) {
        self.bump();
        if let Some(gone) = self.mirror.keepers.remove(&keeper(name)) {
            self.mirror.primary.take_if(|held| held.lease == gone.lease);
            self.mirror.ready.take_if(|held| held.lease == gone.lease);
        }
    }

    pub fn expire_proxy(&mut self, name: &str) {
        self.bump();
        self.mirror.proxies.remove(&proxy(name));
    }

    pub fn hang_up(&mut self, name: &str) {
        self.seen.keeper_ended(self.now, &keeper(name));
    }

    pub fn redialled(&mut self, name: &str, result: ProbeResult) {
        self.seen.redials.insert(keeper(name), Probe { asked: self.now, result: Some(result) });
    }

    pub fn knocked(&mut self, name: &str, result: ProbeResult) {
        self.seen.knocks.insert(keeper(name), Probe { asked: self.now, result: Some(result) });
    }

    /// A finished round of witnesses.
    pub fn witnessed(&mut self, target: &str, own: ProbeResult, others: &[(&str, ProbeResult)]) {
        self.seen.round = Some(Round {
            target: keeper(target),
            asked: self.now,
            deadline: self.now + ms(500),
            own: Some(own),
            others: others.iter().map(|(name, result)| ((*name).to_owned(), Some(*result))).collect(),
        });
    }
}
