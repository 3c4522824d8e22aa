//! A cluster that is bothered for an hour and must not fail over: one nuisance after the other under a writing client,
//! after each of them the same primary in the same epoch with every acknowledged row. Results come as JSON lines.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use stolon_tests::{Test, netns::Network};

use crate::{
    client::{Load, Style},
    gap::longest,
    hosts::{Hosts, Setup},
    kinds::Mode,
    nuisance::Nuisance,
    record::Folder,
    run::{said, specification},
    trial::{ms, unix_seconds},
};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nuisances: Vec<Nuisance>,
    pub mode: Mode,
    pub span: Duration,
    /// Of one nuisance in a row.
    pub turn: Duration,
}

/// One turn of one nuisance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub nuisance: Nuisance,
    pub mode: Mode,
    /// Seconds since 1970, of its end.
    pub at: u64,
    pub seconds: f64,
    pub acknowledged: usize,
    pub lost: usize,
    pub longest_gap_ms: f64,
    pub epoch_before: u64,
    pub epoch_after: u64,
    /// What went wrong, in one line; empty when nothing did.
    pub problem: String,
}

pub const FILE: &str = "soak.jsonl";
const WARM: usize = 100;

/// Runs for the whole span, whatever happens. To be called inside the switch's namespace. False when there was a failover
/// or a row was lost.
pub async fn run(plan: &Plan, folder: &Folder, network: &Network) -> Result<Vec<Turn>, String> {
    let end = Instant::now() + plan.span;
    let (mut turns, mut hosts, mut clusters) = (Vec::new(), None, 0);
    for nuisance in plan.nuisances.iter().copied().cycle() {
        if Instant::now() >= end {
            break;
        }
        let attempt = AssertUnwindSafe(one(plan, nuisance, network, &mut hosts, &mut clusters)).catch_unwind().await;
        let turn = attempt.unwrap_or_else(|panic| {
            let problem = said(panic.as_ref());
            Turn { problem, ..Turn::begun(nuisance, plan.mode) }
        });
        println!("{turn}");
        folder.append(FILE, &turn)?;
        if !turn.problem.is_empty()
            && let Some(hosts) = hosts.take()
        {
            println!("  logs are kept in {}", folder.keep_logs(hosts.folder())?.display());
        }
        turns.push(turn);
    }
    Ok(turns)
}

async fn one<'n>(
    plan: &Plan,
    nuisance: Nuisance,
    network: &'n Network,
    hosts: &mut Option<Hosts<'n>>,
    clusters: &mut usize,
) -> Turn {
    let synchronous = plan.mode == Mode::Sync;
    let hosts = match hosts {
        Some(hosts) => hosts,
        None => {
            *clusters += 1;
            let setup = Setup { spec: specification(plan.mode), collector: None, disks: true };
            let test = Test::standalone(&format!("soak-{}-{clusters}", plan.mode));
            hosts.insert(Hosts::start(test, network, setup).await)
        }
    };
    let (primary, epoch_before) = hosts.whole(synchronous).await;
    let style = Style { targets: vec![hosts.proxy()], writers: 1, pause: Duration::from_millis(10) };
    let load = Load::start(&style, WARM).await;
    let began = Instant::now();
    nuisance.bother(hosts, primary, plan.turn).await;
    load.flows(1, WARM, Instant::now()).await;
    let seconds = began.elapsed().as_secs_f64();
    let written = load.stop().await;
    let (after, epoch_after) = hosts.whole(synchronous).await;
    let lost = written.lost(&hosts.proxy()).await;
    let mut problem = String::new();
    if (after, epoch_after) != (primary, epoch_before) {
        problem =
            format!("a failover: host {primary} in epoch {epoch_before}, then host {after} in epoch {epoch_after}");
    } else if lost > 0 {
        problem = format!("{lost} acknowledged rows are gone");
    }
    let longest_gap_ms = longest(&written.acks, began).map_or(0.0, |gap| ms(gap.length()));
    let acknowledged = written.acks.len();
    let begun = Turn::begun(nuisance, plan.mode);
    Turn { seconds, acknowledged, lost, longest_gap_ms, epoch_before, epoch_after, problem, ..begun }
}

impl Turn {
    fn begun(nuisance: Nuisance, mode: Mode) -> Turn {
        Turn {
            nuisance,
            mode,
            at: unix_seconds(),
            seconds: 0.0,
            acknowledged: 0,
            lost: 0,
            longest_gap_ms: 0.0,
            epoch_before: 0,
            epoch_after: 0,
            problem: String::new(),
        }
    }
}

impl std::fmt::Display for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (nuisance, seconds, gap) = (self.nuisance, self.seconds, self.longest_gap_ms);
        write!(f, "{nuisance}: {seconds:.0} s, {} rows acknowledged, longest gap {gap:.0} ms, ", self.acknowledged)?;
        match self.problem.as_str() {
            "" => write!(f, "no failover (epoch {})", self.epoch_after),
            problem => write!(f, "PROBLEM: {problem}"),
        }
    }
}

/// One line per nuisance, and the verdict.
pub fn summary(turns: &[Turn]) -> String {
    let mut kinds: Vec<Nuisance> = turns.iter().map(|turn| turn.nuisance).collect();
    kinds.sort();
    kinds.dedup();
    let mut out = String::new();
    for kind in kinds {
        let of: Vec<&Turn> = turns.iter().filter(|turn| turn.nuisance == kind).collect();
        let minutes = of.iter().map(|turn| turn.seconds).sum::<f64>() / 60.0;
        let gap = of.iter().map(|turn| turn.longest_gap_ms).fold(0.0, f64::max);
        let bad = of.iter().filter(|turn| !turn.problem.is_empty()).count();
        out += &format!(
            "{:<13} {:>3} turns {minutes:>6.1} min, longest gap {gap:>6.0} ms, {bad} problems\n",
            kind.to_string(),
            of.len()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_line_per_nuisance_with_its_worst_gap_and_its_problems() {
        let turn = |nuisance, gap, problem: &str| Turn {
            seconds: 90.0,
            longest_gap_ms: gap,
            problem: problem.into(),
            ..Turn::begun(nuisance, Mode::Async)
        };
        let turns = [
            turn(Nuisance::Loss, 210.0, ""),
            turn(Nuisance::Cpu, 40.0, ""),
            turn(Nuisance::Loss, 90.0, "a failover: x"),
        ];
        let summary = summary(&turns);
        let lines: Vec<Vec<&str>> = summary.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["cpu", "1", "turns", "1.5", "min,", "longest", "gap", "40", "ms,", "0", "problems"]);
        assert_eq!(lines[1], ["loss", "2", "turns", "3.0", "min,", "longest", "gap", "210", "ms,", "1", "problems"]);
        assert!(turns[2].to_string().ends_with("PROBLEM: a failover: x"), "{}", turns[2]);
    }
}
