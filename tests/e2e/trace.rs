//! One failover is one trace, across the sentinel, the keepers and the proxy, also when the leading sentinel dies in its
//! middle; and without a collector nothing floods the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rustix::process::Signal;
use stolon_tests::{
    Cluster, ClusterOptions, Weight,
    collector::{Collector, Span},
    eventually, run,
    writer::Writer,
};

const STEPS: [&str; 8] = ["detected", "marked", "recruited", "fenced", "chosen", "committed", "promoted", "routed"];
/// Exporters send what they have every few seconds.
const EXPORT: Duration = Duration::from_secs(20);

fn traced(collector: &Collector) -> ClusterOptions {
    let common = vec!["--otlp-endpoint".to_owned(), collector.endpoint.clone()];
    ClusterOptions { keepers: 3, sentinels: 2, common, ..Default::default() }
}

/// The spans of the one trace that holds a `routed` for `epoch`, once every step is there.
async fn trace_of(collector: &Collector, epoch: u64) -> Vec<Span> {
    let epoch = epoch.to_string();
    eventually("the failover's whole trace", EXPORT, async || {
        let spans = collector.spans();
        let of_epoch = |span: &&Span| span.name == "routed" && span.attributes.get("epoch") == Some(&epoch);
        let traces: BTreeSet<_> = spans.iter().filter(of_epoch).map(|span| span.trace.clone()).collect();
        let [trace] = traces.iter().collect::<Vec<_>>()[..] else {
            let names: BTreeSet<_> = spans.iter().map(|span| (&span.service, &span.name)).collect();
            return Err(format!("{} traces hold `routed` of epoch {epoch}; received: {names:?}", traces.len()));
        };
        let spans = collector.trace(trace);
        let missing: Vec<_> = STEPS.iter().filter(|step| !spans.iter().any(|span| span.name == **step)).collect();
        if missing.is_empty() { Ok(spans) } else { Err(format!("missing {missing:?} in {spans:#?}")) }
    })
    .await
}

/// True when `ancestor` is on the way from the span to its root.
fn under(spans: &BTreeMap<&str, &Span>, span: &Span, ancestor: &str) -> bool {
    let mut at = Some(span);
    for _ in 0..spans.len() {
        at = at.and_then(|span| spans.get(span.parent.as_str()).copied());
        match at {
            Some(span) if span.name == ancestor => return true,
            None => return false,
            _ => {}
        }
    }
    false
}

fn assert_tree(spans: &[Span], old_epoch: u64, new_epoch: u64) {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let detected = named("detected");
    assert_eq!(detected.len(), 1, "one failover is detected once: {detected:#?}");
    for (step, ancestor) in [
        ("marked", "detected"),
        ("recruited", "detected"),
        ("fenced", "detected"),
        ("chosen", "detected"),
        ("committed", "detected"),
        ("promoted", "committed"),
        ("routed", "promoted"),
    ] {
        for span in named(step) {
            assert!(under(&by_id, span, ancestor), "{step} is not under {ancestor}: {span:#?}");
        }
    }
    for step in STEPS {
        for span in named(step) {
            let epoch = span.attributes.get("epoch").unwrap_or_else(|| panic!("no epoch: {span:#?}"));
            assert!([old_epoch.to_string(), new_epoch.to_string()].contains(epoch), "{span:#?}");
            assert!(span.end >= span.start);
        }
    }
    let service = |step: &str| named(step).iter().map(|span| span.service.clone()).collect::<BTreeSet<_>>();
    for (step, program) in [("committed", "sentinel"), ("promoted", "keeper"), ("routed", "proxy")] {
        let services = service(step);
        assert!(services.iter().all(|name| name.contains(program)), "{step} comes from {services:?}");
    }
    let start = |step: &str| named(step).iter().map(|span| span.start).min().unwrap();
    // One machine, one clock: the steps stand in their order.
    for pair in ["detected", "marked", "committed", "promoted", "routed"].windows(2) {
        assert!(start(pair[0]) <= start(pair[1]), "{} starts after {}", pair[0], pair[1]);
    }
}

