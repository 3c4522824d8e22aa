//! From the mark to the new primary: fence, recruit, choose, commit, and what follows (R2, R6, R7, R9; executions 4, 5,
//! 9, 11, 14, 20).

use stolon::model::{
    Epoch, LeaseId, Revision,
    cluster::{DbInitMode, DbRole, Stage},
    registration::{DataDir, Recruit},
    report::PostgresState,
};

use super::{
    keeper, ms, proxy, secs,
    town::{SYSTEM, Town},
};
use crate::decide::{Action, Holder, Proof, Step};

/// `k1`'s PostgreSQL ended and the mark stands, stage recruit.
fn marked(keepers: u32, proxies: u32) -> Town {
    let mut town = Town::running(keepers, proxies);
    town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
    town
}

#[test]
fn a_whole_failover_ends_with_the_old_primary_as_a_new_standby() {
    let mut town = marked(2, 1);
    let (old, winner) = (town.db_of("k1"), town.db_of("k2"));
    town.promise("k1", 1);
    town.fence("p1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.tick();
    let data = town.data();
    assert_eq!((data.cluster.status.master.as_ref(), data.epoch()), (Some(&winner), Epoch(2)));
    assert_eq!(data.dbs[&winner].spec.role, DbRole::Master);
    assert_eq!(data.dbs[&winner].spec.follow_config, None);
    assert_eq!(data.dbs[&old].spec.role, DbRole::Master, "until the winner serves");
    assert!(data.dbs[&old].spec.followers.is_empty() && data.proxy.spec.master_db_uid.is_none());
    assert_eq!(town.mirror.highest_epoch.unwrap().0, Epoch(2));
    town.serve();
    town.tick();
    let data = town.data();
    assert!(!data.dbs.contains_key(&old) && town.copies("k1"));
    assert_eq!(data.cluster.status.history.last().unwrap().epoch, Epoch(2));
    assert_eq!(data.proxy.spec.master_db_uid.as_ref(), Some(&winner));
    assert_eq!(data.dbs[&winner].spec.followers, [town.db_of("k1")]);
}

#[test]
fn fence_comes_before_recruit_when_the_old_server_may_still_run() {
    let mut town = Town::running(3, 1);
    town.live(ms(1100), &["k1"]);
    town.witnessed(
        "k1",
        stolon::model::report::ProbeResult::TimedOut,
        &[("k2", stolon::model::report::ProbeResult::TimedOut)],
    );
    town.step();
    assert_eq!(town.stage(), Some(Stage::Fence));
    town.live(ms(300), &["k1"]);
    assert_eq!(town.stage(), Some(Stage::Fence));
    town.fence("p1", 1);
    town.step();
    assert_eq!(town.stage(), Some(Stage::Recruit));
}

#[test]
fn nobody_is_elected_before_every_registered_proxy_acknowledged() {
    let mut town = marked(2, 2);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.fence("p1", 1);
    town.live(secs(5), &[]);
    assert_eq!(town.primary(), "k1");
    assert!(town.says("waiting for proxy p2"));
    town.register_proxy("p3");
    town.fence("p2", 1);
    town.live(ms(100), &[]);
    assert_eq!(town.primary(), "k1", "one that registered under the mark counts too");
    town.fence("p3", 1);
    town.tick();
    assert_eq!(town.primary(), "k2");
}

#[test]
fn a_mirror_from_before_the_mark_does_not_tell_which_proxies_there_are() {
    let mut town = marked(2, 1);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.fence("p1", 1);
    let revision = town.mirror.revision;
    town.mirror.revision = Revision(town.mirror.cluster.as_ref().unwrap().revision.0 - 1);
    assert!(town.decide().committed().is_none());
    town.mirror.revision = revision;
    assert!(town.decide().committed().is_some());
}

#[test]
fn an_acknowledgement_of_an_older_epoch_counts_for_nothing() {
    let mut town = marked(2, 1);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.fence("p1", 0);
    town.live(secs(1), &[]);
    assert_eq!(town.primary(), "k1");
}

#[test]
fn acknowledgements_recruits_and_promises_also_travel_through_etcd() {
    let mut town = marked(2, 1);
    town.hang_up("k2");
    town.hang_up("k1");
    town.info("k1", |info| info.promised = Epoch(1));
    town.mirror.proxies.get_mut(&proxy("p1")).unwrap().info.fenced_epoch = Epoch(1);
    town.info("k2", |info| {
        info.promised = Epoch(1);
        info.recruit = Some(Recruit {
            epoch: Epoch(2),
            position: stolon::model::WalPosition { timeline: 1, lsn: stolon::model::Lsn(1010) },
        });
    });
    town.live(ms(1500), &["k1", "k2", "p1"]);
    assert_eq!(town.primary(), "k2", "{:?}", town.last.reasons);
}

#[test]
fn a_proxy_that_never_acknowledges_loses_its_lease_and_its_ttl_is_waited_out() {
    let mut town = marked(2, 1);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.live(secs(14), &[]);
    assert!(town.last.actions.is_empty());
    town.live(secs(2), &[]);
    assert!(town.acts(|action| matches!(action, Action::MeasureLease { .. })));
    let lease: LeaseId = town.mirror.proxies[&proxy("p1")].lease;
    town.seen.ttls.insert(lease, secs(5));
    town.step();
    assert_eq!(town.history.last(), Some(&Step::Lapse));
    town.step();
    assert!(town.acts(|action| matches!(action, Action::RevokeLease { .. })));
    town.expire_proxy("p1");
    town.live(secs(4), &[]);
    assert_eq!(town.primary(), "k1", "its own deadline may not have come yet");
    town.live(secs(2), &[]);
    assert_eq!(town.primary(), "k2");
    assert!(town.data().cluster.status.extra.is_empty());
}

#[test]
fn a_successor_waits_the_recorded_ttl_of_a_revoked_proxy_again() {
    let mut town = marked(2, 1);
    town.edit(|data| {
        data.cluster.status.extra.insert(super::super::REVOKED.into(), serde_json::json!({"p1": 5000}));
    });
    town.expire_proxy("p1");
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.live(secs(4), &[]);
    assert_eq!(town.primary(), "k1");
    town.live(secs(2), &[]);
    assert_eq!(town.primary(), "k2");
}

#[test]
fn a_dead_postgres_is_suspicion_and_no_proof() {
    let mut town = marked(2, 1);
    town.edit(|data| data.cluster.spec.strict_fencing = Some(true));
    town.fence("p1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.live(secs(5), &[]);
    assert_eq!(town.primary(), "k1");
    assert!(town.says("strictFencing"), "{:?}", town.last.reasons);
    town.expire("k1");
    town.tick();
    assert_eq!(town.primary(), "k2");
}

#[test]
fn a_lapsed_proxy_is_gone_but_its_lapse_is_no_proof() {
    let mut town = marked(2, 1);
    town.recruit("k2", 2, 1, 1010);
    town.expire_proxy("p1");
    town.live(secs(3), &[]);
    assert_eq!(town.primary(), "k1");
    assert!(town.says("went without an acknowledgement"), "{:?}", town.last.reasons);
    town.promise("k1", 1);
    town.tick();
    assert_eq!(town.primary(), "k2");
}

#[test]
fn the_election_compares_exactly_the_key_of_the_fenced_holder() {
    let mut town = marked(2, 1);
    town.fence("p1", 1);
    town.recruit("k2", 2, 1, 1010);
    let decision = town.decide();
    let change = decision.committed().unwrap().change.as_ref().unwrap();
    let held = town.mirror.primary.as_ref().unwrap().modified;
    assert_eq!((change.holder, change.proof), (Holder::Fenced(held), Proof::ProxiesFenced));
    assert_eq!(change.registered, town.mirror.keepers[&keeper("k2")].created);
}

#[test]
fn the_highest_position_wins_then_the_id() {
    for (two, three, winner) in [(1005, 1010, "k3"), (1010, 1005, "k2")] {
        let mut town = marked(3, 0);
        town.promise("k1", 1);
        town.recruit("k2", 2, 1, two);
        town.recruit("k3", 2, 1, three);
        town.tick();
        assert_eq!(town.primary(), winner);
    }
    let mut town = marked(3, 0);
    let first = town.db_of("k2").min(town.db_of("k3"));
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.recruit("k3", 2, 1, 1010);
    town.tick();
    assert_eq!(town.data().cluster.status.master.as_ref(), Some(&first));
}

#[test]
fn a_live_standby_that_has_not_reported_is_awaited_and_a_silent_one_is_not() {
    let mut town = marked(3, 0);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1005);
    town.live(secs(3), &[]);
    assert_eq!(town.primary(), "k1");
    assert!(town.says("waiting for keeper k3"));
    town.live(ms(1200), &["k3"]);
    assert_eq!(town.primary(), "k2", "{:?}", town.last.reasons);
}

#[test]
fn waiting_for_a_live_standby_is_bounded_by_the_fail_interval() {
    let mut town = marked(3, 0);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1005);
    town.live(secs(19), &[]);
    assert_eq!(town.primary(), "k1");
    town.live(secs(2), &[]);
    assert_eq!(town.primary(), "k2");
}

