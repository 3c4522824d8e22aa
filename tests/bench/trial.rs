//! One trial: a whole cluster under clients, a strike, the first acknowledgement after it, the cluster mended, the rows
//! counted. What goes wrong panics with one line; the caller turns that into a failure.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stolon_tests::collector::{Collector, Span};

use crate::{
    client::{Load, Style, Written},
    gap::{Gap, gap, slowest},
    hosts::{DATABASES, Hosts},
    kinds::{Handover, Kind, Mode},
    phases::{self, Phase},
    ready::Ready,
    record::Trial,
};

/// Rows that each client has acknowledged before the strike: more than a second's worth.
const WARM: usize = 150;
/// Rows that each client has acknowledged afterwards.
const AFTER: usize = 20;
/// Longer than any lease and any interval together.
const TAKEOVER: Duration = Duration::from_secs(60);
/// Exporters send twice a second; a host that was cut off sends later, or never.
const TRACE: Duration = Duration::from_secs(5);

/// What the strike was, by two clocks.
struct Struck {
    instant: Instant,
    wall: SystemTime,
}

pub async fn trial(hosts: &mut Hosts<'_>, collector: &Collector, kind: Kind, mode: Mode, by: Handover) -> Trial {
    let synchronous = mode == Mode::Sync;
    let (primary, epoch) = hosts.whole(synchronous).await;
    hosts.arrange(primary, kind.together()).await;
    assert_eq!(hosts.whole(synchronous).await, (primary, epoch), "arranging the leaders caused a failover");
    let (writers, pause) = kind.writers();
    let load = Load::start(&Style { targets: vec![hosts.proxy()], writers, pause }, WARM).await;
    let old = load.timeline();
    let elsewhere = hosts.stage.etcd.client_of((primary + 1) % DATABASES).await;
    let elsewhere = elsewhere.unwrap_or_else(|error| panic!("etcd beside the primary's host: {error}"));
    let ready = Ready::watch(elsewhere).await.unwrap_or_else(|error| panic!("a watch of etcd: {error}"));
    let pressure = pressure();
    let victims = kind.victims(hosts, primary);
    let struck = Struck { instant: Instant::now(), wall: SystemTime::now() };
    if let Err(error) = kind.strike(hosts, primary, &victims, by) {
        panic!("{error}");
    }
    load.moves_on(old, TAKEOVER).await;
    load.flows(writers, AFTER, Instant::now()).await;
    let written = load.stop().await;
    let (now, next) = hosts.primary().await;
    hosts.stage.mend(primary);
    hosts.whole(synchronous).await;
    let gap = gap(&written.acks, struck.instant).expect("rows were acknowledged before and after");
    let lost = written.lost(&hosts.proxy()).await;
    let phases = told(collector, next, &struck, &ready, gap).await;
    let slowest = slowest(&written.acks, writers, struck.instant).unwrap_or(gap.length());
    let outcome = Outcome { gap, slowest, lost, in_place: now == primary, pressure, phases };
    outcome.into_trial(kind, mode, by, &written)
}

struct Outcome {
    gap: Gap,
    slowest: Duration,
    lost: usize,
    in_place: bool,
    pressure: f64,
    phases: Vec<Phase>,
}

impl Outcome {
    fn into_trial(self, kind: Kind, mode: Mode, by: Handover, written: &Written) -> Trial {
        Trial {
            kind,
            mode,
            by: kind.planned().then_some(by),
            at: unix_seconds(),
            gap_ms: ms(self.gap.length()),
            slowest_ms: ms(self.slowest),
            acknowledged: written.acks.len(),
            lost: self.lost,
            pressure: self.pressure,
            in_place: self.in_place,
            phases: self.phases,
        }
    }
}

/// The breakdown; empty when the trace does not arrive in time, which spoils no figure.
async fn told(collector: &Collector, epoch: u64, struck: &Struck, ready: &Ready, gap: Gap) -> Vec<Phase> {
    let Some(spans) = whole_trace(collector, epoch).await else { return Vec::new() };
    let mut told = phases::phases(&spans, struck.wall);
    if let Some(at) = ready.after(struck.wall).and_then(|at| at.duration_since(struck.wall).ok()) {
        phases::add(&mut told, "ready", ms(at));
    }
    phases::add(&mut told, "first write", ms(gap.to.saturating_duration_since(struck.instant)));
    told
}

async fn whole_trace(collector: &Collector, epoch: u64) -> Option<Vec<Span>> {
    let start = Instant::now();
    loop {
        match phases::trace_of(&collector.spans(), epoch) {
            Ok(spans) => return Some(spans),
            Err(missing) if start.elapsed() > TRACE => {
                println!("  no breakdown: after {} s {missing}", TRACE.as_secs());
                return None;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// What the kernel says about waiting for processors; 0 where it does not tell.
pub fn pressure() -> f64 {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let average = text.split_whitespace().find_map(|word| word.strip_prefix("avg10="));
    average.and_then(|average| average.parse().ok()).unwrap_or(0.0)
}

pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
