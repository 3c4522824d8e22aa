//! Life without a failover: standbys come, go and are replaced (stolon's unit table, its asynchronous rows); an idle
//! cluster causes no write; impossible data are left alone.

use std::sync::Arc;

use stolon::model::{
    ClusterData, Generation,
    cluster::{DbInitMode, DbRole, FollowConfig},
    registration::DataDir,
    report::PostgresState,
};
use stolon::store::Stored;

use super::{db, keeper, secs, town::Town};

#[test]
fn a_healthy_cluster_causes_no_write() {
    let mut town = Town::running(3, 2);
    town.live(secs(120), &[]);
    assert!(town.history.is_empty(), "{:?}", town.history);
    assert!(town.last.revisit.is_some());
}

#[test]
fn a_new_keeper_gets_a_standby_that_copies_and_then_needs_no_copy_any_more() {
    let mut town = Town::running(1, 0);
    town.register("k2");
    town.tick();
    let uid = town.db_of("k2");
    let data = town.data();
    assert_eq!((data.dbs[&uid].spec.init_mode, data.dbs[&uid].spec.role), (DbInitMode::Resync, DbRole::Standby));
    let followed = |config: &Option<FollowConfig>| config.as_ref().unwrap().dbuid.clone();
    assert_eq!(followed(&data.dbs[&uid].spec.follow_config).as_ref(), data.cluster.status.master.as_ref());
    assert_eq!(data.primary().unwrap().1.spec.followers, std::slice::from_ref(&uid));
    town.settle_all();
    assert_eq!(town.data().dbs[&uid].spec.init_mode, DbInitMode::None);
    town.settle_all();
    assert!(town.data().dbs[&uid].status.healthy);
}

#[test]
fn somebody_elses_database_is_never_copied_over() {
    let mut town = Town::running(1, 0);
    town.register("k2");
    town.info("k2", |info| info.data = Some(DataDir { system_id: 5, db: None }));
    town.tick();
    assert!(town.data().db_of(&keeper("k2")).is_none());
    assert!(town.says("holds another database"));
}

#[test]
fn a_keeper_of_another_cluster_is_ignored() {
    let mut town = Town::running(1, 0);
    town.register("k2");
    town.info("k2", |info| info.cluster_uid = Some("other".parse().unwrap()));
    town.tick();
    assert!(!town.data().keepers.contains_key(&keeper("k2")) && town.says("belongs to another cluster"));
}

#[test]
fn no_more_standbys_than_wanted() {
    let mut town = Town::running(2, 0);
    town.edit(|data| data.cluster.spec.max_standbys_per_sender = Some(1));
    town.register("k3");
    town.tick();
    assert!(town.data().db_of(&keeper("k3")).is_none());
}

#[test]
fn a_failed_standby_is_replaced_on_a_free_keeper_and_dropped_once_the_other_is_good() {
    let mut town = Town::running(2, 0);
    let failed = town.db_of("k2");
    town.edit(|data| data.cluster.spec.max_standbys_per_sender = Some(1));
    town.register("k3");
    town.tick();
    town.report("k2", |report| report.failure = "can't follow".into());
    town.report("k2", |report| report.postgres.state = PostgresState::Stopped);
    town.live(secs(31), &[]);
    assert!(town.copies("k3"), "{:?}", town.last.reasons);
    assert!(town.data().dbs.contains_key(&failed), "kept until the other is good");
    town.speak("k3");
    town.speak("k1");
    town.tick();
    town.speak("k3");
    town.tick();
    assert!(!town.data().dbs.contains_key(&failed), "{:?}", town.last.reasons);
    assert_eq!(town.data().primary().unwrap().1.spec.followers, [town.db_of("k3")]);
}

#[test]
fn a_failed_standby_without_a_free_keeper_is_kept() {
    let mut town = Town::running(2, 0);
    let failed = town.db_of("k2");
    town.report("k2", |report| report.postgres.state = PostgresState::Stopped);
    town.live(secs(60), &[]);
    assert!(town.data().dbs.contains_key(&failed));
}

#[test]
fn a_standby_whose_data_are_gone_is_copied_anew() {
    let mut town = Town::running(2, 0);
    let old = town.db_of("k2");
    town.info("k2", |info| info.data = None);
    town.report("k2", |report| {
        report.postgres.state = PostgresState::Absent;
        report.postgres.db = None;
    });
    town.tick();
    assert!(town.copies("k2") && town.db_of("k2") != old);
}

