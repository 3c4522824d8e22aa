//! Proxies that are late, and peers that reach nothing but etcd: executions 11, 12, 13, 14.

use stolon_simulation::{
    faults::Fault,
    world::{MS, SEC},
};

use crate::story::Story;

#[test]
fn execution_11_an_older_view_of_a_newer_leader_changes_nothing() {
    for seed in 200..205 {
        let story = Story::begin(seed);
        let leader = story.town.leader().expect("a sentinel leads");
        let others: Vec<usize> = (0..3).filter(|host| *host != leader).collect();
        // The next leader's etcd member lags.
        for other in others {
            story.strike(Fault::Slow, other, 10.0);
        }
        story.strike(Fault::PauseSentinel, leader, 7.0);
        let old = story.primary();
        story.strike(Fault::KillPostgres, old, 0.1);
        story.pass(9 * SEC);
        story.ends_well();
    }
}

#[test]
fn execution_12_a_proxy_that_comes_back_does_not_route_by_what_it_remembers() {
    for seed in 210..215 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        story.strike(Fault::PauseProxy, 3, 9.0);
        story.strike(Fault::Isolate, old, 12.0);
        story.until(25, "a failover past the frozen proxy", |story| story.epoch() > epoch);
        story.ends_well();
    }
}

#[test]
fn execution_13_a_dial_under_way_holds_the_acknowledgement_up() {
    for seed in 220..225 {
        let story = Story::begin(seed);
        let old = story.primary();
        for proxy in 3..5 {
            story.town.world.net.worsen(proxy, old, 0, 300 * MS);
            story.town.world.net.worsen(old, proxy, 0, 300 * MS);
        }
        for _ in 0..10 {
            story.strike(Fault::KillProxy, 3, 0.2);
            story.pass(900 * MS);
            let now = story.primary();
            story.strike(Fault::KillPostgres, now, 0.1);
            story.pass(2 * SEC);
        }
        for proxy in 3..5 {
            story.town.world.net.worsen(proxy, old, 0, 0);
            story.town.world.net.worsen(old, proxy, 0, 0);
        }
        story.ends_well();
    }
}

#[test]
fn execution_14_whoever_reaches_etcd_alone_holds_nobody_up() {
    for seed in 230..236 {
        let story = Story::begin(seed);
        let old = story.primary();
        let lone = match seed % 3 {
            0 => 3,
            1 => old,
            _ => story.town.leader().expect("a sentinel leads"),
        };
        story.strike(Fault::CutStreams, lone, 14.0);
        story.strike(Fault::CutSql, lone, 14.0);
        story.strike(Fault::CutWal, lone, 14.0);
        story.pass(SEC);
        story.strike(Fault::KillPostgres, old, 0.1);
        story.pass(14 * SEC);
        story.ends_well();
    }
}
