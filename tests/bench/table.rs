//! The report as text: for a terminal, and as the README's section. Pure, but for the machine's description.

use std::fmt::Write;

use crate::{
    kinds::{Handover, Mode},
    report::{Breakdown, Report, Row},
};

/// For a terminal.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let head = ["n", "min", "p50", "max", "p99", "x floor", "lost", "failed"];
    line(&mut out, "mode   kind", &head.map(str::to_owned));
    for floor in &report.floor {
        let cells = cells(&floor.gap, None, floor.lost, floor.acknowledged, 0);
        line(&mut out, &format!("{:<6} floor", floor.mode.to_string()), &cells);
    }
    for row in &report.rows {
        let cells = cells(&row.gap, row.to_floor, row.lost, row.acknowledged, row.failed);
        line(&mut out, &format!("{:<6} {}", row.mode.to_string(), row.kind), &cells);
        if let Some(slowest) = &row.slowest {
            line(&mut out, "       … the slowest writer", &self::cells(slowest, None, 0, 0, 0)[..5]);
        }
        if row.in_place > 0 {
            let _ = writeln!(out, "       restarted in place in {} of these", row.in_place);
        }
        for aim in &row.missed {
            let _ = writeln!(out, "       MISSED: {aim}");
        }
    }
    if let Some(pressure) = &report.pressure {
        let (low, median, high) = (pressure.min, pressure.p50, pressure.max);
        let _ = writeln!(out, "\nSomebody waited for a processor {median:.0} % of the time ({low:.0} to {high:.0} %).");
    }
    let _ = writeln!(out, "\nWhere the time goes, in ms from the strike to the end of each step, in the median trial:");
    for (row, breakdown) in broken_down(report) {
        let _ = writeln!(out, "{:<6} {}: {}", row.mode.to_string(), row.kind, steps(breakdown));
    }
    out
}

fn cells(gap: &crate::stats::Summary, ratio: Option<f64>, lost: usize, of: usize, failed: usize) -> [String; 8] {
    let ms = |value: f64| format!("{value:.0}");
    let or = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    [
        gap.count.to_string(),
        ms(gap.min),
        ms(gap.p50),
        ms(gap.max),
        or(gap.p99.map(ms)),
        or(ratio.map(|ratio| format!("{ratio:.1}"))),
        format!("{lost}/{of}"),
        failed.to_string(),
    ]
}

fn line(out: &mut String, name: &str, cells: &[String]) {
    let _ = write!(out, "{name:<28}");
    for cell in cells {
        let _ = write!(out, " {cell:>9}");
    }
    out.push('\n');
}

fn broken_down(report: &Report) -> impl Iterator<Item = (&Row, &Breakdown)> {
    report.rows.iter().filter_map(|row| Some((row, row.breakdown.as_ref()?)))
}

fn steps(breakdown: &Breakdown) -> String {
    let step = |phase: &crate::phases::Phase| format!("{} {:.0}", phase.name, phase.at_ms);
    let steps: Vec<String> = breakdown.phases.iter().map(step).collect();
    format!("{} (gap {:.0})", steps.join(", "), breakdown.gap_ms)
}