#[test]
fn the_lag_bound_holds_to_the_byte_and_no_known_position_means_no_election() {
    for (limit, winner) in [(9, "k1"), (10, "k2")] {
        let mut town = marked(2, 0);
        town.edit(|data| data.cluster.spec.max_standby_lag = Some(limit));
        town.recruit("k2", 2, 1, 1000);
        town.tick();
        assert_eq!(town.primary(), winner, "limit {limit}: {:?}", town.last.reasons);
    }
}

#[test]
fn a_recruit_of_another_system_or_beyond_a_fork_or_without_leave_to_be_primary_never_wins() {
    type Spoil = fn(&mut Town);
    let spoils: [(&str, Spoil); 3] = [
        ("system identifier", |town| town.report("k2", |report| report.postgres.system_id = SYSTEM + 1)),
        ("can-be-master", |town| town.info("k2", |info| info.can_be_master = false)),
        ("none of this cluster's", |town| town.recruit("k2", 2, 7, 1010)),
    ];
    for (word, spoil) in spoils {
        let mut town = marked(2, 0);
        town.recruit("k2", 2, 1, 1010);
        spoil(&mut town);
        town.tick();
        assert_eq!(town.primary(), "k1");
        assert!(town.says(word), "{word}: {:?}", town.last.reasons);
    }
}

