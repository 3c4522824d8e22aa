//! The leading sentinel dies: another leads. That alone disturbs nobody, and in the middle of a failover it only takes
//! longer.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Weight, during, eventually, run, writer::Writer};

/// A dead leader's key goes with its lease (5 s; etcd ends leases up to a second late), then the next one leads.
const TAKEOVER: Duration = Duration::from_secs(12);

#[test]
fn another_sentinel_leads_when_the_leader_is_killed_and_clients_notice_nothing() {
    run("leader-killed", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (primary, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (old, cuts) = (cluster.leader().await, writer.cut());
        let at = Instant::now();
        cluster.sentinels[old].process().kill();
        eventually("another sentinel leads", TAKEOVER, async || match cluster.leader().await {
            new if new != old => Ok(()),
            _ => Err("the dead one still leads"),
        })
        .await;
        // Longer than any lease: nothing follows from the leader's death.
        during("no failover", Duration::from_secs(6), async || {
            let now = cluster.keys().await?.serving()?;
            let expected = (cluster.keepers[primary].uid.clone(), epoch);
            if now == expected { Ok(()) } else { Err(format!("{now:?} instead of {expected:?}")) }
        })
        .await;
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        let gap = writer.report_gap("leader", at);
        assert!(gap < Duration::from_secs(1), "{gap:?} without a commit");
        // The new leader can do its job.
        let server = writer.server();
        cluster.keepers[primary].kill_postgres();
        writer.moves_from(&server, Duration::from_secs(15)).await;
        writer.finish().await.is_clean_but_for(1);
    });
}

#[test]
fn the_failover_completes_when_primary_and_leader_die_together() {
    run("leader-and-primary", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (leader, server) = (cluster.leader().await, writer.server());
        let at = Instant::now();
        // The keeper too: with nobody to ask it for its epoch, it would start PostgreSQL again in place (R17).
        cluster.keepers[old].signal_all(Signal::KILL);
        cluster.keepers[old].daemon.process().kill();
        cluster.sentinels[leader].process().kill();
        writer.moves_from(&server, TAKEOVER + Duration::from_secs(10)).await;
        writer.flows().await;
        writer.report_gap("primary-and-leader", at);
        cluster.start_keeper(old);
        let (new, next) = cluster.settled().await;
        assert!(next > epoch, "epoch {epoch}, then {next}");
        assert_ne!(new, old, "a standby leads");
        writer.finish().await.is_clean_but_for(3);
    });
}

#[test]
fn without_a_leader_a_primary_that_crashed_starts_again_in_place() {
    run("restart-in-place", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (primary, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (leader, at) = (cluster.leader().await, Instant::now());
        cluster.sentinels[leader].process().signal(Signal::STOP);
        cluster.keepers[primary].kill_postgres();
        writer.flows().await;
        let gap = writer.report_gap("restart-in-place", at);
        assert!(gap < Duration::from_secs(5), "{gap:?}: longer than a takeover by another leader");
        cluster.sentinels[leader].process().signal(Signal::CONT);
        let (now, next) = cluster.settled().await;
        assert_eq!((now, next), (primary, epoch), "the same primary in the same epoch");
        // Crash recovery loses nothing that was acknowledged.
        writer.finish().await.is_clean();
    });
}

#[test]
fn a_leader_that_wakes_up_after_its_successor_led_a_failover_changes_nothing() {
    run("leader-frozen", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (leader, server) = (cluster.leader().await, writer.server());
        cluster.sentinels[leader].process().signal(Signal::STOP);
        cluster.keepers[old].signal_all(Signal::KILL);
        cluster.keepers[old].daemon.process().kill();
        writer.moves_from(&server, TAKEOVER + Duration::from_secs(10)).await;
        cluster.start_keeper(old);
        let (new, next) = cluster.settled().await;
        assert!(new != old && next > epoch, "keeper {new} in epoch {next}");
        cluster.sentinels[leader].process().signal(Signal::CONT);
        during("the same primary in the same epoch", Duration::from_secs(6), async || {
            let now = cluster.keys().await?.serving()?;
            if now == (cluster.keepers[new].uid.clone(), next) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        assert!(cluster.sentinels[leader].process().running(), "it stands as a candidate again");
        writer.finish().await.is_clean_but_for(3);
    });
}
