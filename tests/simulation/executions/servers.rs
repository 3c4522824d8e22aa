//! PostgreSQL servers that die, come back, or are on the wrong branch: executions 4, 5, 7, 18, 25.

use stolon_simulation::{
    faults::Fault,
    postgres::Mode,
    world::{MS, SEC},
};

use crate::story::Story;

#[test]
fn execution_4_a_server_seen_dead_is_not_fenced_while_its_keeper_may_start_it_again() {
    for seed in 100..105 {
        let story = Story::begin(seed);
        let old = story.primary();
        // The news go out, and then nothing more is heard of this keeper.
        story.strike(Fault::KillPostmaster, old, 0.1);
        story.pass(3 * MS);
        story.strike(Fault::CutStreams, old, 6.0);
        story.strike(Fault::CutEtcd, old, 3.0);
        story.pass(8 * SEC);
        story.ends_well();
    }
}

#[test]
fn execution_5_a_promotion_in_flight_is_fenced_like_a_primary() {
    for seed in 110..115 {
        let story = Story::begin(seed);
        let old = story.primary();
        story.strike(Fault::KillAll, old, 15.0);
        story.until(30, "a promotion to begin", |story| {
            story.town.machines.iter().any(|machine| machine.mode() == Some(Mode::Promoting))
        });
        let winner = story.primary();
        story.strike(Fault::Isolate, winner, 8.0);
        story.pass(10 * SEC);
        story.ends_well();
    }
}

#[test]
fn execution_7_a_promise_outlives_the_keeper_and_its_server() {
    for seed in 120..125 {
        let story = Story::begin(seed);
        let old = story.primary();
        story.strike(Fault::KillPostgres, old, 0.1);
        story.until(10, "a recruit", |story| story.count("recruits") > 0);
        for other in story.others() {
            story.strike(Fault::KillKeeperAndPostgres, other, 1.0);
        }
        story.strike(Fault::KillKeeper, old, 0.5);
        story.ends_well();
    }
}

#[test]
fn execution_18_two_timelines_of_one_number_are_told_apart() {
    for seed in 130..140 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        story.strike(Fault::KillAll, old, 25.0);
        story.until(30, "an election", |story| story.epoch() > epoch);
        let winner = story.primary();
        story.until(10, "the winner to leave recovery", |story| {
            matches!(story.town.machines[winner].mode(), Some(Mode::Primary)) || story.primary() != winner
        });
        // It never says that it serves, and its branch has the number that the next one makes again.
        story.strike(Fault::KillAll, winner, 12.0);
        story.pass(14 * SEC);
        story.ends_well();
    }
}

#[test]
fn execution_25_after_a_cold_start_the_incumbent_is_waited_for() {
    for seed in 140..145 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        for host in 0..3 {
            story.strike(Fault::PowerOff, host, if host == old { 3.0 } else { 2.0 });
        }
        story.pass(12 * SEC);
        story.ends_well();
        assert!(story.primary() == old || story.epoch() > epoch, "seed {seed}");
    }
}
