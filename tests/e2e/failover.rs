//! The primary dies or freezes under a writing client: a standby takes over in a new epoch, old connections are cut, and
//! the old primary comes back as a standby. Gaps are printed as `GAP kind milliseconds`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stolon_tests::{
    Cluster, ClusterOptions, Keeper, Weight, eventually, run, runner::report, sql::Target, writer::Writer,
};

/// What happens to the primary, and how it comes back.
struct Strike {
    kind: &'static str,
    hit: fn(&mut Keeper),
    /// After the failover; `true` when its keeper must be started again.
    heal: fn(&mut Keeper) -> bool,
    /// Far above the measured gaps (this machine is shared), and below the 5 s of PostgreSQL's retry interval.
    bound: Duration,
    /// Rows that asynchronous replication may lose: those that were flushed and acknowledged in the instant between the
    /// death of the WAL sender and that of the client's backend.
    may_lose: usize,
    /// Whether the old primary may take rows of direct clients when it comes back, until it is told (R12).
    wakes: bool,
}

/// How often the same cluster is struck; more by E2E_TRIALS, for measurements.
fn trials() -> usize {
    std::env::var("E2E_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn a_standby_takes_over_when_the_postmaster_is_killed() {
    let strike = Strike {
        kind: "postgres",
        hit: |keeper| keeper.kill_postgres(),
        heal: |_| false,
        bound: Duration::from_secs(4),
        may_lose: 1,
        wakes: false,
    };
    run("failover-postgres", Weight::Heavy, async |test| under_writer(test, strike, 2.max(trials())).await);
}

#[test]
fn a_standby_takes_over_when_keeper_and_postgres_are_killed() {
    let strike = Strike {
        kind: "keeper-and-postgres",
        hit: |keeper| keeper.signal_all(Signal::KILL),
        heal: |_| true,
        bound: Duration::from_secs(4),
        may_lose: 3,
        wakes: false,
    };
    run("failover-keeper-and-postgres", Weight::Heavy, async |test| under_writer(test, strike, trials()).await);
}

#[test]
fn a_standby_takes_over_when_all_processes_of_the_primary_freeze() {
    let strike = Strike {
        kind: "frozen",
        hit: |keeper| keeper.signal_all(Signal::STOP),
        heal: |keeper| {
            keeper.signal_all(Signal::CONT);
            false
        },
        bound: Duration::from_secs(9),
        may_lose: 3,
        wakes: true,
    };
    run("failover-frozen", Weight::Heavy, async |test| under_writer(test, strike, trials()).await);
}

#[test]
fn a_frozen_proxy_neither_holds_the_failover_up_nor_leads_anybody_astray() {
    run("failover-frozen-proxy", Weight::Cluster, async |test| {
        let options = ClusterOptions { keepers: 2, proxies: 2, ..Default::default() };
        let mut cluster = Cluster::start(test, options).await;
        let frozen = Target::loopback(cluster.proxy_ports[1]);
        eventually("the second proxy leads to the primary", Duration::from_secs(20), async || {
            frozen.value("SELECT pg_is_in_recovery()").await
        })
        .await;
        let held = hold(&frozen, 3).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await.beside(cluster.servers()).await;
        let (server, at) = (writer.server(), Instant::now());
        cluster.proxies[1].process().signal(Signal::STOP);
        cluster.keepers[old].signal_all(Signal::STOP);
        writer.moves_from(&server, Duration::from_secs(40)).await;
        writer.report_gap("frozen-with-frozen-proxy", at);
        // The old primary wakes up before the proxy that has connections to it.
        let woken = Instant::now();
        cluster.keepers[old].signal_all(Signal::CONT);
        cluster.proxies[1].process().signal(Signal::CONT);
        eventually("the thawed proxy cuts what led to the old primary", Duration::from_secs(5), async || {
            let open = held.iter().filter(|client| !client.is_closed()).count();
            if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
        })
        .await;
        let second = Writer::start(frozen).await;
        let (new, next) = cluster.settled().await;
        assert!(new != old && next > epoch, "keeper {new} in epoch {next}");
        assert_eq!(second.server(), writer.server(), "both proxies lead to one primary");
        second.finish().await.is_clean();
        let verdict = writer.finish().await;
        verdict.is_clean_but_for(3);
        verdict.had_one_primary(&[woken]);
    });
}

async fn under_writer(test: stolon_tests::Test, strike: Strike, trials: usize) {
    let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
    let writer = Writer::start(cluster.proxy()).await.beside(cluster.servers()).await;
    let mut woken = Vec::new();
    for _ in 0..trials {
        woken.push(once(&mut cluster, &writer, &strike).await);
    }
    let verdict = writer.finish().await;
    report(&format!("LOST {} {} of {}", strike.kind, verdict.lost.len(), verdict.acknowledged));
    verdict.is_clean_but_for(strike.may_lose * trials);
    verdict.had_one_primary(if strike.wakes { &woken } else { &[] });
}

/// Gives the moment when the old primary was healed.
async fn once(cluster: &mut Cluster, writer: &Writer, strike: &Strike) -> Instant {
    let (old, epoch) = cluster.primary().await;
    let server = writer.server();
    let held = hold(&cluster.proxy(), 3).await;
    let at = Instant::now();
    (strike.hit)(&mut cluster.keepers[old]);
    writer.moves_from(&server, Duration::from_secs(30)).await;
    writer.flows().await;
    let gap = writer.report_gap(strike.kind, at);

    let (new, next) = cluster.primary().await;
    assert!(new != old && next > epoch, "keeper {old} in epoch {epoch}, then keeper {new} in epoch {next}");
    let keys = cluster.keys().await.unwrap();
    assert_eq!(keys.highest_epoch, Some(next), "the highest epoch is kept beside the cluster data");
    eventually("all old connections are cut", Duration::from_secs(2), async || {
        let open = held.iter().filter(|client| !client.is_closed()).count();
        if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
    assert!(gap < strike.bound, "{}: the gap of {gap:?} is over {:?}", strike.kind, strike.bound);

    let healed = Instant::now();
    if (strike.heal)(&mut cluster.keepers[old]) {
        cluster.start_keeper(old);
    }
    cluster.settled().await;
    let back = cluster.keepers[old].target().value("SELECT pg_is_in_recovery()").await;
    assert_eq!(back.as_deref(), Ok("t"), "the old primary is a standby");
    healed
}

/// Connections through the proxy that do nothing.
async fn hold(proxy: &Target, count: usize) -> Vec<tokio_postgres::Client> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(proxy.connect(Duration::from_secs(5)).await.unwrap());
    }
    held
}
