//! The results so far, one JSON line per trial, and the table made of them. It is what a run that was stopped goes on from.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use stolon_tests::{acks::Overlap, bins};

use crate::{
    fault::{Fault, Mode},
    table::FAULTS,
    trial::Outcome,
};

/// Environment variable that names the folder; else `chaos` below the folder that cargo builds in.
pub const FOLDER: &str = "CHAOS_DIR";

/// One trial's line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub fault: String,
    pub mode: String,
    /// 0 for the table's own trial; the round of repeated ones.
    pub round: usize,
    pub ok: bool,
    pub problems: Vec<String>,
    pub gap_ms: Option<u64>,
    pub epochs: u64,
    pub acknowledged: usize,
    pub acknowledged_direct: usize,
    pub lost: usize,
    pub lost_direct: usize,
    /// Milliseconds for which two primaries acknowledged, as direct clients saw it.
    pub overlap_direct_ms: u64,
    /// Whether the primary's host also had the leading sentinel, and etcd's leader.
    pub with_leader: bool,
    pub with_etcd_leader: bool,
    pub seconds: u64,
}

impl Entry {
    pub fn new(fault: &Fault, mode: Mode, round: usize, outcome: &Outcome, took: Duration) -> Entry {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let account = outcome.account.as_ref();
        let overlap = account.and_then(|account| account.overlaps_direct.iter().map(Overlap::span).max());
        let scene = outcome.scene.as_ref();
        Entry {
            fault: fault.name.to_owned(),
            mode: mode.name().to_owned(),
            round,
            ok: outcome.problems.is_empty(),
            problems: outcome.problems.clone(),
            gap_ms: outcome.gap.map(millis),
            epochs: outcome.epochs,
            acknowledged: account.map_or(0, |account| account.acknowledged),
            acknowledged_direct: account.map_or(0, |account| account.acknowledged_direct),
            lost: account.map_or(0, |account| account.lost.len()),
            lost_direct: account.map_or(0, |account| account.lost_direct.len()),
            overlap_direct_ms: overlap.map_or(0, millis),
            with_leader: scene.is_some_and(|scene| scene.primary == scene.leader),
            with_etcd_leader: scene.is_some_and(|scene| scene.primary == scene.etcd_leader),
            seconds: took.as_secs(),
        }
    }

    /// A trial that came to no end of its own.
    pub fn unfinished(fault: &Fault, mode: Mode, round: usize) -> Entry {
        let problems = vec!["no end: the stage did not come up, or took too long".to_owned()];
        let outcome = Outcome { problems, gap: None, epochs: 0, account: None, scene: None };
        Entry::new(fault, mode, round, &outcome, Duration::ZERO)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        let gap = self.gap_ms.map_or("-".to_owned(), |gap| gap.to_string());
        let rows = format!("{}/{}", self.lost, self.acknowledged);
        let direct = format!("{}/{}", self.lost_direct, self.acknowledged_direct);
        format!(
            "{:<36} {:<5} {:>3} {verdict:<6} {gap:>7} {:>6} {rows:>11} {direct:>11} {:>8} {:>5}",
            self.fault, self.mode, self.round, self.epochs, self.overlap_direct_ms, self.seconds
        )
    }
}

pub struct Ledger {
    folder: PathBuf,
    /// The last entry of each trial.
    entries: BTreeMap<(String, String, usize), Entry>,
}

impl Ledger {
    pub fn open() -> Ledger {
        let below_target = || bins::build_folder().parent().expect("TARGET/PROFILE").join("chaos");
        let folder = std::env::var_os(FOLDER).map_or_else(below_target, PathBuf::from);
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut ledger = Ledger { folder, entries: BTreeMap::new() };
        let text = fs::read_to_string(ledger.lines()).unwrap_or_default();
        // A line that was cut off by a kill is a trial that did not end; a fault may be gone from the table.
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let known = |entry: &Entry| FAULTS.iter().any(|fault| fault.name == entry.fault);
        entries.filter(known).for_each(|entry| ledger.remember(entry));
        ledger
    }

    fn lines(&self) -> PathBuf {
        self.folder.join("results.jsonl")
    }

    fn remember(&mut self, entry: Entry) {
        self.entries.insert((entry.fault.clone(), entry.mode.clone(), entry.round), entry);
    }

    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// True when the trial needs no run any more: it went well.
    pub fn done(&self, fault: &str, mode: Mode, round: usize) -> bool {
        self.entries.get(&(fault.to_owned(), mode.name().to_owned(), round)).is_some_and(|entry| entry.ok)
    }

    pub fn add(&mut self, entry: Entry) {
        let line = serde_json::to_string(&entry).expect("an entry is JSON");
        let mut file = OpenOptions::new().create(true).append(true).open(self.lines()).expect("the results' file");
        // A line of its own, also after one that was cut off.
        writeln!(file, "{line}").expect("a line in the results' file");
        self.remember(entry);
        fs::write(self.folder.join("table.txt"), self.table()).expect("the table's file");
    }

    pub fn failed(&self) -> usize {
        self.entries.values().filter(|entry| !entry.ok).count()
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<36} {:<5} {:>3} {:<6} {:>7} {:>6} {:>11} {:>11} {:>8} {:>5}\n",
            "fault", "mode", "no", "", "gap ms", "epochs", "lost", "direct lost", "overlap", "s"
        );
        for entry in self.entries.values() {
            text += &format!("{}\n", entry.line());
            entry.problems.iter().for_each(|problem| text += &format!("    {problem}\n"));
        }
        text
    }
}
