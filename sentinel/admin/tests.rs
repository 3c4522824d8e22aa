//! Status answers as functions of a mirror and observations.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{
        ClusterData, Epoch, KeeperUid, LeaseId, Moment, Revision,
        cluster::BLOCKING_NAME,
        registration::{PrimaryKey, ReadyKey},
        report::{KeeperReport, PostgresState, ProbeResult},
    },
    store::{Held, Mirror, Stored},
};

use super::{available, status};
use crate::observe::{Observations, Probe, Round};

fn now() -> Moment {
    Moment::from_boot(Duration::from_secs(100))
}

/// The captured cluster, its primary in epoch 0 with both keys.
fn serving() -> Mirror {
    let data = ClusterData::parse(include_bytes!("../../src/model/testdata/clusterdata.json")).unwrap();
    let (db, object) = data.primary().unwrap();
    let (db, keeper, epoch) = (db.clone(), object.spec.keeper_uid.clone(), Epoch(0));
    let primary = PrimaryKey { keeper: keeper.clone(), db: db.clone(), epoch, traceparent: String::new() };
    let ready =
        serde_json::json!({"keeper": keeper, "db": db, "epoch": 0, "address": "h", "port": 5432, "timeline": 1});
    let ready: ReadyKey = serde_json::from_value(ready).unwrap();
    let stored = Stored { revision: Revision(4), bytes: Arc::default(), data: Ok(Arc::new(data)) };
    Mirror {
        cluster: Some(stored),
        primary: Some(Held { value: primary, lease: LeaseId(1), modified: Revision(4) }),
        ready: Some(Held { value: ready, lease: LeaseId(1), modified: Revision(5) }),
        ..Mirror::default()
    }
}

/// What a serving primary reports, as of `age` ago.
fn reporting(mirror: &Mirror, age: Duration) -> Observations {
    let mut seen = Observations::default();
    let primary = &mirror.primary.as_ref().unwrap().value;
    let mut report = KeeperReport::default();
    report.postgres.db = Some(primary.db.clone());
    report.postgres.state = PostgresState::Primary;
    seen.keeper_connected(now() - age, &primary.keeper);
    seen.keeper_report(now() - age, &primary.keeper, report);
    seen
}

#[test]
fn a_cluster_is_available_only_while_its_primary_holds_both_keys_and_nothing_changes() {
    let mirror = serving();
    let seen = reporting(&mirror, Duration::from_millis(100));
    let answer = |mirror: &Mirror| status::cluster(now(), mirror, &seen);
    assert!(answer(&mirror).available && answer(&mirror).primary.is_some_and(|primary| primary.keeper == "keeper0"));
    for (word, spoil) in [
        ("authority", (|m: &mut Mirror| m.primary = None) as fn(&mut Mirror)),
        ("serve", |m| m.ready = None),
        ("serve", |m| m.ready.as_mut().unwrap().value.epoch = Epoch(9)),
    ] {
        let mut mirror = serving();
        spoil(&mut mirror);
        let answer = answer(&mirror);
        assert!(!answer.available && answer.problems.iter().any(|line| line.contains(word)), "{:?}", answer.problems);
    }
    let mut damaged = serving();
    damaged.cluster.as_mut().unwrap().data = ClusterData::parse(b"{").map(Arc::new);
    assert!(answer(&damaged).available, "what can't be read takes nothing from the clients");
}

#[test]
fn a_primary_that_is_silent_or_stopped_is_not_available_whatever_its_keys_say() {
    let mirror = serving();
    let available = |seen: &Observations| status::cluster(now(), &mirror, seen).available;
    assert!(!available(&Observations::default()), "nothing was heard of it");
    let mut silent = reporting(&mirror, Duration::from_secs(2));
    assert!(!available(&silent));
    let target = KeeperUid::parse("keeper0").unwrap();
    let others = [("keeper1".to_owned(), Some(ProbeResult::Answered))].into();
    silent.round = Some(Round { target, asked: now(), deadline: now(), own: Some(ProbeResult::TimedOut), others });
    assert!(available(&silent), "it answers somebody");
    let mut stopped = reporting(&mirror, Duration::from_millis(50));
    let keeper = &mirror.primary.as_ref().unwrap().value.keeper;
    stopped.keeper_report(now(), keeper, KeeperReport::default());
    assert!(!available(&stopped));
}

