//! The synchronous list and elections under it (R9, R18, R19, R21). Numbers are those of the original's unit table for the
//! same situation; where this protocol decides differently, the test says so.

use stolon::model::{
    DbUid,
    cluster::{BLOCKING_NAME, Stage},
    report::PostgresState,
};

use super::{keeper, ms, secs, town::Town};
use crate::decide::Proof;

/// `k1` primary; synchronous replication in force with these bounds; settled.
pub(super) fn synchronous(keepers: u32, min: u16, max: u16) -> Town {
    let mut town = Town::running(keepers, 1);
    enable(&mut town, min, max);
    for _ in 0..6 {
        town.settle_all();
    }
    town.history.clear();
    town
}

fn enable(town: &mut Town, min: u16, max: u16) {
    town.edit(|data| {
        let spec = &mut data.cluster.spec;
        spec.synchronous_replication = Some(true);
        (spec.min_synchronous_standbys, spec.max_synchronous_standbys) = (Some(min), Some(max));
    });
}

fn keepers(town: &Town, list: Option<&Vec<DbUid>>) -> String {
    let name = |uid: &DbUid| town.data().dbs.get(uid).map_or("gone".to_owned(), |db| db.spec.keeper_uid.to_string());
    let mut names: Vec<String> = list.into_iter().flatten().map(name).collect();
    names.sort();
    names.join(" ")
}

/// The stored list, with `!` for the blocking name, and who is electable: `k2 k3 | k2`.
fn lists(town: &Town) -> String {
    let (_, master) = town.data().primary().unwrap();
    let blocked = master.spec.external_synchronous_standbys.iter().flatten().any(|name| name == BLOCKING_NAME);
    let named = keepers(town, master.spec.synchronous_standbys.as_ref());
    let electable = keepers(town, master.status.synchronous_standbys.as_ref());
    format!("{named}{} | {electable}", if blocked { "!" } else { "" })
}

/// Its server and keeper are gone at once.
fn die(town: &mut Town, name: &str) {
    town.report(name, |report| {
        report.postgres.state = PostgresState::Stopped;
        report.postgres.wal_streaming = false;
    });
    town.hang_up(name);
}

/// The others report, nobody else does; the leader decides meanwhile.
fn pass(town: &mut Town) {
    for _ in 0..4 {
        town.settle_all();
    }
}

fn kill_primary(town: &mut Town) {
    town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
    town.step();
}

#[test]
fn sync_14_it_is_switched_on_by_way_of_the_list_and_every_db_hears_of_it() {
    let mut town = Town::running(2, 1);
    let before = town.data().clone();
    enable(&mut town, 1, 1);
    town.confirming = false;
    town.tick();
    assert_eq!(lists(&town), "k2 | ");
    for (uid, db) in &town.data().dbs {
        assert!(db.spec.synchronous_replication && db.generation > before.dbs[uid].generation, "{uid}");
    }
    pass(&mut town);
    assert_eq!(lists(&town), "k2 | ", "nobody is electable before the primary has confirmed it");
    town.confirming = true;
    pass(&mut town);
    assert_eq!(lists(&town), "k2 | k2");
}

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
fn sync_18_a_dead_one_stays_when_nobody_can_replace_it() {
    let mut town = synchronous(2, 1, 1);
    die(&mut town, "k2");
    pass(&mut town);
    town.live(secs(3), &["k2"]);
    assert_eq!(lists(&town), "k2 | k2");
    assert!(town.says("0 of at least 1 synchronous standbys live"), "{:?}", town.last.reasons);
}

/// `k2` is in sync and dead, `k3` was named in its stead and not confirmed yet.
fn merging() -> Town {
    let mut town = synchronous(3, 1, 1);
    assert_eq!(lists(&town), "k2 | k2");
    town.confirming = false;
    die(&mut town, "k2");
    pass(&mut town);
    town
}

#[test]
fn sync_19_a_successor_is_named_beside_the_dead_one() {
    assert_eq!(lists(&merging()), "k2 k3 | k2");
}

#[test]
fn sync_20_nobody_is_elected_who_was_not_seen_in_sync() {
    let mut town = merging();
    kill_primary(&mut town);
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_none() && town.says("it was not seen in sync yet"), "{:?}", town.last.reasons);
}

