//! Planned handovers (R8): the old primary stops in good order, and whoever follows it has everything.

use stolon::model::{Epoch, cluster::Stage, report::PostgresState};

use super::{keeper, ms, secs, town::Town};
use crate::decide::Step;

/// `k1` was asked to end, has stopped and promised; `k1`'s last position is 1010. Stage recruit.
fn stopped() -> Town {
    let mut town = Town::running(3, 1);
    leave(&mut town);
    assert!(town.data().fencing().is_some_and(|mark| mark.planned));
    town.fence("p1", 1);
    town.stop("k1", 1);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
    town
}

/// `k1` is asked to end, and has written its checkpoint.
fn leave(town: &mut Town) {
    town.report("k1", |report| report.leaving = true);
    town.step();
    assert_eq!(town.history, [Step::Handover]);
    town.report("k1", |report| report.prepared = Epoch(1));
    town.step();
}

#[test]
fn the_winner_of_a_handover_holds_the_shutdown_checkpoint() {
    let mut town = stopped();
    town.recruit("k2", 2, 1, 1009);
    town.recruit("k3", 2, 1, 1010);
    town.tick();
    assert_eq!(town.primary(), "k3");
}

#[test]
fn a_handover_that_would_lose_a_byte_waits_for_the_old_primary_which_then_returns() {
    let mut town = stopped();
    town.recruit("k2", 2, 1, 1009);
    town.recruit("k3", 2, 1, 1009);
    town.live(secs(5), &[]);
    assert!(town.primary() == "k1" && town.says("1 bytes behind the old primary"), "{:?}", town.last.reasons);
    // It has ended, and was started again in time.
    town.hang_up("k1");
    town.expire("k1");
    town.live(secs(5), &[]);
    assert_eq!(town.data().epoch().0, 1);
    town.register("k1");
    let (uid, db) = (town.data().cluster.uid.clone(), town.db_of("k1"));
    town.info("k1", |info| {
        info.cluster_uid = Some(uid);
        info.data = Some(stolon::model::registration::DataDir { system_id: super::town::SYSTEM, db: Some(db) });
        info.promised = Epoch(1);
    });
    town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch().0), ("k1", 2), "{:?}", town.last.reasons);
}

#[test]
fn an_old_primary_that_stays_away_for_the_fail_interval_is_missed_like_after_a_failover() {
    let mut town = stopped();
    town.recruit("k2", 2, 1, 1009);
    town.recruit("k3", 2, 1, 1008);
    town.hang_up("k1");
    town.expire("k1");
    town.live(secs(19), &[]);
    assert_eq!(town.primary(), "k1");
    assert!(town.last.revisit.is_some());
    town.live(secs(2), &[]);
    assert_eq!(town.primary(), "k2");
}

#[test]
fn a_primary_that_loses_its_key_before_it_stopped_is_not_waited_for() {
    let mut town = Town::running(2, 1);
    leave(&mut town);
    town.fence("p1", 1);
    town.live(ms(300), &[]);
    assert_eq!(town.stage(), Some(Stage::Fence));
    town.hang_up("k1");
    town.expire("k1");
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
    town.recruit("k2", 2, 1, 1009);
    town.tick();
    assert_eq!(town.primary(), "k2");
}

#[test]
fn a_checkpoint_that_takes_long_is_not_waited_for_when_the_keeper_ends_anyway() {
    let mut town = Town::running(2, 1);
    town.report("k1", |report| report.leaving = true);
    town.live(ms(1900), &[]);
    assert!(town.data().fencing().is_none() && town.says("its checkpoint comes first"));
    town.live(ms(300), &[]);
    assert!(town.data().fencing().is_some_and(|mark| mark.planned) && town.data().cluster.status.handover.is_none());
}

/// A keeper was restarted, and is registered again with the data that it had.
fn return_with_data(town: &mut Town, name: &str) {
    let data = town.data().clone();
    let uid = data.db_of(&keeper(name)).map(|(uid, _)| uid.clone());
    town.expire(name);
    town.hang_up(name);
    town.register(name);
    town.info(name, |info| {
        info.cluster_uid = Some(data.cluster.uid.clone());
        info.data = Some(stolon::model::registration::DataDir { system_id: super::town::SYSTEM, db: uid });
    });
}

#[test]
fn an_incumbent_that_cant_put_its_key_back_is_elected_anew_though_no_standby_could_win() {
    let mut town = Town::running(1, 1);
    return_with_data(&mut town, "k1");
    town.report("k1", |report| report.authority = None);
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_some(), "{:?}", town.last.reasons);
    town.promise("k1", 1);
    town.fence("p1", 1);
    town.tick();
    assert_eq!(town.data().epoch(), Epoch(2), "{:?}", town.last.reasons);
}

#[test]
fn what_an_earlier_stream_said_of_leaving_is_not_believed_of_the_next() {
    let mut town = Town::running(2, 1);
    town.report("k1", |report| report.leaving = true);
    town.hang_up("k1");
    town.pass(ms(100));
    let now = town.now;
    town.seen.keeper_connected(now, &keeper("k1"));
    town.step();
    assert!(town.data().fencing().is_none(), "{:?}", town.last.reasons);
}

/// All keepers were asked to end at once, the primary's was the last to acknowledge commits; a standby's is started first.
#[test]
fn an_incumbent_that_ended_in_good_order_is_waited_for_when_all_were_stopped() {
    let mut town = Town::running(3, 1);
    town.report("k1", |report| report.leaving = true);
    for name in ["k2", "k3", "k1"] {
        town.hang_up(name);
        town.expire(name);
    }
    town.live(secs(60), &[]);
    town.register("k2");
    town.speak("k2");
    town.live(secs(15), &[]);
    assert!(town.data().fencing().is_none() && town.data().epoch() == Epoch(1), "{:?}", town.last.reasons);
    assert!(town.says("ended in good order and has commits that nobody else has"), "{:?}", town.last.reasons);
    town.live(secs(10), &[]);
    assert!(town.data().fencing().is_some(), "failInterval after the first came back: {:?}", town.last.reasons);
}
