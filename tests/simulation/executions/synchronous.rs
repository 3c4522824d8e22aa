//! Synchronous replication in directed histories: executions 9, 10, 19, and what a restart uncovers (R20).

use stolon::model::cluster::BLOCKING_NAME;
use stolon_simulation::{
    faults::Fault,
    net::Class,
    operator,
    rules::{Rule, Without},
    settings::Replication,
    world::MS,
};

use crate::story::Story;

#[test]
fn execution_9_a_recruit_that_is_further_but_was_not_in_sync_neither_wins_nor_is_waited_for() {
    for seed in 200..210 {
        // One of the two standbys is named; the other one streams as well.
        let story = Story::synchronous(seed, 1, 1);
        let (old, epoch) = (story.primary(), story.epoch());
        let named = story.electable();
        assert_eq!(named.len(), 1, "seed {seed}: {named:?}");
        let other = story.others().into_iter().find(|host| !named.contains(host)).expect("a third host");
        // What the primary writes now reaches only the one that is not named: nothing of it is acknowledged.
        let before = story.acks();
        story.town.world.net.cut(old, named[0], Class::Wal);
        story.pass(1_500 * MS);
        let further = |story: &Story| story.records(other) > story.records(named[0]);
        assert!(further(&story), "seed {seed}: the one that is not named got nothing more");
        assert!(story.acks() <= before + 4, "seed {seed}: commits did not wait for the named one");
        story.strike(Fault::KillAll, old, 12.0);
        story.until(12, "an election", |story| story.epoch() > epoch);
        assert_eq!(story.primary(), named[0], "seed {seed}");
        story.town.world.net.heal(old, named[0], Class::Wal);
        story.ends_well();
    }
}

/// The first failover makes a list of somebody who lacks what was acknowledged before; then that primary is gone, too.
fn second_failover(seed: u64, without: Without) -> Story {
    let story = Story::synchronous_without(seed, 1, 1, without);
    let (old, epoch) = (story.primary(), story.epoch());
    let winner = story.electable()[0];
    let third = story.others().into_iter().find(|host| *host != winner).expect("a third host");
    // It has nothing of what is acknowledged from now on.
    story.town.world.net.cut(old, third, Class::Wal);
    story.pass(1_500 * MS);
    story.strike(Fault::KillAll, old, 25.0);
    story.until(12, "an election", |story| story.epoch() > epoch);
    story.town.world.net.cut(winner, third, Class::Wal);
    assert_eq!(story.primary(), winner, "seed {seed}");
    story.until(12, "the winner to serve", |story| story.serves(winner));
    story.pass(200 * MS);
    story.strike(Fault::KillAll, winner, 10.0);
    story.pass(9_000 * MS);
    story.town.world.net.heal(old, third, Class::Wal);
    story.town.world.net.heal(winner, third, Class::Wal);
    story
}

#[test]
fn execution_10_who_was_only_named_by_a_first_list_is_not_elected_next() {
    for seed in 210..220 {
        let story = second_failover(seed, Without::none());
        story.ends_well();
        assert!(story.count("elections carried out") >= 2, "seed {seed}: no second change of primary");
    }
}

#[test]
fn without_r21_execution_10_loses_what_was_acknowledged() {
    let found = (210..220).find_map(|seed| {
        let story = second_failover(seed, Without::rule(Rule::FirstList));
        story.pass(20_000 * MS);
        story.found(&["durable"]).first().map(|found| format!("seed {seed}, {found}"))
    });
    println!("FirstList: {}", found.expect("nothing went wrong in 10 histories"));
}

#[test]
fn execution_19_the_first_commits_of_a_new_primary_wait() {
    for seed in 220..230 {
        let story = Story::synchronous(seed, 1, 2);
        let (old, epoch) = (story.primary(), story.epoch());
        story.strike(Fault::KillPostgres, old, 0.1);
        story.until(12, "another primary", |story| story.epoch() > epoch && story.serves(story.primary()));
        let winner = story.primary();
        let early = story.released(winner, epoch.next());
        assert!(early.iter().all(|waited| *waited), "seed {seed}: a commit of the new primary did not wait: {early:?}");
        story.ends_well();
        let all = story.released(winner, epoch.next());
        assert!(!all.is_empty() && all.iter().all(|waited| *waited), "seed {seed}: {all:?}");
    }
}

/// A primary whose standby is away starts again: what waited becomes visible. Then the primary is gone, and the standby back.
fn restart_alone(seed: u64, without: Without) -> Story {
    let story = Story::synchronous_without(seed, 1, 1, without);
    let old = story.primary();
    let named = story.electable()[0];
    let third = story.others().into_iter().find(|host| *host != named).expect("a third host");
    // Nor can the other one take its place in the list.
    story.town.world.net.cut(old, third, Class::Wal);
    story.strike(Fault::Freeze, named, 14.0);
    let records = story.records(old);
    story.until(5, "commits that wait", |story| story.records(old) > records + 2);
    // Some sentinel that is there leads.
    story.pass(4_000 * MS);
    story.strike(Fault::KillPostgres, old, 0.1);
    story.until(12, "the primary to start again", |story| story.serves(old));
    let reserved = story.town.machines[old].running().is_some_and(|server| server.reserved.get());
    assert_eq!(reserved, without.missing().is_none(), "seed {seed}: who is admitted");
    story.pass(2_000 * MS);
    story.strike(Fault::KillAll, old, 20.0);
    story.town.world.net.heal(old, third, Class::Wal);
    story.pass(22_000 * MS);
    story
}

#[test]
fn a_restarted_primary_shows_nothing_that_its_standbys_lack() {
    for seed in 230..240 {
        let story = restart_alone(seed, Without::none());
        story.ends_well();
    }
}

#[test]
fn without_r20_clients_read_what_is_lost_afterwards() {
    let found = (230..240).find_map(|seed| {
        restart_alone(seed, Without::rule(Rule::Admit))
            .found(&["visible"])
            .first()
            .map(|found| format!("seed {seed}, {found}"))
    });
    println!("Admit: {}", found.expect("nothing went wrong in 10 histories"));
}

/// Synchronous replication is switched on, and the standby that is named first gets nothing any more from that moment on.
fn list_begins(seed: u64, without: Without) -> Story {
    let replication = Replication::SwitchedOn { at: 0, min: 1, max: 1 };
    let story = Story::of(seed, replication, without);
    let old = story.primary();
    operator::switch(&story.town, story.now(), true, 1, 1);
    story.until(10, "a name in the list", |story| {
        let server = story.town.machines[old].running();
        server.is_some_and(|server| server.names.borrow().iter().any(|name| name != BLOCKING_NAME))
    });
    for other in story.others() {
        story.town.world.net.cut(old, other, Class::Wal);
    }
    story.pass(1_500 * MS);
    story.strike(Fault::KillAll, old, 20.0);
    story.pass(10_000 * MS);
    for other in story.others().into_iter().chain([story.primary()]).filter(|other| *other != old) {
        story.town.world.net.heal(old, other, Class::Wal);
    }
    story
}

#[test]
fn a_list_that_begins_counts_nobody_before_commits_wait() {
    for seed in 240..250 {
        list_begins(seed, Without::none()).ends_well();
    }
}

#[test]
fn without_r18s_proof_a_standby_is_elected_that_lacks_what_was_acknowledged() {
    let found = (240..260).find_map(|seed| {
        list_begins(seed, Without::rule(Rule::Grow))
            .found(&["durable"])
            .first()
            .map(|found| format!("seed {seed}, {found}"))
    });
    println!("Grow: {}", found.expect("nothing went wrong in 20 histories"));
}
