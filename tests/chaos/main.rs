//! Real faults on hosts of their own, under an auditing client: a short subset as tests, and the whole table, which resumes
//! where it stopped, as an ignored one (`make chaos`).

#![allow(clippy::unwrap_used)]

mod bites;
mod cancelled;
mod fault;
mod ledger;
mod names;
mod session;
mod strike;
mod table;
mod trial;
mod whole;

use fault::Mode;
use session::{possible, session};

/// On one stage, in this order; a failure names the fault.
fn some(test: &str, mode: Mode, names: &[&str]) {
    if possible(test) {
        let trials: Vec<_> = names.iter().map(|name| (table::named(name), 0)).collect();
        session(mode, &trials, &mut |_| ());
    }
}

#[test]
fn another_host_takes_over_when_processes_of_the_primary_die_or_freeze() {
    let faults = ["kill-postgres", "freeze-keeper", "freeze-keeper-and-postgres", "kill-primary-host"];
    some("another_host_takes_over_when_processes_of_the_primary_die_or_freeze", Mode::Asynchronous, &faults);
}

#[test]
fn another_host_takes_over_when_the_primary_is_cut_off_and_nobody_sees_two() {
    let faults = ["cut-everything", "cut-leaving", "vanish-primary-host", "winner-dies-when-elected"];
    some("another_host_takes_over_when_the_primary_is_cut_off_and_nobody_sees_two", Mode::Asynchronous, &faults);
}

#[test]
fn clients_stay_where_they_are_when_others_than_the_primary_are_struck() {
    let faults =
        ["kill-keeper-restarted", "kill-sentinel-leader", "kill-etcd-leader", "cut-sentinels", "stall-disk-1s"];
    some("clients_stay_where_they_are_when_others_than_the_primary_are_struck", Mode::Asynchronous, &faults);
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_sees_two_with_synchronous_replication() {
    let faults = ["kill-keeper-and-postgres", "winner-dies-when-elected", "kill-both-standbys"];
    some("nothing_acknowledged_is_lost_and_nobody_sees_two_with_synchronous_replication", Mode::Synchronous, &faults);
}

/// Every row in every mode, and the repeated ones: hours.
#[test]
#[ignore = "hours: make chaos"]
fn the_whole_table() {
    if possible("the_whole_table") {
        whole::run();
    }
}
