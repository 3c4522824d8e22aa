//! From records to rows: one per mode and kind, with its aim and the breakdown of its median trial. Pure.

use serde::Serialize;

use crate::{
    kinds::{Handover, Kind, Mode},
    phases::Phase,
    record::{Records, Trial},
    stats::{Summary, nearest_to_median},
};

/// What one mode and kind came to.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub kind: Kind,
    pub mode: Mode,
    /// How handovers were asked for; several when runs differed.
    pub by: Vec<Handover>,
    /// Milliseconds.
    pub gap: Summary,
    /// Of several writers: what the slowest to come back waited.
    pub slowest: Option<Summary>,
    /// Median over the floor's median, of interleaved trials.
    pub to_floor: Option<f64>,
    pub lost: usize,
    pub acknowledged: usize,
    /// Trials in which the former primary's server went on.
    pub in_place: usize,
    pub failed: usize,
    /// One sentence for each aim that was missed.
    pub missed: Vec<String>,
    /// Of the trial nearest to the median that has a trace.
    pub breakdown: Option<Breakdown>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Breakdown {
    pub gap_ms: f64,
    pub phases: Vec<Phase>,
}

/// The floor of one mode.
#[derive(Clone, Debug, Serialize)]
pub struct FloorRow {
    pub mode: Mode,
    pub gap: Summary,
    pub lost: usize,
    pub acknowledged: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
    pub floor: Vec<FloorRow>,
    /// Of all trials: how busy others kept the processors, in percent.
    pub pressure: Option<Summary>,
}

const MODES: [Mode; 2] = [Mode::Async, Mode::Sync];

impl Report {
    pub fn of(records: &Records) -> Report {
        let kinds = <Kind as clap::ValueEnum>::value_variants();
        let floor: Vec<FloorRow> = MODES.iter().filter_map(|mode| floor(records, *mode)).collect();
        let rows = MODES.iter().flat_map(|mode| kinds.iter().filter_map(|kind| row(records, *mode, *kind, &floor)));
        let pressures = records.trials.iter().map(|trial| trial.pressure);
        let pressures: Vec<f64> = pressures.chain(records.floor.iter().map(|trial| trial.pressure)).collect();
        Report { rows: rows.collect(), floor: floor.clone(), pressure: Summary::of(&pressures) }
    }

    /// Rows that synchronous replication lost, which it never may.
    pub fn lost_in_sync(&self) -> usize {
        self.rows.iter().filter(|row| row.mode == Mode::Sync).map(|row| row.lost).sum()
    }
}

fn floor(records: &Records, mode: Mode) -> Option<FloorRow> {
    let trials = records.floor_of(mode);
    let gaps: Vec<f64> = trials.iter().map(|trial| trial.gap_ms).collect();
    let sum = |of: fn(&crate::record::FloorTrial) -> usize| trials.iter().map(|trial| of(trial)).sum();
    Some(FloorRow {
        mode,
        gap: Summary::of(&gaps)?,
        lost: sum(|trial| trial.lost),
        acknowledged: sum(|trial| trial.acknowledged),
    })
}

fn row(records: &Records, mode: Mode, kind: Kind, floor: &[FloorRow]) -> Option<Row> {
    let trials = records.of(mode, kind);
    let gaps: Vec<f64> = trials.iter().map(|trial| trial.gap_ms).collect();
    let gap = Summary::of(&gaps)?;
    let slowest: Vec<f64> = trials.iter().map(|trial| trial.slowest_ms).collect();
    let to_floor = floor.iter().find(|row| row.mode == mode).map(|floor| gap.p50 / floor.gap.p50);
    let lost = trials.iter().map(|trial| trial.lost).sum();
    let mut by: Vec<Handover> = trials.iter().filter_map(|trial| trial.by).collect();
    by.dedup();
    Some(Row {
        kind,
        mode,
        by,
        gap,
        slowest: Summary::of(&slowest).filter(|_| kind.writers().0 > 1),
        to_floor,
        lost,
        acknowledged: trials.iter().map(|trial| trial.acknowledged).sum(),
        in_place: trials.iter().filter(|trial| trial.in_place).count(),
        failed: records.failures_of(mode, kind),
        missed: missed(kind, mode, &gap, to_floor, lost),
        breakdown: breakdown(&trials),
    })
}