#[test]
fn sync_21_until_it_is_seen_in_sync_nothing_changes() {
    let mut town = merging();
    town.live(secs(3), &["k2"]);
    assert_eq!(lists(&town), "k2 k3 | k2");
}

#[test]
fn sync_22_a_successor_that_fails_leaves_the_list_again() {
    let mut town = merging();
    die(&mut town, "k3");
    pass(&mut town);
    assert_eq!(lists(&town), "k2 | k2");
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
fn sync_26_who_may_not_be_synchronous_is_never_named() {
    let mut town = Town::running(2, 1);
    town.info("k2", |info| info.can_be_synchronous_replica = false);
    enable(&mut town, 1, 1);
    pass(&mut town);
    assert_eq!(lists(&town), "! | ");
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

#[test]
fn a_standby_that_is_cut_off_from_the_primary_alone_leaves_when_there_are_enough_others() {
    let mut town = synchronous(3, 1, 2);
    assert_eq!(lists(&town), "k2 k3 | k2 k3");
    town.report("k3", |report| report.postgres.wal_streaming = false);
    town.tick();
    assert_eq!(lists(&town), "k2 | k2");
}

#[test]
fn a_new_leader_that_has_not_heard_everybody_yet_drops_nobody() {
    let mut town = synchronous(3, 1, 2);
    town.seen = crate::observe::Observations::leading(town.now);
    for name in ["k1", "k2", "k3"] {
        town.seen.keeper_connected(town.now, &keeper(name));
    }
    town.speak("k1");
    town.step();
    assert_eq!(lists(&town), "k2 k3 | k2 k3");
    town.pass(secs(2));
    town.speak("k1");
    town.step();
    assert_eq!(
        keepers(&town, town.data().primary().unwrap().1.status.synchronous_standbys.as_ref()),
        "k2 k3",
        "all E stay"
    );
}

#[test]
fn who_is_in_sync_is_no_surplus() {
    let mut town = synchronous(4, 1, 1);
    town.edit(|data| data.cluster.spec.max_standbys_per_sender = Some(1));
    die(&mut town, "k2");
    pass(&mut town);
    town.live(secs(30), &["k2"]);
    // Another one took k2's place first, and only then was k2's db dropped.
    assert_eq!(lists(&town).split(' ').next(), Some("k3"), "{} {:?}", lists(&town), town.last.reasons);
}

#[test]
fn it_is_switched_off_when_commits_wait_for_nobody_any_more() {
    let mut town = synchronous(2, 1, 1);
    town.edit(|data| data.cluster.spec.synchronous_replication = Some(false));
    town.tick();
    assert_eq!(lists(&town), " | ");
    assert!(town.data().primary().unwrap().1.spec.synchronous_replication, "the list is still in force");
    pass(&mut town);
    assert!(!town.data().primary().unwrap().1.spec.synchronous_replication);
    assert!(town.data().dbs.values().all(|db| !db.spec.synchronous_replication));
}

#[test]
fn under_a_mark_lists_stand_still() {
    let mut town = synchronous(3, 1, 1);
    kill_primary(&mut town);
    let before = lists(&town);
    die(&mut town, "k2");
    town.step();
    town.step();
    assert_eq!(lists(&town), before);
}

#[test]
fn a_confirmation_of_an_older_generation_makes_nobody_electable() {
    let mut town = synchronous(3, 1, 1);
    town.confirming = false;
    town.edit(|data| data.cluster.spec.max_synchronous_standbys = Some(2));
    town.tick();
    assert_eq!(lists(&town), "k2 k3 | k2");
    let k3 = town.db_of("k3");
    town.report("k1", |report| report.postgres.in_sync = vec![k3.clone()]);
    town.tick();
    assert_eq!(lists(&town), "k2 k3 | k2", "reported under the generation before");
    let generation = town.data().db_of(&keeper("k1")).unwrap().1.generation;
    town.report("k1", |report| report.postgres.generation = generation);
    town.tick();
    assert_eq!(lists(&town), "k2 k3 | k2 k3");
}

/// Stopped for a moment, it has heard nobody: that says nothing of the standbys.
#[test]
fn a_sentinel_that_hears_too_few_drops_nobody_from_the_list() {
    let mut town = synchronous(2, 0, 1);
    assert_eq!(lists(&town), "k2 | k2");
    town.pass(secs(2));
    town.step();
    assert_eq!(lists(&town), "k2 | k2", "{:?}", town.last.reasons);
}