#[test]
fn a_position_past_the_point_where_the_lineage_left_its_timeline_is_a_fork() {
    for (lsn, winner) in [(1101, "k2"), (1100, "k3")] {
        let mut town = marked(2, 0);
        town.promise("k1", 1);
        town.recruit("k2", 2, 1, 1010);
        town.tick();
        town.serve();
        town.tick();
        town.register("k3");
        for _ in 0..4 {
            town.settle_all();
        }
        town.report("k2", |report| report.postgres.state = PostgresState::Stopped);
        town.info("k1", |info| info.can_be_master = false);
        town.step();
        town.recruit("k3", 3, 1, lsn);
        town.recruit("k1", 3, 2, 2000);
        town.tick();
        assert_eq!(town.primary(), winner, "{lsn}: {:?}", town.last.reasons);
    }
}

#[test]
fn the_incumbent_returns_under_the_next_epoch_when_no_standby_can_be_chosen() {
    let mut town = marked(2, 1);
    town.fence("p1", 1);
    town.expire("k2");
    town.live(secs(2), &["k2"]);
    assert_eq!(town.data().epoch(), Epoch(1));
    assert!(town.says("has not consented"), "{:?}", town.last.reasons);
    town.promise("k1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch()), ("k1", Epoch(2)));
    assert!(town.data().fencing().is_none());
}

#[test]
fn a_successor_of_the_leader_finishes_the_job_from_the_mark() {
    let mut town = marked(2, 1);
    let reported = town.seen.clone();
    town.seen = crate::observe::Observations::leading(town.now);
    for (uid, peer) in reported.keepers {
        town.seen.keeper_connected(town.now, &uid);
        town.seen.keeper_report(town.now, &uid, peer.report.unwrap().0);
    }
    town.seen.proxy_connected(town.now, &proxy("p1"));
    town.fence("p1", 1);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch()), ("k2", Epoch(2)));
}

#[test]
fn a_winner_that_dies_before_it_serves_is_followed_by_another_epoch_and_the_old_primary_may_return() {
    let mut town = marked(2, 0);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.tick();
    town.expire("k2");
    town.hang_up("k2");
    town.live(ms(1300), &["k2"]);
    assert_eq!(town.data().fencing().map(|mark| mark.epoch), Some(Epoch(2)), "{:?}", town.last.reasons);
    town.promise("k1", 2);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch()), ("k1", Epoch(3)), "{:?}", town.last.reasons);
}

#[test]
fn an_old_primary_does_not_return_once_its_successor_served() {
    let mut town = marked(2, 0);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.tick();
    town.expire("k1");
    town.serve();
    town.tick();
    town.expire("k2");
    town.hang_up("k2");
    let old = town.db_of("k1");
    town.register("k1");
    town.info("k1", |info| info.data = Some(DataDir { system_id: SYSTEM, db: Some(old) }));
    town.promise("k1", 2);
    town.live(secs(60), &["k2"]);
    assert_eq!(town.primary(), "k2");
    assert!(town.data().fencing().is_none(), "{:?}", town.last.reasons);
}

#[test]
fn under_a_mark_members_and_specifications_are_frozen() {
    let mut town = marked(2, 1);
    town.register("k9");
    town.edit(|data| data.cluster.spec.max_standbys = Some(7));
    let dbs = town.data().dbs.clone();
    town.live(secs(2), &[]);
    assert_eq!(town.data().dbs, dbs);
    assert!(!town.data().keepers.contains_key(&keeper("k9")));
}

#[test]
fn a_store_restored_from_an_older_copy_is_left_alone() {
    let mut town = Town::running(2, 1);
    town.mirror.highest_epoch = Some((Epoch(4), Revision(2)));
    town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
    assert!(town.decide().actions.is_empty());
    assert!(town.says("restored from an older copy"), "{:?}", town.last.reasons);
}

#[test]
fn a_winner_needs_no_copy_any_more() {
    let mut town = marked(2, 0);
    town.promise("k1", 1);
    town.recruit("k2", 2, 1, 1010);
    town.tick();
    assert_eq!(town.data().primary().unwrap().1.spec.init_mode, DbInitMode::None);
}
