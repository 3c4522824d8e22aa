//! Standbys that know too little, cold starts in a bad order, and etcd away for longer than any lease: better no primary
//! than one that has lost something.

use std::time::Duration;

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Weight, during, eventually, run, writer::Writer};

const WAIT: Duration = Duration::from_secs(60);

/// More than the default `maxStandbyLag` (1.2 MB).
const MUCH: &str = "INSERT INTO much SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 5000) i";

#[test]
fn a_standby_that_lags_too_far_is_never_promoted_and_the_old_primary_returns_with_everything() {
    run("too-much-lag", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (old, epoch) = cluster.primary().await;
        let behind = 1 - old;
        cluster.proxy().query("CREATE TABLE much (id int, text text)").await.unwrap();
        cluster.streaming(1).await;
        cluster.keepers[behind].signal_all(Signal::KILL);
        cluster.keepers[behind].daemon.process().kill();
        cluster.proxy().query(MUCH).await.unwrap();
        // The primary's position is stored every few seconds at most.
        eventually("the stored or reported position knows of the new rows", WAIT, async || {
            let lsn = cluster.proxy().value("SELECT pg_current_wal_lsn() - '0/0'").await?;
            let lsn: u64 = lsn.parse().map_err(|_| lsn.clone())?;
            let keys = cluster.keys().await?;
            let stored = keys.data.iter().flat_map(|data| data.dbs.values()).map(|db| db.status.xlog_pos.0).max();
            if lsn - stored.unwrap_or(0) < 100_000 { Ok(()) } else { Err(format!("{stored:?} of {lsn}")) }
        })
        .await;
        cluster.keepers[old].signal_all(Signal::KILL);
        cluster.keepers[old].daemon.process().kill();
        cluster.start_keeper(behind);
        during("the standby that lags isn't promoted", Duration::from_secs(15), async || {
            let keys = cluster.keys().await?;
            let primary = keys.primary.as_ref().filter(|primary| primary.keeper.as_str() != cluster.keepers[old].uid);
            primary.map_or(Ok(()), |primary| Err(format!("{primary:?}")))
        })
        .await;
        cluster.start_keeper(old);
        let (serving, next) = cluster.settled().await;
        assert!(serving == old && next >= epoch, "keeper {serving} in epoch {next}");
        assert_eq!(cluster.proxy().value("SELECT count(*) FROM much").await.as_deref(), Ok("5000"));
    });
}

#[test]
fn everything_dies_at_once_and_comes_back_without_a_loss() {
    run("power-failure", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
        let before = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        cluster.etcd.kill_member(0);
        for keeper in &cluster.keepers {
            keeper.signal_all(Signal::KILL);
        }
        for daemon in cluster.sentinels.iter_mut().chain(&mut cluster.proxies) {
            daemon.process().kill();
        }
        cluster.etcd.start_member(0);
        // Standbys first, which is the bad order.
        let Cluster { test, keepers, sentinels, proxies, .. } = &mut cluster;
        sentinels.iter_mut().chain(proxies).for_each(|daemon| daemon.start(test));
        keepers.iter_mut().rev().for_each(|keeper| keeper.daemon.start(test));
        assert_eq!(
            cluster.settled().await,
            before,
            "the incumbent goes on in its epoch, for nobody else has all it has"
        );
        writer.flows().await;
        writer.finish().await.is_clean();
    });
}

/// Execution 16.
#[test]
fn after_etcd_was_away_for_longer_than_a_lease_the_same_primary_serves_again_without_a_loss() {
    run("etcd-away", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let before = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        cluster.etcd.kill_member(0);
        // Past the lease's 5 s nobody has the authority to acknowledge anything.
        eventually("commits have stopped", Duration::from_secs(15), async || {
            let before = writer.count();
            tokio::time::sleep(Duration::from_millis(1500)).await;
            if writer.count() == before { Ok(()) } else { Err("rows are still acknowledged") }
        })
        .await;
        cluster.etcd.start_member(0);
        assert_eq!(cluster.settled().await, before, "the end of an outage of etcd is no failover");
        writer.flows().await;
        writer.finish().await.is_clean();
        for keeper in &mut cluster.keepers {
            assert!(keeper.daemon.process().running(), "{} has ended", keeper.uid);
        }
    });
}