#[test]
fn a_keeper_without_a_db_is_forgotten_after_the_interval_and_one_with_a_db_never() {
    let mut town = Town::running(2, 0);
    town.edit(|data| data.cluster.spec.max_standbys_per_sender = Some(1));
    town.register("k3");
    town.tick();
    assert!(town.data().keepers.contains_key(&keeper("k3")));
    town.expire("k3");
    town.expire("k2");
    town.tick();
    town.pass(secs(48 * 3600 - 60));
    town.beat(&["k2", "k3"]);
    town.tick();
    assert!(town.data().keepers.contains_key(&keeper("k3")));
    town.pass(secs(61));
    town.beat(&["k2", "k3"]);
    town.tick();
    assert!(!town.data().keepers.contains_key(&keeper("k3")) && town.data().keepers.contains_key(&keeper("k2")));
}

#[test]
fn a_changed_specification_reaches_every_db_and_raises_its_generation_once() {
    let mut town = Town::running(2, 0);
    let before: Vec<Generation> = town.data().dbs.values().map(|db| db.generation).collect();
    town.edit(|data| {
        data.cluster.spec.max_standbys = Some(7);
        data.cluster.spec.pg_parameters.get_or_insert_default().insert("work_mem".into(), "8MB".into());
    });
    town.tick();
    for (db, before) in town.data().dbs.values().zip(before) {
        assert_eq!((db.spec.max_standbys, db.spec.pg_parameters["work_mem"].as_str()), (7, "8MB"));
        assert_eq!(db.generation, before.next());
    }
}

#[test]
fn a_cluster_without_credentials_says_so_in_its_status() {
    let mut town = Town::running(1, 0);
    town.info("k1", |info| info.open_to_all = true);
    town.tick();
    assert_eq!(town.data().cluster.status.extra["openToAll"], true);
    town.info("k1", |info| info.open_to_all = false);
    town.tick();
    assert!(town.data().cluster.status.extra.is_empty());
}

#[test]
fn the_proxies_that_are_registered_are_the_enabled_ones() {
    let mut town = Town::running(1, 2);
    assert_eq!(town.data().proxy.spec.enabled_proxies.len(), 2);
    town.expire_proxy("p1");
    town.tick();
    assert_eq!(town.data().proxy.spec.enabled_proxies.len(), 1);
}

#[test]
fn a_bad_specification_changes_nothing_and_is_named() {
    let mut town = Town::running(1, 0);
    town.edit(|data| data.cluster.spec.max_standbys_per_sender = Some(0));
    town.register("k2");
    assert!(town.decide().actions.is_empty() && town.says("maxStandbysPerSender"));
}

#[test]
fn impossible_cluster_data_are_left_alone_and_named() {
    type Spoil = fn(&mut ClusterData);
    let spoils: [(&str, Spoil); 5] = [
        ("does not exist", |data| data.cluster.status.master = Some(db("ghost"))),
        ("role is standby", |data| data.dbs.values_mut().for_each(|db| db.spec.role = DbRole::Standby)),
        ("not among the keepers", |data| data.keepers.clear()),
        ("two dbs", |data| data.dbs.values_mut().for_each(|db| db.spec.keeper_uid = keeper("k1"))),
        ("key `epoch` says", |data| data.cluster.status.epoch = stolon::model::Epoch(9)),
    ];
    for (word, spoil) in spoils {
        let mut town = Town::running(2, 0);
        town.edit(spoil);
        town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
        assert!(town.decide().actions.is_empty() && town.says(word), "{word}: {:?}", town.last.reasons);
    }
}

#[test]
fn cluster_data_that_are_no_json_or_newer_are_left_alone() {
    for (text, word) in [("{", "not the JSON document"), (r#"{"formatVersion":2}"#, "format version 2")] {
        let mut town = Town::running(1, 0);
        let bytes = text.as_bytes();
        let revision = town.mirror.revision;
        let data = ClusterData::parse(bytes).map(Arc::new);
        town.mirror.cluster = Some(Stored { revision, bytes: Arc::new(bytes.to_vec()), data });
        assert!(town.decide().actions.is_empty() && town.says(word), "{:?}", town.last.reasons);
    }
}
