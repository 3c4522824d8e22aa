//! The handover that an operator asks for: checked, prepared, then made as R8 says.

use stolon::model::{Epoch, cluster::Stage, report::PostgresState};

use super::{keeper, secs, town::Town};
use crate::decide::{Step, Wish};

fn asked(town: &mut Town, to: Option<&str>) {
    town.wish = Some(Wish { to: to.map(keeper) });
    town.step();
}

fn refusal(town: &mut Town, to: Option<&str>) -> String {
    let before = town.data().cluster.status.clone();
    asked(town, to);
    assert_eq!(town.data().cluster.status, before, "a refusal changes nothing");
    town.last.wish.clone().unwrap().unwrap_err()
}

/// Granted to `k3`, prepared, marked, and fenced by the proxy; `k1` has stopped at 1010.
fn stopped() -> Town {
    let mut town = Town::running(3, 1);
    asked(&mut town, Some("k3"));
    assert_eq!(town.last.wish, Some(Ok(())));
    town.wish = None;
    town.step();
    assert!(town.data().fencing().is_none() && town.says("the primary's checkpoint comes first"));
    town.report("k1", |report| report.prepared = Epoch(1));
    town.step();
    let mark = town.data().fencing().unwrap().clone();
    assert!(mark.planned && mark.stage == Stage::Fence && mark.to == Some(keeper("k3")));
    town.fence("p1", 1);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Fence), "the old primary stops first");
    town.stop("k1", 1);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
    town
}

#[test]
fn the_keeper_that_was_asked_for_takes_over_and_nobody_else_is_waited_for() {
    let mut town = stopped();
    town.recruit("k3", 2, 1, 1010);
    town.tick();
    assert_eq!(town.primary(), "k3");
    assert!(town.data().cluster.status.handover.is_none());
}

#[test]
fn a_candidate_that_lacks_a_byte_gives_the_role_back_under_the_next_epoch() {
    let mut town = stopped();
    town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
    town.recruit("k3", 2, 1, 1009);
    town.recruit("k2", 2, 1, 1010);
    town.step();
    assert_eq!((town.primary().as_str(), town.data().epoch().0), ("k1", 2));
    assert!(town.says("keeper k3, which the handover is to, can't take over"), "{:?}", town.last.reasons);
}

/// Its server was killed in the middle of the stop: what it wrote last, nobody knows, and its data hold it.
#[test]
fn an_old_primary_that_did_not_stop_in_good_order_goes_on_whatever_the_candidates_have() {
    let mut town = stopped();
    town.report("k1", |report| report.postgres.position_final = false);
    town.recruit("k2", 2, 1, 5000);
    town.recruit("k3", 2, 1, 5000);
    town.step();
    assert_eq!((town.primary().as_str(), town.data().epoch().0), ("k1", 2), "{:?}", town.last.reasons);
    assert!(town.says("did not stop in good order"), "{:?}", town.last.reasons);
}

#[test]
fn synchronous_a_candidate_in_sync_takes_over_from_one_that_did_not_stop_in_good_order() {
    let mut town = super::synchronous::synchronous(3, 1, 2);
    asked(&mut town, None);
    town.wish = None;
    town.report("k1", |report| report.prepared = Epoch(1));
    town.step();
    assert!(town.data().fencing().is_some_and(|mark| mark.planned), "{:?}", town.last.reasons);
    town.fence("p1", 1);
    town.promise("k1", 1);
    town.step();
    town.recruit("k2", 2, 1, 1000);
    town.recruit("k3", 2, 1, 1000);
    town.step();
    assert_ne!(town.primary(), "k1", "{:?}", town.last.reasons);
}

