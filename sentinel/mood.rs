//! What this sentinel thinks, for status answers, and each new thought once in the log.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stolon::{model::Moment, task::clock};

#[derive(Clone, Default)]
pub struct Mood(Arc<Mutex<Thoughts>>);

#[derive(Clone, Default)]
pub struct Thoughts {
    pub leads: bool,
    /// Since when it has (not) been leading.
    pub since: Moment,
    pub reasons: Vec<String>,
    /// Reasons without their numbers.
    logged: BTreeSet<String>,
}

impl Mood {
    pub fn new() -> Mood {
        let mood = Mood::default();
        mood.lock().since = clock::now();
        mood
    }

    /// `stuck`: a person has to correct what is stored.
    pub fn tell(&self, leads: bool, reasons: &[String], stuck: bool) {
        let mut mood = self.lock();
        if mood.leads != leads {
            (mood.leads, mood.since) = (leads, clock::now());
            tracing::info!(leads, "leadership");
        }
        if mood.reasons == reasons {
            return;
        }
        let gists: BTreeSet<String> = reasons.iter().map(|reason| gist(reason)).collect();
        for reason in reasons.iter().filter(|reason| !mood.logged.contains(&gist(reason))) {
            if stuck {
                tracing::error!("{reason}");
            } else {
                tracing::info!(leads, "{reason}");
            }
        }
        mood.logged = gists;
        mood.reasons = reasons.to_vec();
    }

    pub fn now(&self) -> Thoughts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Thoughts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reason whose numbers only count up is the same reason.
fn gist(reason: &str) -> String {
    reason.split(' ').filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_counts_is_one_reason_and_names_keep_their_digits() {
        assert_eq!(gist("keeper k1 has been silent for 1.3 s"), gist("keeper k1 has been silent for 2.9 s"));
        assert_ne!(gist("keeper k1 is gone"), gist("keeper k2 is gone"));
    }
}
