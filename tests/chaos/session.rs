//! A stage, and the trials that are run on it one after the other. A trial that fails ends its session: its stage may be
//! spoilt, and its logs are kept.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use stolon_tests::{
    Test, Weight,
    netns::{self, Network},
    postmaster::Segment,
    run_for,
    runner::report,
    stage::{Role, Stage, disks_allowed},
};

use crate::{
    fault::{Fault, Mode},
    ledger::Entry,
    strike, trial,
};

/// One trial takes up to this: two waits for calm, the longest expectation, and what lies between.
const TRIAL: Duration = Duration::from_secs(420);
/// From a kill to the end of a process that hung on a disk.
const LAST_BREATH: Duration = Duration::from_secs(20);

/// True when faults can be made here. Says what is missing else.
pub fn possible(test: &str) -> bool {
    if !netns::allowed(test) {
        return false;
    }
    let lacking = strike::missing().or_else(|| (!disks_allowed()).then(|| "no loop devices here".to_owned()));
    if let Some(lacking) = &lacking {
        report(&format!("SKIPPED {test}: {lacking}"));
    }
    lacking.is_none()
}

/// Runs the trials on one stage; each entry goes to `done`. Panics when one fails.
pub fn session(mode: Mode, trials: &[(&'static Fault, usize)], done: &mut (dyn FnMut(Entry) + Send)) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("chaos-{}-{}", mode.name(), COUNT.fetch_add(1, Ordering::SeqCst));
    let network = Network::new(trial::HOSTS);
    let limit = TRIAL * u32::try_from(trials.len()).unwrap_or(u32::MAX);
    netns::inside(&network.switch, || {
        run_for(&name, Weight::Heavy, limit, async |test| each(test, &network, mode, trials, done).await);
    });
}

async fn each(
    test: Test,
    network: &Network,
    mode: Mode,
    trials: &[(&'static Fault, usize)],
    done: &mut (dyn FnMut(Entry) + Send),
) {
    let mut stage = Stage::launch(test, network, trial::plan(mode)).await;
    let mut segments = Vec::new();
    for (fault, round) in trials {
        let began = Instant::now();
        let outcome = trial::run(&mut stage, fault, mode).await;
        let entry = Entry::new(fault, mode, *round, &outcome, began.elapsed());
        report(&format!("CHAOS {}", entry.line()));
        done(entry);
        assert!(outcome.problems.is_empty(), "{} ({}): {}", fault.name, mode.name(), outcome.problems.join("; "));
        let servers = stage.hosts_of(Role::Keeper).into_iter();
        segments.extend(servers.filter_map(|host| Segment::of(&stage.data_dir(host).join("postgres"))));
    }
    drop(stage);
    // A server that hung on a frozen disk dies when the disk has gone.
    let began = Instant::now();
    while segments.iter().any(|segment| !segment.sweep()) {
        let left: Vec<_> = segments.iter().filter(|segment| segment.attached().is_some()).collect();
        assert!(began.elapsed() < LAST_BREATH, "servers outlive their stage: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
