//! The loop of every sentinel: remembers what it sees whether it leads or not, hands the stored cluster data on to the
//! streams, and, while it leads, decides and does what was decided. Never sleeps: it wakes on news, or when the last
//! decision wanted to be asked again.

mod errands;
mod outage;
mod story;
#[cfg(test)]
mod story_tests;
#[cfg(test)]
mod tests;
mod turn;
pub mod txn;

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{Moment, Revision, spec::StoredSpec},
    store::{Mirror, Store},
    task::{Shutdown, clock, timer::Timer},
};
use tokio::time::timeout;

use crate::{
    admin::problems,
    election::{Election, Leadership},
    hub::Hub,
    mood::Mood,
};
use errands::Errands;
use outage::Outage;
use story::Story;

/// The watch brings an own commit back in milliseconds; a broken one does not.
const BACK: Duration = Duration::from_millis(200);

/// Everything that the loop works with.
pub struct Leader {
    store: Store,
    hub: Hub,
    election: Election,
    mood: Mood,
    /// `--initial-cluster-spec`.
    initial: Option<StoredSpec>,
    errands: Errands,
    story: Story,
    outage: Outage,
    /// The present term, while this sentinel leads.
    term: Option<Leadership>,
    /// No decision is made from an older mirror: it would not know what this sentinel did last.
    not_before: Revision,
    /// The outcome of a transaction is not known: nothing is decided before a linearizable reading (R2).
    in_doubt: bool,
}

impl Leader {
    pub fn new(store: &Store, hub: &Hub, election: &Election, mood: &Mood, initial: Option<StoredSpec>) -> Leader {
        Leader {
            errands: Errands::new(hub, store, election),
            store: store.clone(),
            hub: hub.clone(),
            election: election.clone(),
            mood: mood.clone(),
            initial,
            story: Story::default(),
            outage: Outage::default(),
            term: None,
            not_before: Revision(0),
            in_doubt: false,
        }
    }

    pub async fn run(self, shutdown: Shutdown) -> Result<(), String> {
        let timer = Timer::new().map_err(|error| format!("no timer: {error}"))?;
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.go(timer) => {}
        }
        Ok(())
    }

    async fn go(mut self, mut timer: Timer) {
        let (mut mirror, mut changes) = (self.store.mirror(), self.election.changes());
        loop {
            changes.seen();
            let seen = mirror.borrow_and_update().clone();
            let again = match seen {
                Some(seen) => self.turn(&seen).await,
                None => None,
            };
            tokio::select! {
                _ = mirror.changed() => {}
                () = self.hub.woken() => {}
                () = changes.next() => {}
                () = self.errands.finished() => {}
                () = timer.until_some(again) => {}
            }
        }
    }

    /// One look at everything, and what follows from it. Returns when to look again though nothing happens.
    async fn turn(&mut self, mirror: &Arc<Mirror>) -> Option<Moment> {
        let now = clock::now();
        self.hand_on(mirror);
        let leadership = self.election.leadership(now, mirror);
        self.remember(now, mirror, leadership.as_ref());
        let Some(leadership) = leadership else {
            self.story.end();
            self.outage.forget();
            self.look_on(mirror);
            return None;
        };
        if self.in_doubt || mirror.revision < self.not_before {
            return self.catch_up().await;
        }
        let again = self.lead(now, mirror, &leadership).await;
        // Another turn when the leadership runs out, if no keepalive moved that.
        Some(again.map_or(leadership.deadline(), |again| again.min(leadership.deadline())))
    }

    /// Views follow what is stored, whoever stored it, as long as it makes sense.
    fn hand_on(&self, mirror: &Arc<Mirror>) {
        {
            let mut state = self.hub.lock();
            let gone = mirror.cluster.is_none();
            state.current.take_if(|(_, known)| gone && *known <= mirror.revision);
            state.mirror = Some(mirror.clone());
        }
        let Some((data, revision)) = mirror.data() else { return };
        let known = self.hub.lock().current.as_ref().map(|(_, known)| *known);
        // What nothing can be decided from helps nobody else either.
        if known.is_none_or(|known| known < revision) && problems::unusable(mirror).is_none() {
            self.hub.push(data, revision, story::context(mirror));
        }
    }

    fn remember(&mut self, now: Moment, mirror: &Mirror, leadership: Option<&Leadership>) {
        let mut state = self.hub.lock();
        match (leadership, &self.term) {
            (Some(new), Some(old)) if new.continues(old) => {}
            (new, _) => state.seen.leading_since = new.map(|_| now),
        }
        self.term = leadership.cloned();
        state.seen.settle(now, mirror);
    }

    /// Waits until the mirror knows of what this sentinel wrote last, reading it if need be.
    async fn catch_up(&mut self) -> Option<Moment> {
        if !self.in_doubt {
            let (mut mirror, wanted) = (self.store.mirror(), self.not_before);
            let there = |mirror: &Option<Arc<Mirror>>| mirror.as_ref().is_some_and(|m| m.revision >= wanted);
            if timeout(BACK, mirror.wait_for(there)).await.is_ok() {
                return Some(clock::now());
            }
        }
        match self.store.read().await {
            Ok(_) => {
                self.in_doubt = false;
                Some(clock::now())
            }
            Err(error) => {
                self.mood.tell(true, &[format!("{error}: nothing is decided until it can be read again")], false);
                Some(clock::now() + BACK)
            }
        }
    }
}
