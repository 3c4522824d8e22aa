//! Durations as stolon stores them: Go's text form (`1m0s`, `500ms`).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A duration, never negative, written and read in Go's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GoDuration(pub Duration);

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a number with a unit, as in 500ms, 5s or 1m30s, not negative")]
pub struct BadDuration(String);

const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl FromStr for GoDuration {
    type Err = BadDuration;

    fn from_str(text: &str) -> Result<GoDuration, BadDuration> {
        let bad = || BadDuration(text.to_owned());
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(GoDuration(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(bad());
        }
        let mut nanos = 0f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
            let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..end]).ok_or_else(bad)?;
            nanos += number * unit.1 as f64;
            rest = &rest[end..];
        }
        if nanos > i64::MAX as f64 {
            return Err(bad());
        }
        Ok(GoDuration(Duration::from_nanos(nanos.round() as u64)))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 1_000_000_000 {
            let (unit, size) = match nanos {
                n if n < 1_000 => ("ns", 1.0),
                n if n < 1_000_000 => ("µs", 1e3),
                _ => ("ms", 1e6),
            };
            return write!(f, "{}{unit}", nanos as f64 / size);
        }
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if seconds >= 60 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}", seconds % 60)?;
        if self.0.subsec_nanos() > 0 {
            write!(f, ".{}", format!("{:09}", self.0.subsec_nanos()).trim_end_matches('0'))?;
        }
        f.write_str("s")
    }
}

impl TryFrom<String> for GoDuration {
    type Error = BadDuration;
    fn try_from(text: String) -> Result<Self, BadDuration> {
        text.parse()
    }
}

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> String {
        duration.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_as_go_writes_it() {
        for (millis, text) in
            [(0, "0s"), (500, "500ms"), (5_000, "5s"), (60_000, "1m0s"), (1_500, "1.5s"), (172_800_000, "48h0m0s")]
        {
            assert_eq!(GoDuration(Duration::from_millis(millis)).to_string(), text);
            assert_eq!(text.parse::<GoDuration>().unwrap().0, Duration::from_millis(millis));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for bad in ["", "5", "s", "-5s", "5x", "1h-2m", "5 s", "1e3s"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad:?}");
        }
    }
}