/// The README's section.
pub fn markdown(report: &Report, machine: &str) -> String {
    let mut out = String::from("## Failover, measured\n\n");
    let mut intro = format!(
        "What a client that writes through the proxy notices: from the last acknowledged row before to the first one after, \
         in milliseconds. Three hosts with etcd, keeper and sentinel each, one with the proxy, as network namespaces; mutual \
         TLS, default settings, release build. {machine}"
    );
    if let Some(pressure) = &report.pressure {
        let _ = write!(
            intro,
            " Others kept the processors busy meanwhile: somebody waited for one {:.0} % of the time (Linux's CPU pressure, \
             median of all trials).",
            pressure.p50
        );
    }
    intro += " The floor, measured in turn with the rest: a bare standby that is told to promote the moment its primary is \
              killed. `make bench-failover` repeats this.";
    wrapped(&mut out, &intro);
    for mode in [Mode::Async, Mode::Sync] {
        mode_table(&mut out, report, mode);
    }
    wrapped(&mut out, "Where the time goes, in ms from the strike to the end of each step, in the median trial:");
    let names = &crate::phases::STEPS;
    let _ = writeln!(out, "| | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len()));
    for (row, breakdown) in broken_down(report) {
        let at = |name: &&str| {
            let found = breakdown.phases.iter().find(|phase| phase.name == **name);
            found.map_or("".to_owned(), |phase| format!("{:.0}", phase.at_ms))
        };
        let cells: Vec<String> = names.iter().map(at).collect();
        let _ = writeln!(out, "| {}, {} | {} |", row.kind, row.mode, cells.join(" | "));
    }
    out
}

/// A paragraph in lines as the README has them.
fn wrapped(out: &mut String, text: &str) {
    const WIDTH: usize = 124;
    let mut width = 0;
    for word in text.split_whitespace() {
        let needed = word.chars().count() + usize::from(width > 0);
        match width > 0 && width + needed > WIDTH {
            true => {
                out.push('\n');
                width = 0;
            }
            false if width > 0 => out.push(' '),
            false => {}
        }
        out.push_str(word);
        width += needed;
    }
    out.push_str("\n\n");
}

fn mode_table(out: &mut String, report: &Report, mode: Mode) {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.mode == mode).collect();
    let floor = report.floor.iter().find(|floor| floor.mode == mode);
    if rows.is_empty() && floor.is_none() {
        return;
    }
    let name = match mode {
        Mode::Async => "Asynchronous replication",
        Mode::Sync => "Synchronous replication (one standby)",
    };
    let _ = writeln!(out, "| {name} | trials | min | median | max | p99 | × floor | acknowledged rows lost |");
    let _ = writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|");
    if let Some(floor) = floor {
        let cells = cells(&floor.gap, None, floor.lost, floor.acknowledged, 0);
        let _ = writeln!(out, "| the floor | {} |", of_lost(cells).join(" | "));
    }
    for row in rows {
        let cells = cells(&row.gap, row.to_floor, row.lost, row.acknowledged, row.failed);
        let by = if row.by.contains(&Handover::Sigterm) { " (SIGTERM to the keeper)" } else { "" };
        let failed = if row.failed > 0 { format!(" ({} more trials failed)", row.failed) } else { String::new() };
        let _ = writeln!(out, "| {}{by}{failed} | {} |", row.kind.what(), of_lost(cells).join(" | "));
        if let Some(slowest) = &row.slowest {
            let cells = self::cells(slowest, None, 0, 0, 0);
            let _ = writeln!(out, "| … for the slowest of the writers | {} | - | |", cells[..5].join(" | "));
        }
    }
    out.push('\n');
}

/// `1/200` as a sentence's part, and without the failures, which stand at the name.
fn of_lost(cells: [String; 8]) -> Vec<String> {
    let mut cells = cells[..7].to_vec();
    cells[6] = cells[6].replace('/', " of ");
    cells
}

/// What stands in /proc about the machine, as a sentence.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.trim_start_matches([':', ' ', '\t']).to_owned()));
    let kib = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    format!(
        "The machine: {cores} cores ({}) shared with other work, {} GiB, everything on it (hosts, clients, etcd) at once.",
        model.unwrap_or_else(|| "of unknown make".into()),
        kib.unwrap_or(0) / 1024 / 1024
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::records;

    #[test]
    fn both_forms_tell_the_figures_the_losses_and_the_breakdown() {
        let report = Report::of(&records());
        let text = text(&report);
        let killed = text.lines().find(|line| line.contains(" postgres ")).unwrap();
        assert_eq!(
            killed.split_whitespace().collect::<Vec<_>>(),
            ["async", "postgres", "3", "200", "310", "500", "-", "4.1", "1/600", "0"]
        );
        assert!(text.contains("waited for a processor 40 % of the time (40 to 40 %)"), "{text}");
        assert!(text.contains("MISSED: p50 310 ms, aim under 300 ms"), "{text}");
        assert!(text.contains("async  postgres: detected 100 (gap 200)"), "{text}");

        let markdown = markdown(&report, "The machine.");
        let row = "| `kill -9` of all of PostgreSQL | 3 | 200 | 310 | 500 | - | 4.1 | 1 of 600 |";
        assert!(markdown.contains(row), "{markdown}");
        assert!(markdown.contains("| host cut off (1 more trials failed) | 1 |"), "{markdown}");
        assert!(markdown.contains("| switchover, eight writers (SIGTERM to the keeper) |"), "{markdown}");
        assert!(markdown.contains("| the floor | 2 | 70 | 75 | 80 | - | - | 0 of 400 |"), "{markdown}");
        assert!(!markdown.contains("Synchronous"), "no trial of that mode");
        let long = markdown.lines().filter(|line| !line.starts_with('|') && line.chars().count() > 124);
        assert_eq!(long.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}
