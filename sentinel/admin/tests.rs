//! Status answers as functions of a mirror and observations.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{
        ClusterData, Epoch, KeeperUid, LeaseId, Moment, Revision,
        registration::{PrimaryKey, ReadyKey},
        report::KeeperReport,
    },
    store::{Held, Mirror, Stored},
};

use super::status;
use crate::observe::Observations;

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

#[test]
fn a_cluster_is_available_only_while_its_primary_holds_both_keys_and_nothing_changes() {
    let answer = |mirror: &Mirror| status::cluster(now(), mirror, &Observations::default());
    let mirror = serving();
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
