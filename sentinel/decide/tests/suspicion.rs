//! R14-R17 and R5: what starts a change of primary, what does not, and how soon.

use stolon::model::{
    Epoch, Lsn, WalPosition,
    cluster::Stage,
    report::{PostgresState, ProbeResult::*},
};

use super::{db, keeper, ms, secs, town::Town};
use crate::decide::Action;

fn crash(town: &mut Town, name: &str) {
    town.report(name, |report| report.postgres.state = PostgresState::Stopped);
}

#[test]
fn a_reported_end_of_postgres_is_acted_upon_at_once_and_standbys_are_recruited_straight_away() {
    let mut town = Town::running(3, 1);
    crash(&mut town, "k1");
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
}

#[test]
fn a_reported_end_without_a_ready_standby_is_left_to_the_keepers_restart() {
    let mut town = Town::running(1, 1);
    crash(&mut town, "k1");
    town.tick();
    assert!(town.data().fencing().is_none() && town.says("no standby could take over"));
}

#[test]
fn an_end_reported_without_authority_is_not_acted_upon_at_once() {
    let mut town = Town::running(2, 1);
    town.report("k1", |report| {
        report.postgres.state = PostgresState::Stopped;
        report.authority = None;
    });
    town.tick();
    assert!(town.data().fencing().is_none());
}

#[test]
fn an_ended_stream_is_redialled_and_a_refusal_leads_to_a_knock_at_postgres() {
    let mut town = Town::running(2, 1);
    town.hang_up("k1");
    town.step();
    assert!(town.acts(|action| matches!(action, Action::Redial { keeper, .. } if keeper.as_str() == "k1")));
    town.redialled("k1", Refused);
    town.step();
    assert!(town.acts(|action| matches!(action, Action::KnockPostgres { keeper, .. } if keeper.as_str() == "k1")));
    town.knocked("k1", Refused);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit), "both are dead");
}

#[test]
fn a_crashed_keeper_alone_is_no_failover_while_its_lease_lasts() {
    let mut town = Town::running(2, 1);
    town.hang_up("k1");
    for _ in 0..40 {
        town.redialled("k1", Refused);
        town.knocked("k1", Answered);
        town.live(ms(100), &["k1"]);
    }
    assert!(town.data().fencing().is_none() && town.says("no failover while its lease lasts"));
    town.expire("k1");
    town.live(ms(900), &["k1"]);
    assert!(town.data().fencing().is_none(), "the holder may put its key back");
    town.live(ms(300), &["k1"]);
    assert!(town.data().fencing().is_some(), "the lease ended: no veto holds");
}

#[test]
fn witnesses_are_asked_early_enough_to_have_answered_when_the_suspect_interval_ends() {
    let asks = |town: &Town| {
        town.acts(|action| matches!(action, Action::AskWitnesses { target, .. } if target.as_str() == "k1"))
    };
    let mut town = Town::running(3, 1);
    town.live(ms(400), &["k1"]);
    assert!(!asks(&town));
    town.live(ms(100), &["k1"]);
    assert!(asks(&town));
    town.witnessed("k1", TimedOut, &[("k2", TimedOut)]);
    town.live(ms(400), &["k1"]);
    assert!(town.data().fencing().is_none() && !asks(&town), "asked once, and not acted upon before the interval");
    town.live(ms(200), &["k1"]);
    assert_eq!(town.stage(), Some(Stage::Fence));
}

#[test]
fn a_heartbeat_makes_what_the_witnesses_said_before_void() {
    let mut town = Town::running(3, 1);
    town.live(ms(600), &["k1"]);
    town.witnessed("k1", TimedOut, &[("k2", TimedOut)]);
    town.live(ms(200), &[]);
    town.live(ms(1100), &["k1"]);
    assert!(town.data().fencing().is_none(), "{:?}", town.history);
    assert!(town.acts(|action| matches!(action, Action::AskWitnesses { .. })), "they are asked anew");
}

/// Three keepers, one proxy; `k1` silent for 1.1 s.
fn silent() -> Town {
    let mut town = Town::running(3, 1);
    town.live(ms(1100), &["k1"]);
    town
}

