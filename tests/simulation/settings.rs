//! What differs from seed to seed: how many hosts, the specification, how bad the world is.

use std::time::Duration;

use stolon::model::{godur::GoDuration, spec::StoredSpec};

use crate::{
    rng::Rng,
    runtime::Micros,
    world::{MS, SEC},
};

/// How the primary replicates in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Asynchronous,
    Synchronous {
        min: u16,
        max: u16,
    },
    /// Begins asynchronous.
    SwitchedOn {
        at: Micros,
        min: u16,
        max: u16,
    },
    /// Begins synchronous.
    SwitchedOff {
        at: Micros,
        min: u16,
        max: u16,
    },
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub databases: usize,
    pub proxies: usize,
    /// Clocks may run so many millionths too fast or too slow.
    pub drift: u64,
    pub heartbeat: Micros,
    /// In ten thousand steps so many take much longer than usual.
    pub late: u64,
    /// Between two writes of one client.
    pub write_pause: Micros,
    /// Faults begin after `calm`, and all have ended at `healed`.
    pub calm: Micros,
    pub healed: Micros,
    pub end: Micros,
    pub faults: u64,
    pub replication: Replication,
    /// So many handovers are asked for.
    pub handovers: u64,
    pub spec: StoredSpec,
}

impl Settings {
    pub fn of_seed(seed: u64) -> Settings {
        let mut rng = Rng::new(seed ^ 0xA5A5_5A5A_0F0F_F0F0);
        let millis =
            |rng: &mut Rng, low: u64, high: u64| Some(GoDuration(Duration::from_millis(rng.within(low, high))));
        let spec = StoredSpec {
            sleep_interval: millis(&mut rng, 1000, 5000),
            suspect_interval: millis(&mut rng, 700, 1500),
            fail_interval: millis(&mut rng, 3000, 8000),
            proxy_check_interval: millis(&mut rng, 500, 900),
            proxy_timeout: millis(&mut rng, 3000, 6000),
            convergence_timeout: millis(&mut rng, 4000, 9000),
            init_timeout: millis(&mut rng, 8000, 15_000),
            db_wait_ready_timeout: millis(&mut rng, 5000, 10_000),
            max_standby_lag: rng.percent(50).then(|| u32::try_from(rng.within(0, 40)).unwrap_or(0) * 100),
            use_pgrewind: Some(rng.percent(70)),
            strict_fencing: Some(rng.percent(25)),
            ..StoredSpec::automatic()
        };
        let settings = Settings {
            databases: if rng.percent(85) { 3 } else { 2 + rng.pick(&[2, 3]) },
            proxies: 2,
            drift: rng.pick(&[0, 100, 5_000]),
            heartbeat: rng.within(380, 450) * MS,
            late: rng.pick(&[0, 5, 50]),
            write_pause: rng.within(300, 700) * MS,
            calm: 6 * SEC,
            healed: 34 * SEC,
            end: 62 * SEC,
            faults: rng.within(3, 7),
            replication: Replication::Asynchronous,
            handovers: 0,
            spec,
        };
        // Of its own, so that the rest of a seed stays what it is.
        let mut rng = Rng::new(seed ^ 0x0FF0_F00F_3CC3_C33C);
        let handovers = if rng.percent(40) { rng.within(1, 3) } else { 0 };
        let replication = Replication::random(&mut rng, settings.databases);
        Settings { handovers, ..settings }.replicating(replication)
    }

    pub fn replicating(mut self, replication: Replication) -> Settings {
        let (on, counts) = match replication {
            Replication::Asynchronous => (None, None),
            Replication::Synchronous { min, max } | Replication::SwitchedOff { min, max, .. } => {
                (Some(true), Some((min, max)))
            }
            Replication::SwitchedOn { min, max, .. } => (Some(false), Some((min, max))),
        };
        self.replication = replication;
        self.spec.synchronous_replication = on;
        self.spec.min_synchronous_standbys = counts.map(|(min, _)| min);
        self.spec.max_synchronous_standbys = counts.map(|(_, max)| max);
        self
    }

    /// Longest time that etcd takes for a request.
    pub fn slow_etcd(&self) -> Micros {
        8 * MS
    }
}

impl Replication {
    fn random(rng: &mut Rng, databases: usize) -> Replication {
        let (min, max) = match databases {
            2 => rng.pick(&[(1, 1), (1, 1), (0, 1)]),
            _ => rng.pick(&[(1, 1), (1, 1), (1, 2), (1, 2), (0, 1), (2, 2)]),
        };
        let at = rng.within(7 * SEC, 30 * SEC);
        match rng.below(20) {
            0..=8 => Replication::Asynchronous,
            9..=16 => Replication::Synchronous { min, max },
            17 | 18 => Replication::SwitchedOn { at, min, max },
            _ => Replication::SwitchedOff { at, min, max },
        }
    }
}
