//! Leases, authority, and who believes what of them: executions 1, 2, 3, 6, 22, 24.

use stolon_simulation::{
    faults::Fault,
    postgres::Mode,
    world::{MS, SEC},
};

use crate::story::Story;

#[test]
fn execution_1_a_restarted_keeper_on_a_new_lease_does_not_outlive_the_old_one() {
    for seed in 0..5 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        story.town.machines[old].disk.borrow_mut().journal.writer = None;
        story.strike(Fault::KillKeeper, old, 1.0);
        story.until(12, "the primary that nobody may keep to end", |story| !story.serves(old) || story.epoch() > epoch);
        story.ends_well();
    }
}

#[test]
fn execution_2_a_keeper_that_registers_anew_has_no_authority_by_that() {
    for seed in 10..15 {
        let story = Story::begin(seed);
        let old = story.primary();
        story.strike(Fault::CutEtcd, old, 8.0);
        story.until(8, "the primary without authority to end", |story| !story.serves(old));
        story.pass(8 * SEC);
        story.ends_well();
    }
}

#[test]
fn execution_3_a_slow_winner_that_lost_its_lease_does_not_promote() {
    for seed in 20..25 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        story.strike(Fault::KillAll, old, 20.0);
        story.until(30, "an election", |story| story.epoch() > epoch);
        let (winner, won) = (story.primary(), story.epoch());
        story.strike(Fault::PauseKeeper, winner, 9.0);
        let promoted = story.town.machines[winner].mode() != Some(Mode::Recovery);
        story.pass(10 * SEC);
        story.ends_well();
        assert!(promoted || story.epoch() > won || story.serves(winner), "seed {seed}");
    }
}

#[test]
fn execution_6_a_lease_is_not_given_back_while_postgres_runs() {
    for seed in 30..35 {
        let story = Story::begin(seed);
        let old = story.primary();
        let lease = story.town.keeper(old).map(|keeper| keeper.registration_lease()).expect("a keeper");
        let before = story.town.machines[old].running().map(|server| server.id).expect("a server");
        story.strike(Fault::PausePostgres, old, 3.0);
        story.strike(Fault::Leave, old, 0.1);
        for _ in 0..6_000 {
            story.pass(MS);
            let standing = {
                let state = story.town.etcd.state.borrow();
                let mirror = state.newest();
                mirror.primary.as_ref().is_some_and(|held| held.lease == lease)
            };
            // Its successor may be itself, started again under the next epoch.
            let runs = story.town.machines[old].primary().is_some_and(|server| server.id == before);
            assert!(standing || !runs, "seed {seed}: the lease went first");
        }
        story.ends_well();
    }
}

#[test]
fn execution_22_keepalives_that_are_answered_late_do_not_prolong_authority() {
    for seed in 40..45 {
        let story = Story::begin(seed);
        let old = story.primary();
        for other in 0..5 {
            story.town.world.net.worsen(old, other, 0, 3 * SEC);
            story.town.world.net.worsen(other, old, 0, 3 * SEC);
        }
        story.pass(15 * SEC);
        for other in 0..5 {
            story.town.world.net.worsen(old, other, 0, 0);
            story.town.world.net.worsen(other, old, 0, 0);
        }
        story.ends_well();
    }
}

#[test]
fn execution_24_a_killed_guard_takes_its_primary_with_it() {
    for seed in 50..55 {
        let story = Story::begin(seed);
        let old = story.primary();
        let before = story.town.machines[old].running().map(|server| server.id);
        story.strike(Fault::KillGuard, old, 0.1);
        story.pass(10 * MS);
        let after = story.town.machines[old].running().map(|server| server.id);
        assert_ne!(before, after, "seed {seed}: it went on without a guard");
        story.ends_well();
    }
}
