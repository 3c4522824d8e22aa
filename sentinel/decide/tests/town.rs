//! The cluster of the scenarios: an etcd in memory, time, and a leader's decisions. What daemons say is in `voices`.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{
        ClusterData, DbUid, LeaseId, Moment, Revision, SentinelUid,
        cluster::{DbInitMode, Stage},
        registration::PrimaryKey,
        spec::StoredSpec,
    },
    store::{Candidate, Held, Mirror, Stored},
};

use super::{keeper, ms, secs};
use crate::{
    decide::{Action, Commit, Decision, Holder, Step, Wish, World, decide},
    observe::Observations,
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

    pub(super) fn bump(&mut self) -> Revision {
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
