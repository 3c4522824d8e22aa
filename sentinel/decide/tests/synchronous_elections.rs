//! Elections under synchronous replication, and a winner's first list (R9, R21). Numbers are those of the original's unit
//! table for the same situation; where this protocol decides differently, the test says so.

use stolon::model::{cluster::Stage, report::PostgresState};

use super::{
    ms, secs,
    synchronous::{die, enable, kill_primary, lists, merging, pass, synchronous},
    town::Town,
};
use crate::decide::Proof;

#[test]
fn sync_15_16_a_primary_without_it_is_followed_by_asynchronous_rules_into_a_synchronous_epoch() {
    let mut town = Town::running(2, 1);
    kill_primary(&mut town);
    enable(&mut town, 1, 1);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.fence("p1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k2", "! | "));
}

#[test]
fn sync_17_the_first_list_of_a_winner_has_only_who_is_reachable_and_not_the_old_primary() {
    // The original names the old primary; R21 names who can be reached now, else nobody.
    let mut town = synchronous(2, 1, 1);
    kill_primary(&mut town);
    assert_eq!(town.stage(), Some(Stage::Recruit), "nothing is to be waited for: a recruit stops all acknowledgements");
    town.recruit("k2", 2, 1, 1010);
    town.fence("p1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k2", "! | "));
}

#[test]
fn sync_20_nobody_is_elected_who_was_not_seen_in_sync() {
    let mut town = merging();
    kill_primary(&mut town);
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_none() && town.says("it was not seen in sync yet"), "{:?}", town.last.reasons);
}

#[test]
fn sync_23_24_once_it_is_in_sync_the_dead_one_leaves_and_it_wins() {
    let mut town = merging();
    town.confirming = true;
    pass(&mut town);
    assert_eq!(lists(&town), "k3 | k3");
    kill_primary(&mut town);
    town.recruit("k3", 2, 1, 1010);
    town.fence("p1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k3", "! | "));
}

#[test]
fn sync_25_of_two_in_sync_the_living_one_wins_and_too_few_block() {
    let mut town = synchronous(3, 2, 2);
    assert_eq!(lists(&town), "k2 k3 | k2 k3");
    die(&mut town, "k2");
    kill_primary(&mut town);
    town.recruit("k3", 2, 1, 1010);
    town.fence("p1", 1);
    town.live(ms(300), &["k2"]);
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k3", "! | "), "{:?}", town.last.reasons);
}

#[test]
fn sync_27_one_in_sync_that_may_not_be_primary_does_not_win() {
    let mut town = synchronous(2, 1, 1);
    town.info("k2", |info| info.can_be_master = false);
    kill_primary(&mut town);
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_none() && town.says("--can-be-master=false"));
}

#[test]
fn sync_28_29_with_a_minimum_of_none_a_winner_starts_without_the_blocking_name() {
    let mut town = synchronous(2, 0, 1);
    assert_eq!(lists(&town), "k2 | k2");
    kill_primary(&mut town);
    town.recruit("k2", 2, 1, 1010);
    town.fence("p1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k2", " | "));
}

#[test]
fn sync_30_31_with_a_minimum_of_none_a_dead_one_leaves_and_then_nobody_may_win() {
    let mut town = synchronous(2, 0, 1);
    die(&mut town, "k2");
    pass(&mut town);
    assert_eq!(lists(&town), " | ");
    kill_primary(&mut town);
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_none(), "the primary acknowledged commits alone");
}

#[test]
fn a_recruit_among_those_in_sync_is_proof_enough_against_a_primary_that_is_out_of_reach() {
    let mut town = synchronous(3, 1, 1);
    die(&mut town, "k1");
    town.redialled("k1", stolon::model::report::ProbeResult::Refused);
    town.knocked("k1", stolon::model::report::ProbeResult::Refused);
    town.step();
    town.recruit("k2", 2, 1, 1010);
    town.recruit("k3", 2, 1, 1010);
    town.decide();
    assert!(town.last.committed().is_none(), "R7: the proxy has not acknowledged");
    town.fence("p1", 1);
    let decision = town.decide();
    let change = decision.committed().and_then(|commit| commit.change.as_ref()).unwrap();
    assert_eq!((change.key.keeper.as_str(), change.proof), ("k2", Proof::ListBlocked));
}

#[test]
fn one_that_is_further_but_not_in_sync_does_not_win() {
    let mut town = synchronous(3, 1, 1);
    kill_primary(&mut town);
    town.recruit("k2", 2, 1, 1010);
    town.recruit("k3", 2, 1, 1900);
    town.fence("p1", 1);
    town.tick();
    assert_eq!(town.primary(), "k2");
    // What k3 has beyond it was acknowledged to nobody; it would have to rewind, so commits don't wait for it (R21).
    assert_eq!(lists(&town), "! | ");
}

#[test]
fn execution_10_of_a_first_list_only_recruits_of_the_old_list_are_electable_at_once() {
    let mut town = synchronous(4, 2, 2);
    assert_eq!(lists(&town), "k2 k3 | k2 k3");
    kill_primary(&mut town);
    for name in ["k2", "k3", "k4"] {
        town.recruit(name, 2, 1, 1010);
    }
    town.fence("p1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k2", "k3 k4 | k3"));
    // The winner dies before k4 has anything: k3 has every acknowledged commit, k4 may not.
    town.serve();
    town.report("k2", |report| report.postgres.state = PostgresState::Stopped);
    town.step();
    town.recruit("k3", 3, 2, 2000);
    town.recruit("k4", 3, 2, 2000);
    town.fence("p1", 2);
    town.promise("k1", 2);
    town.tick();
    assert_eq!(town.primary(), "k3", "{:?}", town.last.reasons);
}

#[test]
fn lag_is_no_obstacle_to_one_in_sync_and_none_is_known_is_none_either() {
    let mut town = synchronous(2, 1, 1);
    town.report("k1", |report| report.postgres.position = None);
    town.edit(|data| data.cluster.spec.max_standby_lag = Some(1));
    kill_primary(&mut town);
    town.recruit("k2", 2, 1, 500);
    town.fence("p1", 1);
    town.tick();
    assert_eq!(town.primary(), "k2");
}

#[test]
fn an_incumbent_that_returns_keeps_its_list() {
    let mut town = synchronous(2, 1, 1);
    town.info("k2", |info| info.can_be_master = false);
    town.edit(|data| data.cluster.status.fencing = None);
    let before = lists(&town);
    town.info("k2", |info| info.can_be_master = true);
    kill_primary(&mut town);
    town.promise("k1", 1);
    town.info("k2", |info| info.can_be_master = false);
    town.fence("p1", 1);
    town.live(secs(2), &[]);
    assert_eq!((town.primary().as_str(), town.data().epoch().0), ("k1", 2), "{:?}", town.last.reasons);
    assert_eq!(lists(&town), before);
}

#[test]
fn a_primary_whose_successor_never_served_does_not_return_when_it_may_lack_commits() {
    let mut town = synchronous(3, 1, 1);
    kill_primary(&mut town);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.recruit("k3", 2, 1, 1010);
    town.fence("p1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), lists(&town).as_str()), ("k2", "k3 | "));
    // k2 dies before it is ready; a direct client may have committed on it and k3.
    town.expire("k2");
    town.hang_up("k2");
    town.promise("k1", 2);
    town.fence("p1", 2);
    town.live(secs(5), &["k2"]);
    assert_eq!(town.primary(), "k2");
}