fn missed(kind: Kind, mode: Mode, gap: &Summary, to_floor: Option<f64>, lost: usize) -> Vec<String> {
    let aim = kind.aim();
    let over = |what: &str, is: f64, bound: Option<f64>| {
        bound.filter(|bound| is >= *bound).map(|bound| format!("{what} {is:.0} ms, aim under {bound:.0} ms"))
    };
    let ratio = aim.ratio.zip(to_floor).filter(|(bound, is)| is >= bound);
    [
        over("p50", gap.p50, aim.p50),
        over("max", gap.max, aim.max),
        ratio.map(|(bound, is)| format!("{is:.1} times the floor, aim under {bound:.0}")),
        (mode == Mode::Sync && lost > 0).then(|| format!("{lost} acknowledged rows lost, aim 0")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn breakdown(trials: &[&Trial]) -> Option<Breakdown> {
    let traced: Vec<&&Trial> = trials.iter().filter(|trial| !trial.phases.is_empty()).collect();
    let gaps: Vec<f64> = traced.iter().map(|trial| trial.gap_ms).collect();
    let median = traced[nearest_to_median(&gaps)?];
    Some(Breakdown { gap_ms: median.gap_ms, phases: median.phases.clone() })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::record::{Failure, FloorTrial};

    pub fn records() -> Records {
        let trial = |kind: Kind, gap_ms: f64, lost: usize, traced: bool| Trial {
            kind,
            mode: Mode::Async,
            by: kind.planned().then_some(Handover::Sigterm),
            at: 0,
            gap_ms,
            slowest_ms: gap_ms + 5.0,
            acknowledged: 200,
            lost,
            pressure: 40.0,
            in_place: false,
            phases: if traced { vec![Phase { name: "detected".into(), at_ms: gap_ms / 2.0 }] } else { Vec::new() },
        };
        let floor =
            |gap_ms: f64| FloorTrial { mode: Mode::Async, at: 0, gap_ms, acknowledged: 200, lost: 0, pressure: 40.0 };
        let failure = Failure { kind: Some(Kind::CutOff), mode: Mode::Async, at: 0, error: "why".into() };
        Records {
            trials: vec![
                trial(Kind::Postgres, 200.0, 0, true),
                trial(Kind::Postgres, 310.0, 1, false),
                trial(Kind::Postgres, 500.0, 0, true),
                trial(Kind::CutOff, 1400.0, 2, true),
                trial(Kind::SwitchoverBusy, 300.0, 0, true),
            ],
            floor: vec![floor(70.0), floor(80.0)],
            failures: vec![failure],
        }
    }

    #[test]
    fn a_row_tells_its_figures_and_which_aims_were_missed() {
        let report = Report::of(&records());
        let row = |kind| report.rows.iter().find(|row| row.kind == kind).unwrap();
        let killed = row(Kind::Postgres);
        assert_eq!((killed.gap.p50, killed.lost, killed.acknowledged), (310.0, 1, 600));
        assert_eq!(killed.to_floor.map(|ratio| (ratio * 100.0).round()), Some(413.0));
        assert_eq!(killed.missed, ["p50 310 ms, aim under 300 ms", "4.1 times the floor, aim under 4"]);
        assert_eq!(killed.breakdown.as_ref().map(|found| found.gap_ms), Some(200.0), "the median trial has no trace");
        assert!(row(Kind::CutOff).missed.is_empty() && row(Kind::CutOff).failed == 1);
        assert_eq!(row(Kind::SwitchoverBusy).slowest.map(|slowest| slowest.p50), Some(305.0));
        assert!(killed.slowest.is_none(), "one writer has no slowest");
        assert_eq!(report.rows.len(), 3, "kinds without a trial have no row");
    }

    #[test]
    fn a_row_lost_in_synchronous_mode_is_an_aim_missed() {
        let mut records = records();
        records.trials.iter_mut().for_each(|trial| trial.mode = Mode::Sync);
        let report = Report::of(&records);
        assert_eq!(report.lost_in_sync(), 3);
        let cut = report.rows.iter().find(|row| row.kind == Kind::CutOff).unwrap();
        assert_eq!(cut.missed, ["2 acknowledged rows lost, aim 0"]);
        assert_eq!(cut.to_floor, None, "no floor was measured in this mode");
    }
}
