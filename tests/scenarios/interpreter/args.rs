//! One line of a script, cut into words: `verb name… key=value…`. Double quotes keep spaces; braces begin a JSON text
//! that takes the rest of the line.

use std::{str::FromStr, time::Duration};

use stolon::model::{Lsn, WalPosition};

/// Why a command can't be run: for whoever wrote the script.
pub type Trouble = String;

#[derive(Debug)]
pub struct Command {
    pub verb: String,
    names: Vec<String>,
    pairs: Vec<(String, String)>,
    pub json: Option<String>,
}

impl Command {
    pub fn parse(line: &str) -> Result<Command, Trouble> {
        let (words, json) = match line.split_once('{') {
            Some((words, rest)) => (words, Some(format!("{{{rest}"))),
            None => (line, None),
        };
        let mut words = split(words).into_iter();
        let verb = words.next().ok_or("an empty command")?;
        let (mut names, mut pairs) = (Vec::new(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some((key, value)) => pairs.push((key.to_owned(), value.to_owned())),
                None => names.push(word),
            }
        }
        Ok(Command { verb, names, pairs, json })
    }

    /// The first name; fails when there is none.
    pub fn name(&self) -> Result<&str, Trouble> {
        self.nth(0)
    }

    pub fn nth(&self, index: usize) -> Result<&str, Trouble> {
        let found = self.names.get(index).map(String::as_str);
        found.ok_or_else(|| format!("{}: argument {} is missing", self.verb, index + 1))
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key that must be there.
    pub fn need(&self, key: &str) -> Result<&str, Trouble> {
        self.get(key).ok_or_else(|| format!("{}: {key}=… is missing", self.verb))
    }

    pub fn number<T: FromStr>(&self, index: usize) -> Result<T, Trouble> {
        number(self.nth(index)?)
    }
}

/// Words between spaces, quotes taken off.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

pub fn number<T: FromStr>(text: &str) -> Result<T, Trouble> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits here"))
}

pub fn yes(text: &str) -> Result<bool, Trouble> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(format!("{other:?} is neither yes nor no")),
    }
}

/// `100ms`, `1.5s`, `2h`.
pub fn duration(text: &str) -> Result<Duration, Trouble> {
    let units = [("ms", 0.001), ("h", 3600.0), ("s", 1.0)];
    let cut = units.iter().find_map(|(unit, scale)| text.strip_suffix(unit).map(|digits| (digits, scale)));
    let (digits, scale) = cut.ok_or_else(|| format!("{text:?} is no duration: use 100ms, 1.5s or 2h"))?;
    Ok(Duration::from_secs_f64(number::<f64>(digits)? * scale))
}

/// `timeline:lsn`, the LSN as PostgreSQL writes it: `1:0/3F2`.
pub fn position(text: &str) -> Result<WalPosition, Trouble> {
    let (timeline, lsn) = text.split_once(':').ok_or_else(|| format!("{text:?} is no position: write 1:0/3F2"))?;
    Ok(WalPosition { timeline: number(timeline)?, lsn: lsn.parse::<Lsn>().map_err(|bad| bad.to_string())? })
}
