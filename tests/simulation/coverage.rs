//! What happened in the histories, counted, so that nobody takes a quiet world for a safe one.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub counts: BTreeMap<String, u64>,
}

impl Coverage {
    pub fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(what.to_owned(), 1)),
        }
    }

    /// A reason for people, without the names and numbers in it.
    pub fn reason(&mut self, who: &str, reason: &str) {
        let words = reason.split([' ', ',', ';']).filter(|word| {
            let numeric = word.chars().any(|c| c.is_ascii_digit());
            !numeric && !word.is_empty()
        });
        let kind: Vec<&str> = words.take(9).collect();
        self.count(&format!("{who}: {}", kind.join(" ")));
    }

    pub fn add(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}
