//! The first database: who begins, and over what nobody may begin.

use stolon::model::{
    Epoch, Revision,
    cluster::{DbInitMode, DbRole, Phase},
    registration::DataDir,
    report::PostgresState,
    spec::StoredSpec,
};

use super::{
    keeper, ms, secs,
    town::{SYSTEM, Town},
};
use crate::decide::Step;

#[test]
fn without_a_keeper_nothing_is_written() {
    let mut town = Town::empty();
    assert!(town.decide().actions.is_empty());
    assert!(town.says("cannot choose initial primary"));
}

#[test]
fn the_keeper_that_registered_first_begins_with_epoch_1_and_the_automatic_specification() {
    let mut town = Town::empty();
    town.register("k2");
    town.register("k1");
    town.step();
    let data = town.data();
    let (_, db) = data.primary().unwrap();
    assert_eq!((db.spec.keeper_uid.as_str(), db.spec.init_mode, db.spec.role), ("k2", DbInitMode::New, DbRole::Master));
    assert_eq!((data.epoch(), db.generation.0, data.cluster.status.phase), (Epoch(1), 1, Phase::Initializing));
    assert_eq!((db.spec.max_standbys, db.spec.use_pgrewind, data.cluster.spec.use_pgrewind), (20, true, Some(true)));
    assert_eq!(town.mirror.primary.as_ref().unwrap().value.keeper, keeper("k2"));
    assert_eq!(town.mirror.highest_epoch.unwrap().0, Epoch(1));
    town.tick();
    assert!(town.decide().committed().is_none(), "{:?}", town.last);
}

#[test]
fn a_keeper_that_may_not_be_primary_does_not_begin() {
    let mut town = Town::empty();
    town.register("k1");
    town.info("k1", |info| info.can_be_master = false);
    town.register("k2");
    town.step();
    assert_eq!(town.primary(), "k2");
}

#[test]
fn living_data_forbid_initialisation_and_the_reason_names_them_and_the_way_out() {
    let mut town = Town::empty();
    town.register("k1");
    town.register("k2");
    town.info("k2", |info| info.data = Some(DataDir { system_id: SYSTEM, db: None }));
    assert!(town.decide().actions.is_empty());
    assert!(town.says("keepers k2 hold databases") && town.says("existingConfig"), "{:?}", town.last.reasons);
}

#[test]
fn an_epoch_key_without_cluster_data_forbids_initialisation() {
    let mut town = Town::empty();
    town.register("k1");
    town.mirror.highest_epoch = Some((Epoch(3), Revision(1)));
    assert!(town.decide().actions.is_empty());
    assert!(town.says("up to epoch 3"));
}

#[test]
fn a_specification_with_an_existing_database_waits_for_its_keeper() {
    let mut town = Town::empty();
    let text = r#"{"initMode":"existing","existingConfig":{"keeperUID":"k2"}}"#;
    town.initial = Some(serde_json::from_str::<StoredSpec>(text).unwrap());
    town.register("k1");
    assert!(town.decide().actions.is_empty() && town.says("waiting for keeper k2"));
    town.register("k2");
    town.info("k2", |info| info.data = Some(DataDir { system_id: SYSTEM, db: None }));
    town.step();
    assert_eq!(town.data().primary().unwrap().1.spec.init_mode, DbInitMode::Existing);
}

#[test]
fn ready_ends_the_initialisation_and_the_servers_parameters_are_merged() {
    let mut town = Town::empty();
    town.register("k1");
    town.tick();
    town.serve();
    town.tick();
    let data = town.data();
    assert_eq!(data.cluster.status.phase, Phase::Normal);
    assert_eq!(data.cluster.spec.pg_parameters.as_ref().unwrap()["max_connections"], "100");
    let (_, db) = data.primary().unwrap();
    assert_eq!((db.spec.init_mode, db.spec.pg_parameters["max_connections"].as_str()), (DbInitMode::None, "100"));
    assert_eq!((data.cluster.status.history[0].epoch, data.cluster.status.history[0].timeline), (Epoch(1), 1));
}

/// Two keepers; `k1` begins and does not come up.
fn failing() -> Town {
    let mut town = Town::empty();
    town.register("k1");
    town.register("k2");
    town.tick();
    town.report("k1", |report| report.failure = "initdb: no space left".into());
    town
}

#[test]
fn a_failed_initialisation_goes_to_another_keeper_once_the_first_one_promised() {
    let mut town = failing();
    town.live(secs(29), &[]);
    assert!(town.history.iter().all(|step| matches!(step, Step::Initialise | Step::Members)));
    town.live(secs(2), &[]);
    assert!(town.data().fencing().is_some(), "{:?}", town.last);
    town.live(secs(2), &[]);
    assert_eq!(town.primary(), "k1", "no proof yet");
    town.promise("k1", 1);
    town.tick();
    assert_eq!((town.primary().as_str(), town.data().epoch()), ("k2", Epoch(2)));
    assert_eq!(town.data().primary().unwrap().1.spec.init_mode, DbInitMode::New);
    assert_eq!(town.data().dbs.len(), 1);
}

#[test]
fn a_first_primary_that_may_have_served_is_never_replaced_by_an_empty_one() {
    let mut town = Town::empty();
    town.register("k1");
    town.register("k2");
    town.tick();
    town.serve();
    town.seen.settle(town.now, &town.mirror);
    town.expire("k1");
    town.live(secs(400), &["k1"]);
    assert_eq!(town.primary(), "k1");
    assert!(town.says("may hold written data"), "{:?}", town.last.reasons);
}

#[test]
fn a_successor_that_has_not_seen_the_begin_does_not_choose_again_for_a_dead_keeper() {
    let mut town = failing();
    town.seen.witnessed = Epoch::NONE;
    town.expire("k1");
    town.live(secs(400), &["k1"]);
    assert_eq!(town.primary(), "k1");
    assert!(town.says("can't know whether keeper k1 has served"), "{:?}", town.last.reasons);
}

#[test]
fn parameters_that_never_come_do_not_keep_the_cluster_from_living() {
    let mut town = Town::empty();
    town.register("k1");
    town.tick();
    town.serve();
    town.report("k1", |report| report.postgres.parameters.clear());
    town.live(secs(29), &[]);
    assert_eq!(town.data().cluster.status.phase, Phase::Initializing);
    town.live(secs(2), &[]);
    assert_eq!(town.data().cluster.status.phase, Phase::Normal);
    town.pass(ms(1));
    assert!(town.seen.keepers[&keeper("k1")].report.as_ref().unwrap().0.postgres.state == PostgresState::Primary);
}
