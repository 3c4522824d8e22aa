//! The whole table, in both modes, and the repeated faults: what is done already is left out, and a failed trial doesn't
//! keep the others from being run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use stolon_tests::runner::report;

use crate::{
    fault::{Fault, Mode},
    ledger::{Entry, Ledger},
    session::session,
    table::{FAULTS, REPEATED, ROUNDS, named},
};

/// Environment variables: modes (`async,sync`), and a part of a fault's name, to run less.
const MODES: &str = "CHAOS_MODES";
const ONLY: &str = "CHAOS_ONLY";

type Trial = (&'static Fault, usize);

/// As many on one stage: a fresh one now and then, and not too much to look through when one fails.
const SESSION: usize = 10;

pub fn run() {
    let mut ledger = Ledger::open();
    report(&format!("CHAOS results go to {}", ledger.folder().display()));
    let modes = std::env::var(MODES).unwrap_or_else(|_| "async,sync".to_owned());
    for mode in [Mode::Asynchronous, Mode::Synchronous] {
        if modes.split(',').any(|name| name == mode.name()) {
            all(mode, &mut ledger);
        }
    }
    report(&ledger.table());
    assert_eq!(ledger.failed(), 0, "trials failed: see {}", ledger.folder().join("table.txt").display());
}

/// The table's rows, then the repeated ones.
fn wanted() -> Vec<Trial> {
    let rounds = (1..=ROUNDS).map(|round| (named(REPEATED[round % REPEATED.len()]), round));
    let only = std::env::var(ONLY).unwrap_or_default();
    let all = FAULTS.iter().map(|fault| (fault, 0)).chain(rounds);
    all.filter(|(fault, _)| fault.name.contains(&only)).collect()
}

fn all(mode: Mode, ledger: &mut Ledger) {
    let mut left: Vec<Trial> =
        wanted().into_iter().filter(|(fault, round)| !ledger.done(fault.name, mode, *round)).collect();
    while !left.is_empty() {
        let some: Vec<Trial> = left.iter().take(SESSION).copied().collect();
        let mut ended = 0;
        let run = AssertUnwindSafe(|| {
            session(mode, &some, &mut |entry: Entry| {
                ledger.add(entry);
                ended += 1;
            });
        });
        if catch_unwind(run).is_err() && ended == 0 {
            // Not even the stage came up, or the trial took for ever: it counts as failed, and the next one has its turn.
            let (fault, round) = some[0];
            ledger.add(Entry::unfinished(fault, mode, round));
            ended = 1;
        }
        left.drain(..ended);
    }
}
