//! Status from made-up mirrors and answers.

use std::sync::Arc;

use stolon::{
    model::{ClusterData, ClusterName, KeeperUid, Revision, registration::KeeperInfo},
    store::{Mirror, Registered, Stored},
    wire::v1,
};

use super::{ask::Answer, base, shape::Status, text, told};

const CAPTURED: &str = include_str!("../../src/model/testdata/clusterdata.json");

fn name() -> ClusterName {
    ClusterName::parse("c").unwrap()
}

fn mirror(document: &str) -> Mirror {
    let data = ClusterData::parse(document.as_bytes()).map(Arc::new);
    let stored = Stored { revision: Revision(9), bytes: Arc::new(document.as_bytes().to_vec()), data };
    let info: KeeperInfo = serde_json::from_str(
        r#"{"infoUID":"a","uid":"keeper0","bootUUID":"b","postgresBinaryVersion":{"Maj":15,"Min":1},
            "pgAddress":"127.0.0.1","pgPort":15432,"grpcAddress":"127.0.0.1:5431"}"#,
    )
    .unwrap();
    let registered = Registered { info, lease: stolon::model::LeaseId(7), created: Revision(1), modified: Revision(1) };
    let keepers = [(KeeperUid::parse("keeper0").unwrap(), registered)].into();
    Mirror { cluster: Some(stored), keepers, ..Mirror::default() }
}

fn alone(document: &str) -> Status {
    let mirror = mirror(document);
    let mut status = base::base(&name(), &mirror);
    base::alone(&mut status, &mirror, "no sentinel is registered".into());
    status
}

fn entry(uid: &str, role: &str, lsn: u64) -> v1::KeeperEntry {
    let postgres = v1::PostgresReport {
        state: if role == "primary" { v1::PostgresState::Primary } else { v1::PostgresState::Standby }.into(),
        position: Some(v1::WalPosition { timeline: 2, lsn }),
        wal_streaming: true,
        pid: 99,
        ..Default::default()
    };
    let report = v1::KeeperReport { postgres: Some(postgres), failure: "disk is full".into(), ..Default::default() };
    let (uid, role) = (uid.to_owned(), role.to_owned());
    v1::KeeperEntry { uid, role, registered: true, healthy: true, report: Some(report), ..Default::default() }
}

fn told(document: &str) -> Status {
    let mut status = base::base(&name(), &mirror(document));
    let cluster = v1::GetClusterStatusResponse {
        epoch: 4,
        available: true,
        answered_by: "s1".into(),
        primary: Some(v1::Primary { db: "ab8aab47".into(), keeper: "keeper0".into() }),
        keepers: vec![entry("keeper0", "primary", 0x300_0148), entry("keeper1", "standby", 0x300_0100)],
        sentinels: vec![v1::SentinelEntry { uid: "s1".into(), leader: true, ..Default::default() }],
        problems: vec!["keeper1 is slow".into()],
        ..Default::default()
    };
    told::add(&mut status, Answer { cluster, leads: true, silent: vec![] });
    status
}

#[test]
fn the_originals_fields_keep_their_names_and_places() {
    let json = serde_json::to_value(alone(CAPTURED)).unwrap();
    let original: serde_json::Value = serde_json::from_str(
        r#"{"sentinels":[],"proxies":[],"keepers":[{"uid":"keeper0","listen_address":"127.0.0.1:15432","healthy":true,
            "pg_healthy":true,"pg_wanted_generation":4,"pg_current_generation":4}],
            "cluster":{"available":false,"master_keeper_uid":"keeper0","master_db_uid":"ab8aab47"}}"#,
    )
    .unwrap();
    for (list, fields) in [("/keepers/0", "/keepers/0"), ("/cluster", "/cluster")] {
        for (field, value) in original.pointer(fields).unwrap().as_object().unwrap() {
            let found = json.pointer(list).unwrap().get(field);
            if field.ends_with("generation") {
                assert!(found.is_some_and(serde_json::Value::is_i64), "{field}");
            } else {
                assert_eq!(found, Some(value), "{field}");
            }
        }
    }
}

#[test]
fn damaged_cluster_data_is_named_and_the_rest_still_shown() {
    let edited = |pointer: &str, value: serde_json::Value| {
        let mut document: serde_json::Value = serde_json::from_str(CAPTURED).unwrap();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[field] = value;
        document.to_string()
    };
    for (document, words) in [
        ("{not json".to_owned(), "not the JSON document"),
        (edited("/formatVersion", 2.into()), "format version 2"),
        (edited("/cluster/status/master", "nobody".into()), "nobody"),
        (edited("/cluster/spec/proxyCheckInterval", "16s".into()), "proxyCheckInterval"),
    ] {
        let status = alone(&document);
        let text = text(&status);
        assert!(text.contains(words) && text.contains("keeper0"), "{text}");
        assert!(serde_json::to_string(&status).unwrap().contains(words));
    }
}

#[test]
fn a_sentinels_answer_shows_lag_failure_and_who_leads() {
    let status = told(CAPTURED);
    assert!(status.cluster.available && status.source.leader);
    assert_eq!(status.keepers[1].lag, Some(0x48));
    assert_eq!((status.keepers[0].lag, status.keepers[0].streaming), (None, None));
    let text = text(&status);
    for words in ["available", "0/3000148", "72 B", "disk is full", "keeper1 is slow", "s1, which leads"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.lines().all(|line| line.trim_end() == line));
}

#[test]
fn what_the_sentinel_knows_stands_in_for_cluster_data_that_cant_be_read() {
    let status = told("{");
    assert_eq!(status.cluster.epoch, Some(4));
    assert!(status.problems[0].contains("not the JSON document"));
    assert_eq!(status.keepers.len(), 2);
}
