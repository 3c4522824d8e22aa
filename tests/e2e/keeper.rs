//! Keepers that die, end, or are upgraded: PostgreSQL runs on without its keeper, and is handed over or stopped when the
//! keeper is asked to end.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Weight, during, eventually, run, writer::Writer};

const END: Duration = Duration::from_secs(20);

async fn same_primary(cluster: &Cluster, primary: usize, epoch: u64) -> Result<(), String> {
    let now = cluster.keys().await?.serving()?;
    let expected = (cluster.keepers[primary].uid.clone(), epoch);
    if now == expected { Ok(()) } else { Err(format!("{now:?} instead of {expected:?}")) }
}

#[test]
fn a_killed_keeper_adopts_its_running_postgres_and_clients_notice_nothing() {
    run("keeper-killed", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (primary, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (cuts, at) = (writer.cut(), Instant::now());
        for keeper in [primary, 1 - primary] {
            let postmaster = cluster.keepers[keeper].postmaster().unwrap();
            let guard = cluster.keepers[keeper].guard();
            assert!(guard.is_some(), "a guard watches");
            cluster.keepers[keeper].daemon.process().kill();
            cluster.start_keeper(keeper);
            // Longer than the lease that the dead process held.
            during("the same primary in the same epoch", Duration::from_secs(8), async || {
                same_primary(&cluster, primary, epoch).await
            })
            .await;
            assert_eq!(cluster.keepers[keeper].postmaster(), Some(postmaster), "PostgreSQL was not restarted");
            let kept = cluster.keepers[keeper].guard();
            assert!(kept.is_some() && (kept == guard || keeper != primary), "the primary's guard was taken over");
        }
        // Silence alone, for longer than the interval of suspicion: PostgreSQL still answers others (R15).
        cluster.keepers[primary].daemon.process().signal(Signal::STOP);
        during("no failover on silence", Duration::from_millis(2500), async || {
            same_primary(&cluster, primary, epoch).await
        })
        .await;
        cluster.keepers[primary].daemon.process().signal(Signal::CONT);
        cluster.streaming(1).await;
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        let gap = writer.report_gap("keeper", at);
        assert!(gap < Duration::from_secs(1), "{gap:?} without a commit");
        // The adopted PostgreSQL is watched: its death is noticed at once.
        let server = writer.server();
        cluster.keepers[primary].kill_postgres();
        writer.moves_from(&server, Duration::from_secs(5)).await;
        writer.finish().await.is_clean_but_for(1);
    });
}

/// First start, adoption by the next keeper, and an ordered end: nothing that a person would have to look at.
#[test]
fn what_is_ordinary_warns_of_no_stream() {
    run("keeper-quiet", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (primary, _) = cluster.primary().await;
        cluster.streaming(1).await;
        let standby = 1 - primary;
        let streams =
            |cluster: &Cluster| cluster.keepers[standby].daemon.log().matches("to the sentinel stands").count();
        for killed in [true, false] {
            let before = streams(&cluster);
            let process = cluster.keepers[standby].daemon.process();
            if killed {
                process.kill();
            } else {
                let status = process.terminate(END);
                assert!(status.success(), "the keeper ended with {status}");
            }
            cluster.start_keeper(standby);
            eventually("its stream stands again", END, async || {
                if streams(&cluster) > before { Ok(()) } else { Err("not yet") }
            })
            .await;
            cluster.streaming(1).await;
        }
        assert!(cluster.keepers[standby].daemon.process().terminate(END).success());
        for keeper in &cluster.keepers {
            let log = keeper.daemon.log();
            let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("another lease"));
            assert_eq!(warned.collect::<Vec<_>>(), [""; 0], "{}", keeper.uid);
        }
    });
}

#[test]
fn sigterm_hands_over_to_a_standby_and_loses_nothing() {
    run("keeper-sigterm", Weight::Heavy, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let at = Instant::now();
        let status = cluster.keepers[old].daemon.process().terminate(END);
        assert!(status.success(), "the keeper ended with {status}");
        assert_eq!(cluster.keepers[old].postmaster(), None, "its PostgreSQL has ended too");
        writer.flows().await;
        let gap = writer.report_gap("handover", at);
        let (new, next) = cluster.primary().await;
        assert!(new != old && next == epoch + 1, "keeper {new} in epoch {next} after keeper {old} in {epoch}");
        assert!(gap < Duration::from_secs(4), "the handover took {gap:?}");
        cluster.start_keeper(old);
        cluster.settled().await;
        writer.finish().await.is_clean();
    });
}