#[test]
fn a_primary_whose_keeper_is_gone_is_available_as_long_as_its_postgresql_answers() {
    let mirror = serving();
    let target = KeeperUid::parse("keeper0").unwrap();
    let mut seen = reporting(&mirror, Duration::from_millis(300));
    seen.keeper_ended(now() - Duration::from_millis(20), &target);
    let obstacle = |seen: &Observations| available::obstacle(now(), &mirror, seen);
    assert_eq!(obstacle(&seen), None, "nobody has been asked yet");
    for (result, could) in
        [(ProbeResult::Answered, true), (ProbeResult::Refused, false), (ProbeResult::TimedOut, false)]
    {
        seen.knocks.insert(target.clone(), Probe { asked: now(), result: Some(result) });
        assert_eq!(obstacle(&seen).is_none(), could, "{result:?}: {:?}", obstacle(&seen));
    }
}

#[test]
fn what_keeps_a_write_from_succeeding_is_said_and_is_not_called_available() {
    let mirror = serving();
    let target = KeeperUid::parse("keeper0").unwrap();
    let report = |change: fn(&mut KeeperReport)| {
        let mut seen = reporting(&mirror, Duration::from_millis(50));
        let mut report = seen.keepers[&target].report.as_ref().unwrap().0.clone();
        change(&mut report);
        seen.keeper_report(now(), &target, report);
        status::cluster(now(), &mirror, &seen)
    };
    for (words, change) in [
        ("is starting", (|report| report.postgres.state = PostgresState::Starting) as fn(&mut KeeperReport)),
        ("has not taken a write for 7 s", |report| report.postgres.probe_age = Some(Duration::from_secs(7))),
    ] {
        let answer = report(change);
        assert!(!answer.available && answer.problems.iter().any(|line| line.contains(words)), "{:?}", answer.problems);
    }
    let mut waiting = serving();
    let mut data = (**waiting.data().unwrap().0).clone();
    let master = data.cluster.status.master.clone().unwrap();
    let db = data.dbs.get_mut(&master).unwrap();
    db.spec.synchronous_replication = true;
    db.spec.external_synchronous_standbys = Some(vec![BLOCKING_NAME.into()]);
    waiting.cluster.as_mut().unwrap().data = Ok(Arc::new(data));
    let answer = status::cluster(now(), &waiting, &reporting(&waiting, Duration::from_millis(50)));
    assert!(!answer.available && answer.problems.iter().any(|line| line.contains("commits wait")), "{answer:?}");
}

#[test]
fn keepers_are_listed_with_their_last_report_and_what_they_fail_at() {
    let mut seen = Observations::default();
    let uid = KeeperUid::parse("keeper1").unwrap();
    let earlier = now() - Duration::from_millis(70);
    seen.keeper_connected(earlier, &uid);
    seen.keeper_report(earlier, &uid, KeeperReport { failure: "no disk".into(), ..KeeperReport::default() });
    let answer = status::cluster(now(), &serving(), &seen);
    let entry = answer.keepers.iter().find(|entry| entry.uid == "keeper1").unwrap();
    assert!(entry.report.is_some() && entry.report_age_ms == 70 && !entry.healthy && !entry.registered);
    assert_eq!(entry.role, "standby");
    assert!(answer.problems.iter().any(|line| line == "keeper keeper1: no disk"), "{:?}", answer.problems);
    let silent = answer.keepers.iter().find(|entry| entry.uid == "keeper0").unwrap();
    assert!(silent.report.is_none() && silent.role == "primary");
}
