//! The means of directed histories: a calm world, faults when the script wants them, waits that are bounded and say on
//! what they waited.

use std::rc::Rc;

use stolon::model::Epoch;
use stolon_simulation::{
    faults::{Fault, strike},
    postgres::Mode,
    rules::Without,
    settings::Settings,
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
    /// Three hosts and two proxies, all well, and clients write.
    pub fn begin(seed: u64) -> Story {
        let mut settings = Settings::of_seed(seed);
        (settings.databases, settings.late, settings.faults) = (3, 0, 0);
        settings.spec.strict_fencing = Some(false);
        settings.spec.max_standby_lag = None;
        let town = Town::build(seed, settings, Without::none(), true);
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
