//! R4 when the keeper can't keep it: the guard process ends PostgreSQL at the deadline, before the lease has ended
//! elsewhere, and a standby takes over; and what is left when the guard is gone too.

use std::time::Duration;

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Keeper, Weight, during, eventually, proc, run, writer::Writer};

const MOVE: Duration = Duration::from_secs(30);
/// The lease is granted for 5 s, its deadline is a second earlier, and it was prolonged a second ago at most.
const DEADLINE: Duration = Duration::from_secs(8);

async fn pair(test: stolon_tests::Test) -> Cluster {
    Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await
}

#[test]
fn postgres_of_a_killed_keeper_dies_before_its_lease_and_a_standby_takes_over() {
    run("guard-keeper-killed", Weight::Cluster, async |test| forsaken(test, Signal::KILL).await);
}

#[test]
fn postgres_of_a_frozen_keeper_dies_before_its_lease_and_a_standby_takes_over() {
    run("guard-keeper-frozen", Weight::Cluster, async |test| forsaken(test, Signal::STOP).await);
}

async fn forsaken(test: stolon_tests::Test, signal: Signal) {
    let mut cluster = pair(test).await;
    let (old, epoch) = cluster.primary().await;
    let uid = cluster.keepers[old].uid.clone();
    let writer = Writer::start(cluster.proxy()).await;
    let direct = Writer::start(cluster.keepers[old].target()).await;
    let server = writer.server();
    cluster.keepers[old].daemon.process().signal(signal);
    let keys = eventually("the guard ends PostgreSQL", DEADLINE, async || match cluster.keepers[old].postmaster() {
        None => cluster.keys().await,
        Some(pid) => Err(format!("it runs as {pid}")),
    })
    .await;
    assert!(keys.keepers.contains_key(&uid), "its lease has ended before: {:?}", keys.keepers.keys());
    let commits = direct.count();
    eventually("the guard says that it was it", Duration::from_secs(5), async || {
        let log = cluster.keepers[old].daemon.log();
        if log.contains("guard: no authority any more") { Ok(()) } else { Err("nothing in the log") }
    })
    .await;
    writer.moves_from(&server, MOVE).await;
    during("nobody commits on the old primary", Duration::from_secs(2), async || {
        if direct.count() == commits { Ok(()) } else { Err("a direct connection committed") }
    })
    .await;
    let (new, next) = cluster.primary().await;
    assert!(new != old && next == epoch + 1, "keeper {new} in epoch {next}");
    match signal {
        Signal::STOP => cluster.keepers[old].daemon.process().signal(Signal::CONT),
        _ => cluster.start_keeper(old),
    }
    cluster.settled().await;
    // What had no time to reach the standby when all processes were killed at once.
    writer.finish().await.is_clean_but_for(3);
    drop(direct);
}

#[test]
fn a_keeper_that_comes_back_late_but_in_time_adopts_and_the_guard_lets_postgres_live() {
    run("guard-late", Weight::Cluster, async |test| {
        let mut cluster = pair(test).await;
        let (primary, epoch) = cluster.primary().await;
        let (postmaster, guard) = both(&cluster.keepers[primary]);
        let writer = Writer::start(cluster.proxy()).await;
        let cuts = writer.cut();
        cluster.keepers[primary].daemon.process().kill();
        // Longer than a keeper without the guard's word would dare, shorter than the deadline.
        during("PostgreSQL runs on without its keeper", Duration::from_millis(2300), async || {
            if proc::alive(postmaster) { Ok(()) } else { Err("it has ended") }
        })
        .await;
        cluster.start_keeper(primary);
        unchanged(&cluster, primary, epoch, postmaster).await;
        assert_eq!(cluster.keepers[primary].guard(), Some(guard), "the guard was taken over");
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        writer.finish().await.is_clean();
    });
}

#[test]
fn a_killed_guard_is_replaced_and_a_frozen_one_too_and_nothing_else_happens() {
    run("guard-killed", Weight::Cluster, async |test| {
        let cluster = pair(test).await;
        let (primary, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let cuts = writer.cut();
        for signal in [Signal::KILL, Signal::STOP] {
            let (postmaster, guard) = both(&cluster.keepers[primary]);
            proc::signal(guard, signal);
            eventually("another guard", Duration::from_secs(6), async || match cluster.keepers[primary].guard() {
                Some(pid) if pid != guard && !proc::alive(guard) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
            unchanged(&cluster, primary, epoch, postmaster).await;
        }
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        writer.finish().await.is_clean();
    });
}

/// R12: then only proxies stand between clients and the old primary.
#[test]
fn with_keeper_and_guard_frozen_proxies_alone_keep_clients_from_two_primaries() {
    run("guard-frozen", Weight::Cluster, async |test| {
        let mut cluster = pair(test).await;
        let (old, _) = cluster.primary().await;
        let (postmaster, guard) = both(&cluster.keepers[old]);
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        proc::signal(guard, Signal::STOP);
        cluster.keepers[old].daemon.process().signal(Signal::STOP);
        writer.moves_from(&server, MOVE).await;
        assert!(proc::alive(postmaster), "nobody was there to end it");
        // Awake, the guard finds its deadline over.
        proc::signal(guard, Signal::CONT);
        eventually("the guard ends PostgreSQL", Duration::from_secs(3), async || {
            if proc::alive(postmaster) { Err("it runs") } else { Ok(()) }
        })
        .await;
        cluster.keepers[old].daemon.process().signal(Signal::CONT);
        cluster.settled().await;
        writer.finish().await.is_clean_but_for(3);
    });
}

#[test]
fn with_keeper_and_guard_killed_proxies_alone_keep_clients_from_two_primaries() {
    run("guard-and-keeper-killed", Weight::Cluster, async |test| {
        let mut cluster = pair(test).await;
        let (old, _) = cluster.primary().await;
        let (postmaster, guard) = both(&cluster.keepers[old]);
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        cluster.keepers[old].daemon.process().kill();
        proc::signal(guard, Signal::KILL);
        writer.moves_from(&server, MOVE).await;
        assert!(proc::alive(postmaster), "nobody was there to end it");
        cluster.start_keeper(old);
        eventually("its next keeper ends PostgreSQL", Duration::from_secs(5), async || {
            if proc::alive(postmaster) { Err("it runs") } else { Ok(()) }
        })
        .await;
        cluster.settled().await;
        writer.finish().await.is_clean_but_for(3);
    });
}

fn both(keeper: &Keeper) -> (u32, u32) {
    let (postmaster, guard) = (keeper.postmaster(), keeper.guard());
    postmaster.zip(guard).unwrap_or_else(|| panic!("{}: postmaster {postmaster:?}, guard {guard:?}", keeper.uid))
}

/// Longer than any lease or deadline that stood before.
async fn unchanged(cluster: &Cluster, primary: usize, epoch: u64, postmaster: u32) {
    let expected = (cluster.keepers[primary].uid.clone(), epoch);
    during("the same primary in the same epoch", Duration::from_secs(7), async || {
        let now = cluster.keys().await?.serving()?;
        match cluster.keepers[primary].postmaster() {
            Some(pid) if pid == postmaster && now == expected => Ok(()),
            other => Err(format!("{now:?}, postmaster {other:?}")),
        }
    })
    .await;
}
