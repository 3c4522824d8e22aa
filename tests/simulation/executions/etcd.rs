//! etcd's own troubles: executions 15, 16, 17, 20.

use stolon_simulation::{faults::Fault, world::SEC};

use crate::story::Story;

#[test]
fn execution_15_an_election_of_etcds_own_costs_no_primary() {
    for seed in 300..310 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        let leads = story.town.etcd.leader.get().expect("etcd has a leader");
        story.strike(Fault::KillEtcd, leads, 8.0);
        for _ in 0..80 {
            story.pass(SEC / 10);
            assert!(story.serves(old), "seed {seed}: the primary ended");
        }
        assert_eq!(story.epoch(), epoch, "seed {seed}");
        story.ends_well();
    }
}

#[test]
fn execution_16_the_end_of_an_outage_of_etcd_is_no_failover() {
    for seed in 310..320 {
        let story = Story::begin(seed);
        let (old, epoch) = (story.primary(), story.epoch());
        story.strike(Fault::NoQuorum, 0, 9.0);
        story.pass(9 * SEC);
        story.ends_well();
        assert_eq!((story.primary(), story.epoch()), (old, epoch), "seed {seed}\n{}", story.log());
    }
}

#[test]
fn execution_17_a_dead_standby_and_a_restart_of_etcd_end_well() {
    for seed in 320..325 {
        let story = Story::begin(seed);
        let dead = story.others()[0];
        story.strike(Fault::KillKeeperAndPostgres, dead, 20.0);
        story.pass(3 * SEC);
        story.strike(Fault::NoQuorum, 0, 3.0);
        story.pass(5 * SEC);
        story.ends_well();
    }
}

#[test]
fn execution_20_an_older_copy_of_the_store_is_not_believed() {
    for seed in 330..335 {
        let story = Story::begin(seed);
        let past = story.town.etcd.state.borrow().revision;
        let (old, epoch) = (story.primary(), story.epoch());
        story.strike(Fault::KillPostgres, old, 0.1);
        story.until(20, "a failover", |story| story.epoch() > epoch);
        story.pass(5 * SEC);
        let reigns = story.town.world.audit.borrow().reigns.len();
        story.town.etcd.restore(past);
        story.pass(15 * SEC);
        assert!(story.count("stores refused") > 0, "seed {seed}: nobody noticed");
        let after = story.town.world.audit.borrow().reigns.len();
        assert_eq!(reigns, after, "seed {seed}: somebody became primary by an older copy");
    }
}
