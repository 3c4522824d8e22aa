//! Runs histories: one seed, or many on all cores; sums up what happened, and says how to see a failing one again.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use crate::{audit::Finding, coverage::Coverage, rules::Without, settings::Settings, town::Town};

/// What became of one history.
pub struct Outcome {
    pub seed: u64,
    pub findings: Vec<Finding>,
    pub coverage: Coverage,
    pub log: Vec<String>,
    /// Polls of tasks: how much work it was.
    pub polls: u64,
}

pub fn history(seed: u64, without: Without, log: bool) -> Outcome {
    history_of(seed, Settings::of_seed(seed), without, log)
}

pub fn history_of(seed: u64, settings: Settings, without: Without, log: bool) -> Outcome {
    let town = Town::build(seed, settings, without, log);
    town.live();
    finish(seed, &town)
}

/// Takes a town apart, and what it has seen out of it.
pub fn finish(seed: u64, town: &std::rc::Rc<Town>) -> Outcome {
    let world = &town.world;
    let findings = std::mem::take(&mut world.audit.borrow_mut().findings);
    let coverage = std::mem::take(&mut *world.coverage.borrow_mut());
    let log = world.log.as_ref().map(|log| std::mem::take(&mut *log.borrow_mut())).unwrap_or_default();
    let polls = world.rt.polls.get();
    town.end();
    Outcome { seed, findings, coverage, log, polls }
}

/// Many histories.
#[derive(Default)]
pub struct Sum {
    pub seeds: u64,
    pub coverage: Coverage,
    /// The first failing ones, by seed.
    pub failed: Vec<(u64, Vec<Finding>)>,
    pub seconds: f64,
    pub polls: u64,
}

/// Runs `count` seeds from `from` on, on all cores; no more than `enough` failing ones are looked for.
pub fn many(from: u64, count: u64, without: Without, enough: usize) -> Sum {
    let (next, sum, began) = (AtomicU64::new(from), Mutex::new(Sum::default()), Instant::now());
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let mut own = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                break;
            }
            let outcome = history(seed, without, false);
            own.seeds += 1;
            own.polls += outcome.polls;
            own.coverage.add(&outcome.coverage);
            if !outcome.findings.is_empty() {
                let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.failed.push((outcome.seed, outcome.findings));
                if sum.failed.len() >= enough {
                    next.store(from + count, Ordering::Relaxed);
                }
            }
        }
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.seeds += own.seeds;
        sum.polls += own.polls;
        sum.coverage.add(&own.coverage);
    };
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_by_key(|(seed, _)| *seed);
    sum.seconds = began.elapsed().as_secs_f64();
    sum
}

/// How to see a history again.
pub fn replay(seed: u64, without: Without) -> String {
    let rule = without.missing().map(|rule| format!(" --without {rule}")).unwrap_or_default();
    format!("cargo run -p stolon-simulation --bin sim -- --seed {seed}{rule}")
}

impl Sum {
    /// For people: what happened how often, and what failed.
    pub fn report(&self, without: Without) -> String {
        let mut text = String::new();
        for (what, count) in &self.coverage.counts {
            text += &format!("{count:>10}  {what}\n");
        }
        for (seed, findings) in &self.failed {
            text += &format!("seed {seed}: {}\n", replay(*seed, without));
            for finding in findings.iter().take(3) {
                text += &format!("  {:.3} s  {}: {}\n", finding.at as f64 / 1e6, finding.invariant, finding.what);
            }
        }
        let per = self.seconds * 1000.0 / self.seeds.max(1) as f64;
        text + &format!(
            "{} histories in {:.1} s ({per:.2} ms each), {} failed\n",
            self.seeds,
            self.seconds,
            self.failed.len()
        )
    }
}