#[test]
fn one_failover_is_one_trace_across_sentinel_keepers_and_proxy() {
    run("trace", Weight::Cluster, async |test| {
        let collector = Collector::start().await;
        let cluster = Cluster::start(test, traced(&collector)).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        cluster.keepers[old].kill_postgres();
        writer.moves_from(&server, Duration::from_secs(15)).await;
        let (_, next) = cluster.primary().await;
        assert_tree(&trace_of(&collector, next).await, epoch, next);
        writer.finish().await.is_clean_but_for(1);
    });
}

#[test]
fn a_successor_of_a_dead_leader_continues_the_same_trace() {
    run("trace-leader-killed", Weight::Cluster, async |test| {
        let collector = Collector::start().await;
        let mut cluster = Cluster::start(test, traced(&collector)).await;
        let (old, epoch) = cluster.primary().await;
        let leader = cluster.leader().await;
        // One standby whose keeper is frozen just now: the failover waits a moment for its recruit, with the mark in etcd.
        let frozen = (0..3).find(|i| *i != old).unwrap();
        cluster.keepers[frozen].daemon.process().signal(Signal::STOP);
        cluster.keepers[old].kill_postgres();
        let mark = eventually("the mark is in etcd", Duration::from_secs(10), async || {
            let keys = cluster.keys().await?;
            keys.data.as_ref().and_then(|data| data.fencing().cloned()).ok_or("no mark".to_owned())
        })
        .await;
        cluster.sentinels[leader].process().kill();
        cluster.keepers[frozen].daemon.process().signal(Signal::CONT);
        let (new, next) = cluster.primary().await;
        assert!(new != old && next > epoch, "keeper {new} in epoch {next}");
        let trace = mark.traceparent.split('-').nth(1).unwrap_or_default().to_owned();
        assert_eq!(trace.len(), 32, "the mark carries the context: {mark:?}");
        let spans = eventually("the successor's spans in the dead leader's trace", EXPORT, async || {
            let spans = collector.trace(&trace);
            let has = |name: &str| spans.iter().any(|span| span.name == name);
            match ["chosen", "committed", "promoted", "routed"].iter().find(|name| !has(name)) {
                None => Ok(spans),
                Some(missing) => Err(format!("no {missing} in {spans:#?}")),
            }
        })
        .await;
        let committed = spans.iter().find(|span| span.name == "committed").unwrap();
        assert_eq!(committed.attributes.get("epoch").map(String::as_str), Some(next.to_string().as_str()));
    });
}

#[test]
fn without_its_collector_nothing_floods_the_log() {
    run("trace-no-collector", Weight::Cluster, async |test| {
        let gone = format!("http://127.0.0.1:{}", stolon_tests::ports::free_port());
        let env = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), gone)];
        let cluster = Cluster::start(test, ClusterOptions { keepers: 2, env, ..Default::default() }).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        let at = std::time::Instant::now();
        cluster.keepers[old].kill_postgres();
        writer.moves_from(&server, Duration::from_secs(15)).await;
        assert!(writer.gap(at) < Duration::from_secs(4), "a missing collector slows nothing");
        assert!(cluster.settled().await.1 > epoch);
        // Several rounds of the exporter.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let keepers = cluster.keepers.iter().map(|keeper| &keeper.daemon);
        for daemon in keepers.chain(&cluster.sentinels).chain(&cluster.proxies) {
            let log = daemon.log().to_lowercase();
            let about: Vec<_> =
                log.lines().filter(|line| line.contains("otlp") || line.contains("opentelemetry")).collect();
            assert!(about.len() <= 3, "{} lines in the log of {}: {about:#?}", about.len(), daemon.name);
        }
        writer.finish().await.is_clean_but_for(1);
    });
}