#[test]
fn another_observer_that_gets_nothing_either_makes_it_act() {
    for result in [Refused, TimedOut, Unreachable] {
        let mut town = silent();
        town.witnessed("k1", TimedOut, &[("k2", result)]);
        town.step();
        assert_eq!(town.stage(), Some(Stage::Fence), "{result:?}");
    }
}

#[test]
fn one_answer_is_a_veto() {
    let mut town = silent();
    town.witnessed("k1", TimedOut, &[("k2", TimedOut), ("p1", Answered)]);
    town.step();
    assert!(town.data().fencing().is_none() && town.says("its PostgreSQL answers"));
}

#[test]
fn wal_that_flows_during_the_silence_is_a_veto_and_wal_from_before_is_none() {
    let mut town = silent();
    town.report("k2", |report| report.postgres.wal_advances += 1);
    town.pass(ms(100));
    town.beat(&["k1"]);
    town.report("k2", |report| report.postgres.wal_advances += 1);
    town.witnessed("k1", TimedOut, &[("k2", TimedOut)]);
    town.step();
    assert!(town.data().fencing().is_none() && town.says("its WAL flows"), "{:?}", town.last.reasons);

    let mut town = Town::running(3, 1);
    town.report("k2", |report| report.postgres.wal_advances += 1);
    town.live(ms(1100), &["k1"]);
    town.witnessed("k1", TimedOut, &[("k2", TimedOut)]);
    town.step();
    assert!(town.data().fencing().is_some());
}

#[test]
fn the_veto_does_not_cover_a_reported_probe_older_than_the_fail_interval() {
    let mut town = Town::running(3, 1);
    town.report("k1", |report| report.postgres.probe_age = Some(secs(21)));
    town.step();
    assert_eq!(town.stage(), Some(Stage::Fence), "{:?}", town.last.reasons);
}

#[test]
fn a_probe_of_ten_seconds_is_only_worth_a_reason() {
    let mut town = Town::running(3, 1);
    town.report("k1", |report| report.postgres.probe_age = Some(secs(10)));
    town.tick();
    assert!(town.data().fencing().is_none() && town.says("has not taken a write"));
    assert!(town.last.revisit.is_some());
}

#[test]
fn a_probe_that_is_due_is_no_reason() {
    let mut town = Town::running(3, 1);
    for (age, said) in [(900, false), (1900, false), (2100, true)] {
        town.report("k1", |report| report.postgres.probe_age = Some(ms(age)));
        town.tick();
        assert_eq!(town.says("has not taken a write"), said, "{age} ms");
    }
}

#[test]
fn the_leaders_own_knock_counts_with_a_standby_that_lost_the_wal_stream() {
    let mut town = silent();
    town.witnessed("k1", TimedOut, &[]);
    town.step();
    assert!(town.data().fencing().is_none() && town.says("nobody else can say"));
    town.report("k2", |report| report.postgres.wal_streaming = false);
    town.step();
    assert!(town.data().fencing().is_some());
}

#[test]
fn without_a_witness_it_acts_after_the_fail_interval() {
    let mut town = silent();
    for _ in 0..180 {
        town.witnessed("k1", TimedOut, &[]);
        town.live(ms(100), &["k1"]);
    }
    assert!(town.data().fencing().is_none());
    for _ in 0..20 {
        town.witnessed("k1", TimedOut, &[]);
        town.live(ms(100), &["k1"]);
    }
    assert!(town.data().fencing().is_some());
}

#[test]
fn a_leader_that_hears_fewer_than_half_resigns_instead_of_suspecting() {
    let mut town = Town::running(3, 1);
    town.mirror.candidates.push(town.mirror.candidates[0].clone());
    town.live(ms(1100), &["k1", "k2", "p1"]);
    assert!(town.acts(|action| *action == Action::Resign));
    town.mirror.candidates.truncate(1);
    town.live(ms(200), &["k1", "k2", "p1"]);
    assert!(!town.acts(|action| *action == Action::Resign), "there is nobody to take over");
    assert!(town.data().fencing().is_none() && town.says("it suspects nobody"));
}

