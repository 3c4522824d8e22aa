//! The cluster of the scenarios: an etcd in memory and the means to let daemons speak, fall silent, or go.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{
        ClusterData, DbUid, Epoch, LeaseId, Lsn, Moment, Revision, SentinelUid, WalPosition,
        cluster::{Db, DbInitMode, DbRole, Stage},
        registration::{DataDir, KeeperInfo, PrimaryKey, ProxyInfo, ReadyKey, Recruit},
        report::{AuthorityReport, KeeperReport, PostgresReport, PostgresState, ProbeResult, ProxyReport},
        spec::StoredSpec,
    },
    store::{Candidate, Held, Mirror, Registered, Stored},
};

use super::{keeper, ms, proxy, secs};
use crate::{
    decide::{Action, Commit, Decision, Holder, Step, Wish, World, decide},
    observe::{Observations, Probe, Round},
};

pub const SYSTEM: u64 = 7_000_000_000_000_000_001;

#[derive(Clone)]
pub struct Town {
    pub now: Moment,
    pub mirror: Mirror,
    pub seen: Observations,
    pub initial: Option<StoredSpec>,
    pub wish: Option<Wish>,
    /// Primaries confirm each synchronous standby that streams, when they speak.
    pub confirming: bool,
    revision: i64,
    uids: u32,
    /// Steps of all commits so far.
    pub history: Vec<Step>,
    pub last: Decision,
}

impl Town {
    /// No cluster data; the sentinel leads.
    pub fn empty() -> Town {
        let now = Moment::from_boot(secs(1000));
        let uid = SentinelUid::parse("s1").unwrap();
        let candidate = Candidate { uid, key: "k".into(), lease: LeaseId(1), created: Revision(1) };
        Town {
            now,
            mirror: Mirror { revision: Revision(1), candidates: vec![candidate], ..Mirror::default() },
            seen: Observations::leading(now),
            initial: None,
            wish: None,
            confirming: true,
            revision: 1,
            uids: 0,
            history: Vec::new(),
            last: Decision::default(),
        }
    }

    /// A cluster in good order: `k1` is primary (epoch 1), the others stream, proxies route.
    pub fn running(keepers: u32, proxies: u32) -> Town {
        let mut town = Town::empty();
        for n in 1..=keepers {
            town.register(&format!("k{n}"));
            if n == 1 {
                town.tick();
                town.serve();
            }
        }
        for n in 1..=proxies {
            town.register_proxy(&format!("p{n}"));
        }
        for _ in 0..4 {
            town.settle_all();
        }
        assert!(town.data().dbs.len() == keepers as usize, "{:?}", town.last.reasons);
        town.history.clear();
        town
    }

    pub fn data(&self) -> &ClusterData {
        self.mirror.data().expect("cluster data").0
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut ClusterData)) {
        let mut data = self.data().clone();
        change(&mut data);
        self.store(data);
    }

    pub fn store(&mut self, data: ClusterData) {
        let revision = self.bump();
        let bytes = Arc::new(data.to_json());
        self.mirror.cluster = Some(Stored { revision, bytes, data: Ok(Arc::new(data)) });
    }

    fn bump(&mut self) -> Revision {
        self.revision += 1;
        self.mirror.revision = Revision(self.revision);
        Revision(self.revision)
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Lets time pass in heartbeats, during which everybody but `silent` reports; decides at each.
    pub fn live(&mut self, time: Duration, silent: &[&str]) {
        let end = self.now + time;
        while self.now < end {
            self.pass(ms(100));
            self.beat(silent);
            self.step();
        }
    }

    /// Everybody but `silent` says again what it said last.
    pub fn beat(&mut self, silent: &[&str]) {
        for (uid, peer) in self.seen.keepers.clone() {
            if let Some((report, _)) = peer.report.filter(|_| peer.connected && !silent.contains(&uid.as_str())) {
                self.seen.keeper_report(self.now, &uid, report);
            }
        }
        for (uid, peer) in self.seen.proxies.clone() {
            if let Some((report, _)) = peer.report.filter(|_| peer.connected && !silent.contains(&uid.as_str())) {
                self.seen.proxy_report(self.now, &uid, report);
            }
        }
    }

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

    /// Decides until nothing is left to commit, everybody following.
    pub fn settle_all(&mut self) {
        self.pass(ms(100));
        for name in self.mirror.keepers.keys().cloned().collect::<Vec<_>>() {
            if self.seen.keepers.get(&name).is_some_and(|peer| peer.connected) {
                self.speak(name.as_str());
            }
        }
        self.beat(&[]);
        self.tick();
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

    /// One decision, nothing applied.
    pub fn decide(&mut self) -> Decision {
        self.seen.settle(self.now, &self.mirror);
        let world =
            World { mirror: &self.mirror, seen: &self.seen, initial: self.initial.as_ref(), wish: self.wish.as_ref() };
        let (before, uids) = (self.mirror.clone(), &mut self.uids);
        let decision = decide(self.now, &world, &mut || {
            *uids += 1;
            format!("u{uids}")
        });
        assert_eq!(before, self.mirror);
        self.last = decision.clone();
        decision
    }

    /// One decision, its commit applied.
    pub fn step(&mut self) -> Decision {
        let decision = self.decide();
        if let Some(commit) = decision.committed() {
            self.apply(commit);
        }
        decision
    }

    /// Decides until a decision commits nothing; deciding once more must change nothing either.
    pub fn tick(&mut self) -> Decision {
        for _ in 0..8 {
            let decision = self.step();
            assert!(!refused(&decision), "{:?}", decision.reasons);
            if decision.committed().is_none() {
                return decision;
            }
        }
        panic!("never comes to rest: {:?}", self.history);
    }

    /// etcd's part: compares, then puts.
    pub fn apply(&mut self, commit: &Commit) {
        let stored = self.mirror.cluster.as_ref().map_or(Revision(0), |stored| stored.revision);
        assert_eq!(commit.from, stored, "compare of the cluster data's revision");
        if let Some(change) = &commit.change {
            let held = self.mirror.primary.as_ref().map_or(Holder::Absent, |held| Holder::Fenced(held.modified));
            assert_eq!(change.holder, held, "compare of `primary`");
            assert_eq!(self.mirror.keepers[&change.key.keeper].created, change.registered);
            let modified = self.bump();
            let value: PrimaryKey = change.key.clone();
            self.mirror.highest_epoch = Some((value.epoch, modified));
            self.mirror.primary = Some(Held { value, lease: change.lease, modified });
        }
        self.store(commit.next.clone());
        self.history.push(commit.step.clone());
    }

    pub fn says(&self, words: &str) -> bool {
        self.last.reasons.iter().any(|reason| reason.contains(words))
    }

    pub fn acts(&self, action: impl Fn(&Action) -> bool) -> bool {
        self.last.actions.iter().any(action)
    }
    pub fn stage(&self) -> Option<Stage> {
        self.data().fencing().map(|mark| mark.stage)
    }

    pub fn primary(&self) -> String {
        self.data().primary().unwrap().1.spec.keeper_uid.to_string()
    }

    pub fn db_of(&self, name: &str) -> DbUid {
        self.data().db_of(&keeper(name)).unwrap().0.clone()
    }

    pub fn copies(&self, name: &str) -> bool {
        self.data().db_of(&keeper(name)).is_some_and(|(_, db)| db.spec.init_mode == DbInitMode::Resync)
    }
}

pub fn refused(decision: &Decision) -> bool {
    decision.reasons.iter().any(|reason| reason.contains("refused by the own check"))
}
