//! The means of directed histories: a calm world, faults when the script wants them, waits that are bounded and say on
//! what they waited.

use std::rc::Rc;

use stolon::model::Epoch;
use stolon_simulation::{
    faults::{Fault, strike},
    keeper,
    postgres::Mode,
    rules::Without,
    settings::{Replication, Settings},
    town::Town,
    world::{HostId, MS, SEC},
};

pub struct Story {
    pub town: Rc<Town>,
}

impl Drop for Story {
    fn drop(&mut self) {
        self.town.end();
    }
}

impl Story {
    /// Three hosts and two proxies, all well, and clients write; asynchronous.
    pub fn begin(seed: u64) -> Story {
        Story::of(seed, Replication::Asynchronous, Without::none())
    }

    /// As `begin`, with synchronous standbys, which are in sync when this returns.
    pub fn synchronous(seed: u64, min: u16, max: u16) -> Story {
        Story::synchronous_without(seed, min, max, Without::none())
    }

    pub fn synchronous_without(seed: u64, min: u16, max: u16, without: Without) -> Story {
        let story = Story::of(seed, Replication::Synchronous { min, max }, without);
        story.settle();
        story
    }

    /// What was found wrong in these invariants, in words.
    pub fn found(&self, invariants: &[&str]) -> Vec<String> {
        let audit = self.town.world.audit.borrow();
        let of = audit.findings.iter().filter(|finding| invariants.contains(&finding.invariant));
        of.map(|finding| format!("{}: {}", finding.invariant, finding.what)).collect()
    }

    pub fn of(seed: u64, replication: Replication, without: Without) -> Story {
        let mut settings = Settings::of_seed(seed).replicating(replication);
        (settings.databases, settings.late, settings.faults, settings.handovers) = (3, 0, 0, 0);
        settings.spec.strict_fencing = Some(false);
        settings.spec.max_standby_lag = None;
        let town = Town::build(seed, settings, without, true);
        let story = Story { town };
        story.until(20, "the cluster to be complete", |story| {
            let mirror = story.town.etcd.state.borrow().newest();
            let complete = mirror.data().is_some_and(|(data, _)| {
                data.dbs.len() == 3
                    && data.dbs.values().all(|db| db.status.healthy && db.status.current_generation == db.generation)
            });
            complete && story.acks() > 20
        });
        story.pass(2 * SEC);
        story
    }

    pub fn now(&self) -> u64 {
        self.town.world.rt.now()
    }

    pub fn pass(&self, time: u64) {
        self.town.world.rt.run_until(self.now() + time);
    }

    /// Runs until something holds.
    pub fn until(&self, seconds: u64, what: &str, holds: impl Fn(&Story) -> bool) {
        let end = self.now() + seconds * SEC;
        while !holds(self) {
            assert!(self.now() < end, "waited {seconds} s for {what}\n{}", self.log());
            self.pass(MS);
        }
    }

    pub fn strike(&self, fault: Fault, host: HostId, seconds: f64) {
        strike(&self.town, fault, host, self.now() + (seconds * 1e6) as u64);
    }

    pub fn primary(&self) -> HostId {
        self.town.primary().expect("there is a primary")
    }

    pub fn others(&self) -> Vec<HostId> {
        (0..3).filter(|host| *host != self.primary()).collect()
    }

    /// Standbys that are named and were seen in sync.
    pub fn electable(&self) -> Vec<HostId> {
        let mirror = self.town.etcd.state.borrow().newest();
        let Some((data, _)) = mirror.data() else { return Vec::new() };
        let Some((_, master)) = data.primary() else { return Vec::new() };
        let known = master.status.synchronous_standbys.iter().flatten();
        known.filter_map(|uid| data.dbs.get(uid)).map(|db| keeper::host_of(&db.spec.keeper_uid)).collect()
    }

    /// Whom a handover could be to: standbys that stream, and are in sync if that matters.
    pub fn candidates(&self) -> Vec<HostId> {
        let synchronous = self.town.world.audit.borrow().synchronous;
        let electable = self.electable();
        let fit = |host: &HostId| !synchronous || electable.contains(host);
        let streams =
            |host: &HostId| self.town.machines[*host].running().is_some_and(|server| server.receiving.get().is_some());
        self.others().into_iter().filter(|host| fit(host) && streams(host)).collect()
    }

    /// Waits until both others stream, and as many as the mode wants are in sync.
    pub fn settle(&self) {
        let wanted = match self.town.world.settings.replication {
            Replication::Synchronous { max, .. } => usize::from(max),
            _ => 0,
        };
        self.until(25, "all standbys to follow, and enough of them in sync", |story| {
            let follows = |host: &HostId| {
                story.town.machines[*host].running().is_some_and(|server| server.receiving.get().is_some())
            };
            story.others().iter().filter(|host| follows(host)).count() == 2 && story.electable().len() >= wanted
        });
        self.pass(SEC);
    }

    pub fn records(&self, host: HostId) -> usize {
        self.town.machines[host].with_data(|data| data.wal.len()).unwrap_or(0)
    }

    /// Of each commit that this primary acknowledged in this epoch: whether it waited for standbys.
    pub fn released(&self, host: HostId, epoch: Epoch) -> Vec<bool> {
        let audit = self.town.world.audit.borrow();
        let own = audit.acks.iter().filter(|ack| ack.commit.host == host && ack.commit.epoch == epoch);
        own.map(|ack| ack.commit.waited).collect()
    }

    /// The present primary has every commit that was ever acknowledged.
    pub fn nothing_lost(&self) {
        let wal = self.town.machines[self.primary()].with_data(|data| data.wal.clone()).unwrap_or_default();
        let audit = self.town.world.audit.borrow();
        let lost: Vec<_> = audit.acks.iter().filter(|ack| !wal.contains(&ack.commit.record)).collect();
        assert!(lost.is_empty(), "{} acknowledged commits are lost: {:?}\n{}", lost.len(), lost.first(), self.log());
    }

    pub fn epoch(&self) -> Epoch {
        self.town.epoch()
    }

    pub fn acks(&self) -> usize {
        self.town.world.audit.borrow().acks.len()
    }

    pub fn serves(&self, host: HostId) -> bool {
        self.town.machines[host].mode() == Some(Mode::Primary)
    }

    pub fn count(&self, what: &str) -> u64 {
        self.town.world.coverage.borrow().of(what)
    }

    /// Clients behind both proxies write again, and nothing was found wrong.
    pub fn ends_well(&self) {
        for proxy in 3..5 {
            let from = self.now();
            self.until(30, "an acknowledgement through each proxy", |story| {
                story
                    .town
                    .world
                    .audit
                    .borrow()
                    .acks
                    .iter()
                    .rev()
                    .take_while(|ack| ack.at >= from)
                    .any(|ack| matches!(ack.via, stolon_simulation::audit::Via::Proxy { host, .. } if host == proxy))
            });
        }
        self.pass(3 * SEC);
        self.nothing_found();
    }

    pub fn nothing_found(&self) {
        let findings = self.town.world.audit.borrow().findings.clone();
        assert!(findings.is_empty(), "{findings:#?}\n{}", self.log());
    }

    /// The last events.
    pub fn log(&self) -> String {
        let log = self.town.world.log.as_ref().map(|log| log.borrow().clone()).unwrap_or_default();
        log[log.len().saturating_sub(90)..].join("\n")
    }
}