#[test]
fn a_lost_key_is_put_back_by_its_live_holder_without_a_failover() {
    let mut town = Town::running(2, 1);
    let held = town.mirror.primary.take();
    town.live(ms(800), &[]);
    assert!(town.says("key `primary` is gone"));
    town.mirror.primary = held;
    town.live(secs(3), &[]);
    assert!(town.history.is_empty(), "{:?}", town.history);
}

#[test]
fn a_lost_key_that_nobody_puts_back_leads_to_a_failover_though_postgres_answers() {
    let mut town = Town::running(2, 1);
    town.mirror.primary = None;
    town.live(ms(1300), &[]);
    assert!(town.data().fencing().is_some());
}

#[test]
fn after_a_cold_start_the_incumbent_is_awaited_for_the_fail_interval() {
    let mut town = Town::running(2, 1);
    town.expire("k1");
    town.seen.keepers.remove(&keeper("k1"));
    town.seen.leading_since = Some(town.now);
    town.live(secs(19), &[]);
    assert!(town.data().fencing().is_none() && town.says("waiting failInterval for keeper k1"));
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_some());
}

#[test]
fn a_keeper_that_ends_hands_over_in_good_order_when_a_standby_is_ready() {
    let mut town = Town::running(2, 1);
    town.report("k1", |report| report.leaving = true);
    town.step();
    town.report("k1", |report| report.prepared = Epoch(1));
    town.step();
    assert!(town.data().fencing().is_some_and(|mark| mark.planned && mark.stage == Stage::Fence));
    town.fence("p1", 1);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Fence), "the old primary has not stopped yet");
    town.promise("k1", 1);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
}

#[test]
fn a_keeper_that_ends_alone_causes_no_mark() {
    let mut town = Town::running(1, 1);
    town.report("k1", |report| report.leaving = true);
    town.tick();
    assert!(town.data().fencing().is_none());
}

#[test]
fn a_winner_that_does_not_come_up_in_time_is_replaced() {
    let mut town = Town::running(3, 0);
    crash(&mut town, "k1");
    town.step();
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.recruit("k3", 2, 1, 1005);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch()), ("k2", Epoch(2)));
    for _ in 0..59 {
        town.speak("k3");
        town.live(secs(1), &[]);
    }
    assert!(town.data().fencing().is_none());
    town.live(secs(2), &[]);
    assert_eq!(town.data().fencing().map(|mark| mark.epoch), Some(Epoch(2)));
}

#[test]
fn a_position_is_stored_only_when_it_moved_far_and_not_too_often() {
    let mut town = Town::running(2, 0);
    let uid = town.db_of("k1");
    let at = |lsn| Some(WalPosition { timeline: 1, lsn: Lsn(lsn) });
    town.report("k1", |report| report.postgres.position = at(200_000));
    town.live(secs(20), &[]);
    assert_eq!(town.history.len(), 0, "{:?}", town.history);
    town.report("k1", |report| report.postgres.position = at(900_000));
    town.live(secs(20), &[]);
    assert_eq!(town.history.len(), 1);
    assert_eq!(town.data().dbs[&uid].status.xlog_pos, Lsn(900_000));
    assert_ne!(uid, db("none"));
}

#[test]
fn what_was_down_through_an_outage_of_etcd_gets_its_fail_interval_from_the_outages_end() {
    let mut town = Town::running(3, 1);
    // Its server was ended for want of authority, and no sentinel led meanwhile.
    town.report("k1", |report| {
        report.postgres.state = PostgresState::Starting;
        report.authority = None;
    });
    for _ in 0..250 {
        town.pass(ms(100));
        town.beat(&[]);
        town.seen.settle(town.now, &town.mirror);
    }
    town.seen.leading_since = Some(town.now);
    town.live(secs(19), &[]);
    assert!(town.data().fencing().is_none(), "execution 16: {:?}", town.last.reasons);
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_some(), "a server that stays away is missed all the same");
}

#[test]
fn a_standby_that_does_not_work_either_is_no_candidate() {
    let mut town = Town::running(2, 1);
    town.report("k2", |report| report.postgres.probe_age = Some(secs(21)));
    town.report("k1", |report| report.postgres.probe_age = Some(secs(21)));
    town.step();
    assert!(
        town.data().fencing().is_none() && town.says("its PostgreSQL has not worked for 21 s"),
        "{:?}",
        town.last.reasons
    );
}
