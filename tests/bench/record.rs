//! Results as JSON lines, one file per mode and kind, written as they come: a run that was broken off goes on where it
//! stopped. Knows no cluster.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    kinds::{Handover, Kind, Mode},
    phases::Phase,
};

/// One trial of a kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub kind: Kind,
    pub mode: Mode,
    /// Of handovers: how it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<Handover>,
    /// Seconds since 1970.
    pub at: u64,
    /// Milliseconds without an acknowledged row of anybody.
    pub gap_ms: f64,
    /// Of several writers: the longest gap of a single one.
    pub slowest_ms: f64,
    pub acknowledged: usize,
    pub lost: usize,
    /// Share of the last 10 s in which somebody waited for a processor, in percent, at the strike.
    #[serde(default)]
    pub pressure: f64,
    /// The former primary's server went on: no standby took over.
    pub in_place: bool,
    /// Empty when the trace did not arrive.
    pub phases: Vec<Phase>,
}

/// One trial of the floor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FloorTrial {
    pub mode: Mode,
    pub at: u64,
    pub gap_ms: f64,
    pub acknowledged: usize,
    pub lost: usize,
    #[serde(default)]
    pub pressure: f64,
}

/// A trial that came to nothing: part of the result, and no figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Unset for the floor's.
    pub kind: Option<Kind>,
    pub mode: Mode,
    pub at: u64,
    pub error: String,
}

/// All that a folder holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Records {
    pub trials: Vec<Trial>,
    pub floor: Vec<FloorTrial>,
    pub failures: Vec<Failure>,
}

/// The folder of results.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

const FAILURES: &str = "failures.jsonl";

impl Folder {
    pub fn open(path: &Path) -> Result<Folder, String> {
        fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder { path: path.to_owned() })
    }

    pub fn trial(&self, trial: &Trial) -> Result<(), String> {
        self.append(&format!("{}-{}.jsonl", trial.mode, trial.kind), trial)
    }

    pub fn floor(&self, trial: &FloorTrial) -> Result<(), String> {
        self.append(&format!("{}-floor.jsonl", trial.mode), trial)
    }

    pub fn failure(&self, failure: &Failure) -> Result<(), String> {
        self.append(FAILURES, failure)
    }

    pub fn append(&self, name: &str, value: &impl Serialize) -> Result<(), String> {
        let path = self.path.join(name);
        let line = serde_json::to_string(value).map_err(|error| error.to_string())?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads everything; a last line that was cut off in its middle does not count.
    pub fn read(&self) -> Result<Records, String> {
        let mut records = Records::default();
        let entries = fs::read_dir(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
        paths.sort();
        for path in paths {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name == FAILURES {
                records.failures.extend(lines(&path)?);
            } else if name.ends_with("-floor.jsonl") {
                records.floor.extend(lines(&path)?);
            } else {
                records.trials.extend(lines(&path)?);
            }
        }
        Ok(records)
    }

    /// Copies the logs of a cluster that failed.
    pub fn keep_logs(&self, of: &Path) -> Result<PathBuf, String> {
        let name = of.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let to = self.path.join(format!("logs-{}-{name}", std::process::id()));
        fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
        for entry in fs::read_dir(of).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "log") {
                fs::copy(entry.path(), to.join(entry.file_name()))
                    .map_err(|error| format!("{}: {error}", entry.path().display()))?;
            }
        }
        Ok(to)
    }

    pub fn write_whole(&self, name: &str, value: &impl Serialize) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
        fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

/// Each line a value.
fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| format!("{} line {}: {error}; remove the line or the file", path.display(), number + 1))
    };
    whole.lines().enumerate().map(parse).collect()
}

impl Records {
    /// Of one mode and kind.
    pub fn of(&self, mode: Mode, kind: Kind) -> Vec<&Trial> {
        self.trials.iter().filter(|trial| trial.mode == mode && trial.kind == kind).collect()
    }

    pub fn floor_of(&self, mode: Mode) -> Vec<&FloorTrial> {
        self.floor.iter().filter(|trial| trial.mode == mode).collect()
    }

    pub fn failures_of(&self, mode: Mode, kind: Kind) -> usize {
        self.failures.iter().filter(|failure| failure.mode == mode && failure.kind == Some(kind)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(kind: Kind, gap_ms: f64) -> Trial {
        let phases = vec![Phase { name: "detected".into(), at_ms: 1.5 }];
        let (mode, by) = (Mode::Sync, kind.planned().then_some(Handover::Sigterm));
        let (acknowledged, lost, pressure, in_place) = (10, 0, 40.0, false);
        Trial { kind, mode, by, at: 7, gap_ms, slowest_ms: gap_ms, acknowledged, lost, pressure, in_place, phases }
    }

    #[test]
    fn what_was_written_is_read_again_and_a_broken_last_line_is_not() {
        let path = std::env::temp_dir().join(format!("stolon-bench-record-{}", std::process::id()));
        let folder = Folder::open(&path).unwrap();
        let floor = FloorTrial { mode: Mode::Async, at: 8, gap_ms: 60.0, acknowledged: 5, lost: 1, pressure: 50.0 };
        let failure = Failure { kind: Some(Kind::Leader), mode: Mode::Sync, at: 9, error: "why".into() };
        for gap in [100.0, 200.0] {
            folder.trial(&trial(Kind::Switchover, gap)).unwrap();
        }
        folder.trial(&trial(Kind::Postgres, 300.0)).unwrap();
        folder.floor(&floor).unwrap();
        folder.failure(&failure).unwrap();
        let cut = path.join("sync-postgres.jsonl");
        let whole = fs::read_to_string(&cut).unwrap();
        fs::write(&cut, whole.clone() + &whole[..whole.len() / 2]).unwrap();
        let read = folder.read().unwrap();
        fs::write(&cut, "no JSON\n").unwrap();
        let refused = folder.read().unwrap_err();
        fs::remove_dir_all(&path).unwrap();

        assert_eq!(read.of(Mode::Sync, Kind::Switchover).len(), 2);
        assert_eq!(read.of(Mode::Sync, Kind::Postgres), [&trial(Kind::Postgres, 300.0)]);
        assert!(read.of(Mode::Async, Kind::Postgres).is_empty());
        assert_eq!((read.floor_of(Mode::Async), read.failures_of(Mode::Sync, Kind::Leader)), (vec![&floor], 1));
        assert!(refused.contains("sync-postgres.jsonl line 1"), "{refused}");
    }
}