#[test]
fn a_candidate_that_lacks_what_another_recruit_has_does_not_win_though_the_old_primarys_end_is_unknown() {
    let mut town = stopped();
    town.recruit("k2", 2, 1, 1020);
    town.recruit("k3", 2, 1, 1010);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch().0), ("k1", 2), "{:?}", town.last.reasons);
    let mut town = stopped();
    town.hang_up("k1");
    town.expire("k1");
    town.recruit("k2", 2, 1, 1020);
    town.recruit("k3", 2, 1, 1010);
    town.live(secs(22), &["k2", "k3"]);
    assert_eq!(town.primary(), "k2", "{:?}", town.last.reasons);
}

#[test]
fn without_the_old_primary_a_failed_candidate_is_replaced_by_the_best() {
    let mut town = stopped();
    town.hang_up("k1");
    town.expire("k1");
    town.recruit("k2", 2, 1, 1010);
    town.live(secs(2), &["k3"]);
    assert_eq!(town.primary(), "k2");
}

#[test]
fn refusals_name_the_reason_and_change_nothing() {
    let mut town = Town::running(3, 1);
    assert_eq!(refusal(&mut town, Some("k1")), "keeper k1 is the primary already");
    let unknown = refusal(&mut town, Some("k9"));
    assert_eq!(unknown, "keeper k9 is none of this cluster's, which are k1, k2, k3");
    town.report("k2", |report| report.postgres.wal_streaming = false);
    assert!(refusal(&mut town, Some("k2")).contains("does not stream"));
    town.info("k3", |info| info.can_be_master = false);
    assert!(refusal(&mut town, Some("k3")).contains("--can-be-master=false"));
    town.report("k1", |report| report.postgres.state = PostgresState::Starting);
    assert!(refusal(&mut town, None).contains("no primary serves"));
}

#[test]
fn without_any_standby_the_wish_is_refused_with_everybodys_reason() {
    let mut town = Town::running(1, 1);
    assert!(refusal(&mut town, None).contains("there is no standby"));
    let mut town = Town::running(2, 1);
    town.live(secs(4), &["k2"]);
    assert!(
        refusal(&mut town, None).contains("db u3 on keeper k2 can't: its keeper is not heard"),
        "{:?}",
        town.last.wish
    );
}

#[test]
fn a_candidate_lost_during_the_preparation_calls_it_off() {
    let mut town = Town::running(2, 1);
    asked(&mut town, Some("k2"));
    town.wish = None;
    town.hang_up("k2");
    town.step();
    assert!(
        matches!(town.history.last(), Some(Step::CallOff { why }) if why.contains("called off")),
        "{:?}",
        town.history
    );
    assert!(town.data().cluster.status.handover.is_none() && town.data().fencing().is_none());
}

#[test]
fn a_second_wish_and_one_during_a_change_are_refused() {
    let mut town = Town::running(2, 1);
    asked(&mut town, Some("k2"));
    town.decide();
    assert!(matches!(&town.last.wish, Some(Err(why)) if why.contains("already")), "{:?}", town.last.wish);
    town.report("k1", |report| report.prepared = Epoch(1));
    town.wish = None;
    town.step();
    assert!(refusal(&mut town, Some("k2")).contains("is being changed already"));
}

#[test]
fn a_successor_of_the_leader_goes_on_with_the_preparation() {
    let mut town = Town::running(2, 1);
    asked(&mut town, Some("k2"));
    town.wish = None;
    town.seen.leading_since = Some(town.now);
    town.report("k1", |report| report.prepared = Epoch(1));
    town.step();
    assert!(town.data().fencing().is_some_and(|mark| mark.to == Some(keeper("k2"))));
}

#[test]
fn a_candidate_that_lags_by_more_than_a_failover_would_tolerate_is_refused() {
    let mut town = Town::running(3, 1);
    town.report("k1", |report| report.postgres.position.as_mut().unwrap().lsn.0 += 5_000_000);
    let lagging = refusal(&mut town, Some("k3"));
    assert!(lagging.contains("keeper k3 can't take over") && lagging.contains("maxStandbyLag"), "{lagging}");
    let all = refusal(&mut town, None);
    assert!(all.contains("no standby could take over") && all.contains("maxStandbyLag"), "{all}");
}
