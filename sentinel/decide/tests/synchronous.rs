//! The synchronous list (R18, R19): who is named, who is electable, and who leaves. Numbers are those of the original's
//! unit table for the same situation; where this protocol decides differently, the test says so.

use stolon::model::{DbUid, cluster::BLOCKING_NAME, report::PostgresState};

use super::{keeper, secs, town::Town};

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

pub(super) fn enable(town: &mut Town, min: u16, max: u16) {
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
pub(super) fn lists(town: &Town) -> String {
    let (_, master) = town.data().primary().unwrap();
    let blocked = master.spec.external_synchronous_standbys.iter().flatten().any(|name| name == BLOCKING_NAME);
    let named = keepers(town, master.spec.synchronous_standbys.as_ref());
    let electable = keepers(town, master.status.synchronous_standbys.as_ref());
    format!("{named}{} | {electable}", if blocked { "!" } else { "" })
}

/// Its server and keeper are gone at once.
pub(super) fn die(town: &mut Town, name: &str) {
    town.report(name, |report| {
        report.postgres.state = PostgresState::Stopped;
        report.postgres.wal_streaming = false;
    });
    town.hang_up(name);
}

/// The others report, nobody else does; the leader decides meanwhile.
pub(super) fn pass(town: &mut Town) {
    for _ in 0..4 {
        town.settle_all();
    }
}

pub(super) fn kill_primary(town: &mut Town) {
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
fn sync_18_a_dead_one_stays_when_nobody_can_replace_it() {
    let mut town = synchronous(2, 1, 1);
    die(&mut town, "k2");
    pass(&mut town);
    town.live(secs(3), &["k2"]);
    assert_eq!(lists(&town), "k2 | k2");
    assert!(town.says("0 of at least 1 synchronous standbys live"), "{:?}", town.last.reasons);
}

/// `k2` is in sync and dead, `k3` was named in its stead and not confirmed yet.
pub(super) fn merging() -> Town {
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
fn sync_26_who_may_not_be_synchronous_is_never_named() {
    let mut town = Town::running(2, 1);
    town.info("k2", |info| info.can_be_synchronous_replica = false);
    enable(&mut town, 1, 1);
    pass(&mut town);
    assert_eq!(lists(&town), "! | ");
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
