//! Where the time of one failover went: the ends of its steps, from the trace that all daemons sent, counted from the
//! strike. All hosts of a trial are one machine with one clock; nowhere else may clocks be compared like this.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use stolon_tests::collector::Span;

/// A step, and milliseconds from the strike to its end (of `detected` to its begin, which is the news itself).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub at_ms: f64,
}

/// The steps in the order of the protocol; `ready` and `first write` are seen from outside.
pub const STEPS: [&str; 10] =
    ["detected", "marked", "fenced", "recruited", "chosen", "committed", "promoted", "ready", "routed", "first write"];

/// The spans of the trace that led to `epoch`; an error says what is missing so far.
pub fn trace_of(spans: &[Span], epoch: u64) -> Result<Vec<Span>, String> {
    let epoch = epoch.to_string();
    let of_epoch = |span: &&Span| span.name == "routed" && span.attributes.get("epoch") == Some(&epoch);
    let traces: BTreeSet<&str> = spans.iter().filter(of_epoch).map(|span| span.trace.as_str()).collect();
    let trace = traces.first().ok_or_else(|| format!("no `routed` of epoch {epoch} among {} spans", spans.len()))?;
    let spans: Vec<Span> = spans.iter().filter(|span| span.trace == *trace).cloned().collect();
    match ["chosen", "committed", "promoted"].iter().find(|name| !spans.iter().any(|span| span.name == **name)) {
        None => Ok(spans),
        Some(missing) => Err(format!("no `{missing}` in the trace of epoch {epoch}")),
    }
}

/// The steps that the trace tells, in order. A step that it lacks is left out.
pub fn phases(spans: &[Span], struck: SystemTime) -> Vec<Phase> {
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let ends = |name: &str| named(name).iter().map(|span| span.end).collect::<Vec<_>>();
    let chosen = ends("chosen").into_iter().max();
    STEPS
        .iter()
        .filter_map(|name| {
            let at = match *name {
                "detected" | "routed" => named(name).iter().map(|span| span.start).min(),
                // Proxies tell it about themselves; the sentinel's span is the wait for them.
                "fenced" => named(name).iter().filter(|span| span.service.contains("proxy")).map(|span| span.end).max(),
                // Those who came later were not waited for.
                "recruited" => {
                    let all = ends(name);
                    let counted = all.iter().filter(|end| chosen.is_none_or(|chosen| **end <= chosen)).max();
                    counted.or(all.iter().min()).copied()
                }
                "ready" | "first write" => None,
                _ => ends(name).into_iter().max(),
            };
            Some(Phase { name: (*name).to_owned(), at_ms: since(struck, at?) })
        })
        .collect()
}

/// Puts a step that was seen from outside where it belongs.
pub fn add(phases: &mut Vec<Phase>, name: &str, at_ms: f64) {
    phases.push(Phase { name: name.to_owned(), at_ms });
    let place = |phase: &Phase| STEPS.iter().position(|step| *step == phase.name);
    phases.sort_by_key(place);
}

/// Milliseconds; negative when it came before.
fn since(struck: SystemTime, unix_nanos: u64) -> f64 {
    let struck = struck.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (Duration::from_nanos(unix_nanos).as_secs_f64() - struck.as_secs_f64()) * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, service: &str, trace: &str, ms: (u64, u64)) -> Span {
        let mut span = Span { name: name.into(), service: service.into(), trace: trace.into(), ..Span::default() };
        (span.start, span.end) = (ms.0 * 1_000_000, ms.1 * 1_000_000);
        span.attributes.insert("epoch".into(), if trace == "old" { "1".into() } else { "2".into() });
        span
    }

    #[test]
    fn steps_are_counted_from_the_strike_and_late_recruits_do_not_count() {
        let spans = [
            span("detected", "stolon-sentinel", "new", (1010, 1015)),
            span("fenced", "stolon-sentinel", "new", (1016, 1090)),
            span("fenced", "stolon-proxy", "new", (1016, 1020)),
            span("recruited", "stolon-keeper", "new", (1016, 1030)),
            span("recruited", "stolon-keeper", "new", (1016, 1500)),
            span("chosen", "stolon-sentinel", "new", (1016, 1031)),
            span("committed", "stolon-sentinel", "new", (1031, 1035)),
            span("promoted", "stolon-keeper", "new", (1036, 1100)),
            span("routed", "stolon-proxy", "new", (1110, 1110)),
            span("routed", "stolon-proxy", "old", (10, 10)),
        ];
        let found = trace_of(&spans, 2).unwrap();
        assert_eq!(found.len(), 9);
        let mut told = phases(&found, UNIX_EPOCH + Duration::from_secs(1));
        add(&mut told, "first write", 120.0);
        add(&mut told, "ready", 105.0);
        let names: Vec<_> = told.iter().map(|phase| phase.name.as_str()).collect();
        let wanted: Vec<_> = STEPS.iter().copied().filter(|step| *step != "marked").collect();
        assert_eq!(names, wanted);
        let at: Vec<_> = told.iter().map(|phase| phase.at_ms.round()).collect();
        assert_eq!(at, [10.0, 20.0, 30.0, 31.0, 35.0, 100.0, 105.0, 110.0, 120.0]);
    }

    #[test]
    fn a_trace_without_its_end_is_not_taken() {
        let spans = [span("routed", "stolon-proxy", "new", (1, 1)), span("chosen", "stolon-sentinel", "new", (1, 1))];
        assert!(trace_of(&spans, 2).unwrap_err().contains("committed"));
        assert!(trace_of(&spans, 3).unwrap_err().contains("epoch 3"));
    }
}