/// An orderly stop of a whole cluster, started again in the bad order: clients write on while the standbys are gone already.
#[test]
fn when_all_keepers_were_asked_to_end_at_once_a_standby_waits_for_the_incumbent_and_nothing_is_lost() {
    run("keeper-sigterm-all", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
        let (old, epoch) = cluster.primary().await;
        let standbys = [(old + 1) % 3, (old + 2) % 3];
        let writer = Writer::start(cluster.proxy()).await;
        for keeper in [standbys[0], standbys[1], old] {
            cluster.keepers[keeper].daemon.process().signal(Signal::TERM);
        }
        for keeper in [standbys[0], standbys[1], old] {
            let status = cluster.keepers[keeper].daemon.process().ended(END);
            assert!(status.success(), "keeper {keeper} ended with {status}");
            assert_eq!(cluster.keepers[keeper].postmaster(), None, "PostgreSQL of keeper {keeper} has ended too");
        }
        cluster.start_keeper(standbys[0]);
        during("the standby waits for the incumbent", Duration::from_secs(3), async || {
            let primary = cluster.keys().await?.primary;
            primary.map_or(Ok(()), |primary| Err(format!("{primary:?}")))
        })
        .await;
        cluster.start_keeper(old);
        cluster.start_keeper(standbys[1]);
        let (new, next) = cluster.settled().await;
        assert!(new == old && next >= epoch, "keeper {new} in epoch {next} after keeper {old} in {epoch}");
        writer.flows().await;
        writer.finish().await.is_clean();
    });
}

#[test]
fn sigterm_without_a_standby_stops_postgres_in_good_order_and_gives_the_authority_back_at_once() {
    run("keeper-sigterm-alone", Weight::Light, async |test| {
        let options = ClusterOptions { keepers: 1, sentinels: 1, ..Default::default() };
        let mut cluster = Cluster::start(test, options).await;
        cluster.proxy().query("CREATE TABLE kept AS SELECT 1 AS one").await.unwrap();
        let started = Instant::now();
        let status = cluster.keepers[0].daemon.process().terminate(END);
        assert!(status.success(), "the keeper ended with {status}");
        assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
        let keys = cluster.keys().await.unwrap();
        assert!(keys.primary.is_none() && keys.ready.is_none(), "{:?} {:?}", keys.primary, keys.ready);
        assert!(keys.keepers.is_empty(), "its registration is gone: {:?}", keys.keepers.keys());
        assert_eq!(cluster.keepers[0].postmaster(), None);
        let data = cluster.keepers[0].data_dir.join("postgres");
        let state = Command::new("/usr/lib/postgresql/15/bin/pg_controldata").arg(&data).env("LC_ALL", "C").output();
        let state = String::from_utf8_lossy(&state.unwrap().stdout).into_owned();
        assert!(state.contains("shut down") && !state.contains("in production"), "{state}");
        cluster.start_keeper(0);
        cluster.settled().await;
        assert_eq!(cluster.proxy().value("SELECT one FROM kept").await.as_deref(), Ok("1"));
    });
}

#[test]
fn leave_postgres_exits_for_an_upgrade_and_the_next_keeper_adopts() {
    run("keeper-upgrade", Weight::Cluster, async |test| {
        let options = ClusterOptions { keepers: 2, keeper: vec!["--leave-postgres".into()], ..Default::default() };
        let mut cluster = Cluster::start(test, options).await;
        let (primary, epoch) = cluster.primary().await;
        let (postmaster, guard) = (cluster.keepers[primary].postmaster().unwrap(), cluster.keepers[primary].guard());
        let writer = Writer::start(cluster.proxy()).await;
        let (cuts, at) = (writer.cut(), Instant::now());
        let status = cluster.keepers[primary].daemon.process().terminate(END);
        assert!(status.success(), "the keeper ended with {status}");
        assert_eq!(cluster.keepers[primary].postmaster(), Some(postmaster), "PostgreSQL runs on");
        cluster.start_keeper(primary);
        during("the same primary in the same epoch", Duration::from_secs(8), async || {
            same_primary(&cluster, primary, epoch).await
        })
        .await;
        assert_eq!(cluster.keepers[primary].postmaster(), Some(postmaster), "PostgreSQL was adopted");
        assert!(guard.is_some() && cluster.keepers[primary].guard() == guard, "and its guard");
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        assert!(writer.report_gap("upgrade", at) < Duration::from_secs(1));
        writer.finish().await.is_clean();
    });
}

#[test]
fn a_keeper_that_stays_away_loses_its_authority_and_a_standby_takes_over() {
    run("keeper-away", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        cluster.keepers[old].daemon.process().kill();
        writer.moves_from(&server, Duration::from_secs(30)).await;
        let (new, next) = cluster.primary().await;
        assert!(new != old && next > epoch, "keeper {new} in epoch {next}");
        // Its PostgreSQL may still run; with its keeper back it follows.
        cluster.start_keeper(old);
        cluster.settled().await;
        eventually("the old primary is a standby", Duration::from_secs(30), async || {
            match cluster.keepers[old].target().value("SELECT pg_is_in_recovery()").await?.as_str() {
                "t" => Ok(()),
                other => Err(format!("pg_is_in_recovery is {other}")),
            }
        })
        .await;
        // What the forsaken primary acknowledged after WAL stopped to flow is lost; while it flowed, nothing is.
        writer.finish().await.is_clean_but_for(1);
    });
}
