//! `stolonctl switchover`: the primary role changes hands in good order, in either replication mode.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use stolon_tests::{Cluster, ClusterOptions, Test, Weight, eventually, proc, process::Outcome, run, writer::Writer};

fn switchover(cluster: &Cluster, args: &[&str]) -> Outcome {
    cluster.stolonctl("switchover", args)
}

/// Back and forth under a writer: by name, then to whoever is best.
async fn handed_over(test: Test, synchronous: bool) {
    let spec = json!({ "initMode": "new", "usePgrewind": true, "synchronousReplication": synchronous });
    let cluster = Cluster::start(test, ClusterOptions { spec: Some(spec), ..Default::default() }).await;
    let writer = Writer::start(cluster.proxy()).await;
    for round in 0..3 {
        let (old, epoch) = cluster.settled().await;
        let server = writer.server();
        let to = eventually("a standby that may take over", Duration::from_secs(30), async || {
            candidate(&cluster, old, synchronous).await
        })
        .await;
        let (at, before) = (Instant::now(), copies(&cluster, old));
        let outcome = match round {
            0 => switchover(&cluster, &["--to", &to, "-f", "json"]),
            _ => switchover(&cluster, &["-f", "json"]),
        };
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        writer.moves_from(&server, Duration::from_secs(20)).await;
        let kind = if synchronous { "switchover-sync" } else { "switchover" };
        writer.report_gap(kind, at);
        let (new, next) = cluster.settled().await;
        let said: Value = serde_json::from_str(&outcome.out).unwrap();
        assert_eq!((said["keeper"].as_str(), said["epoch"].as_u64()), (Some(&*cluster.keepers[new].uid), Some(next)));
        assert!(next == epoch + 1 && new != old && (round > 0 || cluster.keepers[new].uid == to));
        assert_eq!(copies(&cluster, old), before, "the old primary just follows");
        assert!(cluster.keepers[old].daemon.log().contains("it follows as it is"));
    }
    writer.finish().await.is_clean();
}

/// How often a keeper has copied or rewound its data.
fn copies(cluster: &Cluster, keeper: usize) -> usize {
    let log = cluster.keepers[keeper].daemon.log();
    log.matches("by pg_basebackup").count() + log.matches("by pg_rewind").count()
}

async fn candidate(cluster: &Cluster, old: usize, synchronous: bool) -> Result<String, String> {
    let keys = cluster.keys().await?;
    let data = keys.data.ok_or("no cluster data")?;
    let (_, master) = data.primary().ok_or("no primary")?;
    let mut others =
        cluster.keepers.iter().enumerate().filter(|(index, _)| *index != old).map(|(_, keeper)| &keeper.uid);
    if !synchronous {
        return others.next().cloned().ok_or_else(|| "no other keeper".to_owned());
    }
    let seen = master.status.synchronous_standbys.iter().flatten().find_map(|uid| data.dbs.get(uid));
    seen.map(|db| db.spec.keeper_uid.to_string()).ok_or_else(|| "nobody is in sync".to_owned())
}

#[test]
fn a_primary_is_handed_over_without_a_loss_or_a_rewind() {
    run("switchover", Weight::Heavy, async |test| handed_over(test, false).await);
}

#[test]
fn a_synchronous_primary_is_handed_over_without_a_loss_or_a_rewind() {
    run("switchover-sync", Weight::Heavy, async |test| handed_over(test, true).await);
}

