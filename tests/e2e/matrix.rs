//! Other PostgreSQL majors, from PyPI: a cluster forms and fails over as with the distribution's, without the stall of 5
//! seconds (protocol, section 7) that each major's retry interval has in store.

use std::time::{Duration, Instant};

use stolon_tests::{Cluster, ClusterOptions, Test, Weight, run, tools, writer::Writer};

#[test]
fn postgres_16_forms_a_cluster_and_fails_over() {
    run("postgres-16", Weight::Cluster, async |test| major(test, 16).await);
}

#[test]
fn postgres_18_forms_a_cluster_and_fails_over() {
    run("postgres-18", Weight::Cluster, async |test| major(test, 18).await);
}

async fn major(test: Test, major: u32) {
    let programs = tools::postgres(major, &test.subfolder("programs"));
    let keeper = vec!["--pg-bin-path".to_owned(), programs.display().to_string()];
    let options = ClusterOptions { keepers: 2, sentinels: 1, keeper, ..Default::default() };
    let cluster = Cluster::start(test, options).await;
    let version = cluster.proxy().value("SHOW server_version_num").await.unwrap();
    assert!(version.starts_with(&major.to_string()), "{version}");
    let writer = Writer::start(cluster.proxy()).await;
    // There and back: the old primary rejoins by pg_rewind, then is promoted itself.
    for _ in 0..2 {
        let (old, epoch) = cluster.settled().await;
        let (server, at) = (writer.server(), Instant::now());
        cluster.keepers[old].kill_postgres();
        writer.moves_from(&server, Duration::from_secs(20)).await;
        writer.flows().await;
        let gap = writer.report_gap(&format!("postgres-{major}"), at);
        assert!(gap < Duration::from_secs(4), "{gap:?}: the stall of 5 seconds");
        assert!(cluster.primary().await.1 > epoch);
    }
    cluster.settled().await;
    writer.finish().await.is_clean_but_for(2);
}
