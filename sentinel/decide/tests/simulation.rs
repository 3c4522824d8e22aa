//! A seeded world: keepers and proxies acknowledge in random order, die and come back, leaders change. Never two
//! primaries of one epoch, no election without proof, and every failover ends.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use stolon::model::{
    Epoch, KeeperUid,
    report::{KeeperReport, PostgresState},
};

use super::{
    keeper, ms,
    town::{Town, refused},
};
use crate::{decide::Proof, observe::Observations};

struct Sim {
    town: Town,
    random: StdRng,
    /// Who was given each epoch.
    primaries: BTreeMap<Epoch, KeeperUid>,
}

#[test]
fn random_failovers_are_safe_and_end() {
    for seed in 0..150 {
        let mut sim =
            Sim { town: Town::running(3, 2), random: StdRng::seed_from_u64(seed), primaries: BTreeMap::new() };
        for _ in 0..6 {
            sim.disaster();
            sim.recover(seed);
        }
        assert!(sim.primaries.len() >= 4, "seed {seed}: hardly anything happened: {:?}", sim.primaries);
    }
}

impl Sim {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn disaster(&mut self) {
        let name = self.town.primary();
        match self.random.random_range(0..3) {
            0 => self.town.report(&name, |report| report.postgres.state = PostgresState::Stopped),
            1 => {
                self.town.expire(&name);
                self.town.hang_up(&name);
            }
            _ => self.town.report(&name, |report| report.leaving = true),
        }
    }

    fn recover(&mut self, seed: u64) {
        let epoch = self.town.data().epoch();
        for round in 0..600 {
            self.town.pass(ms(100));
            self.town.beat(&[]);
            self.answer();
            if self.chance(3) {
                self.change_leader();
            }
            self.decide(seed);
            if self.town.data().epoch() > epoch && self.calm() {
                return;
            }
            assert!(round < 599, "seed {seed}: never ends: {:?}", self.town.last.reasons);
        }
    }

    /// A primary serves, everybody has a db, all that was asked is done.
    fn calm(&self) -> bool {
        let data = self.town.data();
        let ready = self.town.mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch == data.epoch());
        let standing = data.dbs.values().all(|db| db.status.healthy && db.status.current_generation == db.generation);
        ready && data.fencing().is_none() && data.dbs.len() == 3 && standing && self.town.last.committed().is_none()
    }

    fn decide(&mut self, seed: u64) {
        let decision = self.town.decide();
        assert!(!refused(&decision), "seed {seed}: {:?}", decision.reasons);
        let Some(commit) = decision.committed() else { return };
        if let Some(change) = &commit.change {
            let other = self.primaries.insert(change.key.epoch, change.key.keeper.clone());
            assert_eq!(other, None, "seed {seed}: two primaries of epoch {}", change.key.epoch);
            assert_ne!(change.proof, Proof::First);
        }
        // The leader may die before its transaction.
        if self.chance(90) {
            self.town.apply(commit);
        } else if let Some(change) = &commit.change {
            self.primaries.remove(&change.key.epoch);
        }
    }

    fn change_leader(&mut self) {
        let known = std::mem::take(&mut self.town.seen);
        let now = self.town.now;
        self.town.seen = Observations::leading(now);
        for (uid, peer) in known.keepers.into_iter().filter(|(_, peer)| peer.connected) {
            self.town.seen.keeper_connected(now, &uid);
            self.town.seen.keeper_report(now, &uid, peer.report.map(|(report, _)| report).unwrap_or_default());
        }
        for (uid, peer) in known.proxies.into_iter().filter(|(_, peer)| peer.connected) {
            self.town.seen.proxy_connected(now, &uid);
            self.town.seen.proxy_report(now, &uid, peer.report.map(|(report, _)| report).unwrap_or_default());
        }
    }

    /// Everybody does, sooner or later, what the data ask of it.
    fn answer(&mut self) {
        let data = self.town.data().clone();
        for name in ["k1", "k2", "k3"] {
            if !self.town.mirror.keepers.contains_key(&keeper(name)) {
                if self.chance(5) {
                    self.come_back(name);
                }
                continue;
            }
            if !self.chance(50) {
                continue;
            }
            match data.fencing() {
                Some(mark) => self.consent(name, mark.epoch),
                None => self.follow(name),
            }
        }
        if let Some(mark) = data.fencing() {
            for name in ["p1", "p2"] {
                if self.chance(40) {
                    self.town.fence(name, mark.epoch.0);
                }
            }
        }
    }

    fn consent(&mut self, name: &str, epoch: Epoch) {
        let data = self.town.data().clone();
        let Some((uid, db)) = data.db_of(&keeper(name)) else { return };
        if db.spec.role == stolon::model::cluster::DbRole::Master {
            match self.chance(90) {
                true => self.town.stop(name, epoch.0),
                false => self.town.promise(name, epoch.0),
            }
            let leaves =
                self.town.seen.keepers[&keeper(name)].report.as_ref().is_some_and(|(report, _)| report.leaving);
            if leaves && self.chance(3) {
                self.town.expire(name);
                self.town.hang_up(name);
            }
        } else if self.town.stage() == Some(stolon::model::cluster::Stage::Recruit) {
            let lsn = 1000 * epoch.0 + self.random.random_range(0..=10);
            let complete = self.town.seen.keepers[&keeper(name)].report.as_ref().is_some_and(|(report, _)| {
                report.postgres.db.as_ref() == Some(uid) && report.postgres.state == PostgresState::Standby
            });
            if complete {
                self.town.recruit(name, epoch.0 + 1, u32::try_from(epoch.0).unwrap(), lsn);
            }
        }
    }

    fn follow(&mut self, name: &str) {
        let data = self.town.data().clone();
        let Some((uid, _)) = data.db_of(&keeper(name)) else { return };
        if data.cluster.status.master.as_ref() != Some(uid) {
            let ends = |report: &KeeperReport| report.leaving;
            if self.town.seen.keepers[&keeper(name)].report.as_ref().is_some_and(|(report, _)| ends(report)) {
                self.town.expire(name);
                return self.town.hang_up(name);
            }
            return self.town.speak(name);
        }
        let lease = self.town.mirror.keepers[&keeper(name)].lease;
        let holds = self.town.mirror.primary.as_ref().is_some_and(|held| held.lease == lease);
        let down = self.town.seen.keepers[&keeper(name)].report.as_ref().is_some_and(|(report, _)| {
            report.leaving || report.authority.is_some() && report.postgres.state == PostgresState::Stopped
        });
        if holds && !down {
            let served = self.town.mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch == data.epoch());
            if served { self.town.speak(name) } else { self.town.serve() }
        }
    }

    fn come_back(&mut self, name: &str) {
        self.town.register(name);
        let data = self.town.data().clone();
        if let Some((uid, _)) = data.db_of(&keeper(name)) {
            let uid = uid.clone();
            let system_id = super::town::SYSTEM;
            self.town.info(name, |info| {
                info.cluster_uid = Some(data.cluster.uid.clone());
                info.data = Some(stolon::model::registration::DataDir { system_id, db: Some(uid) });
            });
        }
    }
}