#[test]
fn a_handover_that_can_not_be_is_refused_with_the_reason_and_nothing_changes() {
    run("switchover-refused", Weight::Cluster, async |test| {
        let cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (primary, epoch) = cluster.primary().await;
        let own = cluster.keepers[primary].uid.clone();
        for (to, words) in [(own.as_str(), "is the primary already"), ("nobody", "is none of this cluster's")] {
            let outcome = switchover(&cluster, &["--to", to]);
            assert!(outcome.code == Some(1) && outcome.err.contains(words), "{outcome:?}");
            assert_eq!(outcome.err.trim().lines().count(), 1, "{outcome:?}");
        }
        cluster.keepers[1 - primary].signal_all(Signal::STOP);
        let standby = cluster.keepers[1 - primary].uid.clone();
        // Until it is missed it is a candidate, and the handover would be made and come back.
        eventually("the silent standby is missed", Duration::from_secs(20), async || {
            let text = cluster.stolonctl("status", &[]).out;
            if text.contains(&format!("keeper {standby} is silent")) { Ok(()) } else { Err(text) }
        })
        .await;
        let outcome = switchover(&cluster, &["--to", &standby]);
        let said = ["is not heard", "is not registered"].iter().any(|words| outcome.err.contains(words));
        assert!(outcome.code == Some(1) && said, "{outcome:?}");
        cluster.keepers[1 - primary].signal_all(Signal::CONT);
        assert_eq!(cluster.settled().await, (primary, epoch));
    });
}

/// A server that streams, as it says itself, and whose walreceiver stands still: what it lacks would be lost, or the handover
/// would be made in vain.
#[test]
fn a_handover_to_a_standby_that_lags_too_far_is_refused_with_the_reason_and_nothing_changes() {
    run("switchover-lags", Weight::Cluster, async |test| {
        let cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let serving = cluster.primary().await;
        let (primary, standby) = (&cluster.keepers[serving.0], &cluster.keepers[1 - serving.0]);
        primary.target().query("CREATE TABLE much (id int, text text)").await.unwrap();
        cluster.streaming(1).await;
        let writer = Writer::start(cluster.proxy()).await;
        let (cuts, postmasters) = (writer.cut(), (primary.postmaster(), standby.postmaster()));
        let receiver = proc::tree(standby.postmaster().unwrap()).into_iter();
        let receiver = receiver.filter(|pid| proc::command_line(*pid).contains("walreceiver")).collect::<Vec<_>>();
        assert_eq!(receiver.len(), 1, "the standby's walreceiver");
        proc::signal(receiver[0], Signal::STOP);
        // More than the default maxStandbyLag (1.2 MB), on a primary that reports it with its next heartbeat.
        let much = "INSERT INTO much SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 5000) i";
        primary.target().query(much).await.unwrap();
        eventually("the sentinels know that the standby lags", Duration::from_secs(10), async || lags(&cluster).await)
            .await;
        let outcome = switchover(&cluster, &["--to", &standby.uid]);
        let changed = cluster.keys().await.unwrap();
        assert_eq!(changed.serving(), Ok((primary.uid.clone(), serving.1)), "{outcome:?}");
        let said = [&*standby.uid, "can't take over", "bytes behind", "maxStandbyLag"];
        assert!(outcome.code == Some(1) && said.iter().all(|words| outcome.err.contains(words)), "{outcome:?}");
        assert_eq!(outcome.err.trim().lines().count(), 1, "{outcome:?}");
        let handover = changed.data.unwrap().cluster.status.handover;
        assert!(handover.is_none(), "{handover:?}");
        proc::signal(receiver[0], Signal::CONT);
        assert_eq!(cluster.settled().await, serving);
        assert_eq!((primary.postmaster(), standby.postmaster()), postmasters, "no server was stopped");
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        writer.finish().await.is_clean();
    });
}

/// Ok when the status tells that some standby is further behind than the default `maxStandbyLag`.
async fn lags(cluster: &Cluster) -> Result<(), String> {
    let told = cluster.stolonctl("status", &["-f", "json"]).out;
    let status: Value = serde_json::from_str(&told).map_err(|error| format!("{error}: {told}"))?;
    let behind = status["keepers"].as_array().into_iter().flatten().filter_map(|keeper| keeper["lag"].as_u64()).max();
    if behind > Some(1_300_000) { Ok(()) } else { Err(format!("{behind:?} bytes")) }
}
