//! The loop of every sentinel, as `sentinel/lead/*.rs` has it: remembers, hands on, decides while it leads, commits.

use std::{rc::Rc, sync::Arc, time::Duration};

use stolon::{
    model::{ClusterData, Moment, Revision},
    store::{Mirror, Outcome, StoreError, Txn},
};
use stolon_sentinel::{
    decide::{Action, Commit, Decision, Step, World, decide},
    election::Leadership,
    lead::txn,
};

use super::{Sentinel, doctor};
use crate::{invariants::eligible, rules::Rule};

const BACK: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(500);

impl Sentinel {
    pub(super) async fn lead(self: Rc<Sentinel>) {
        let (mirror, lease) = (self.store.changed(), self.registration.changed());
        loop {
            let mut known = (mirror.version(), self.woken.version(), lease.version(), self.abstaining.version());
            let again = match self.store.mirror() {
                Some(seen) => self.turn(&seen).await,
                None => None,
            };
            tokio::select! {
                biased;
                () = mirror.changed(&mut known.0) => {}
                () = self.woken.changed(&mut known.1) => {}
                () = lease.changed(&mut known.2) => {}
                () = self.abstaining.changed(&mut known.3) => {}
                () = self.world.until_some(self.host, again) => {}
            }
            self.world.pass(5, 40).await;
        }
    }

    async fn turn(self: &Rc<Sentinel>, mirror: &Arc<Mirror>) -> Option<Moment> {
        let now = self.now();
        self.hand_on(mirror);
        let mut leadership = self.leadership(now, mirror);
        if self.world.lacks(Rule::Leadership) && leadership.is_none() {
            leadership.clone_from(&*self.term.borrow());
        }
        let new_term = self.remember(now, mirror, leadership.as_ref());
        let leadership = leadership?;
        if new_term {
            self.world.count("terms of office");
            self.world.say(self.host, || "sentinel: leads".into());
        }
        if self.in_doubt.get() || mirror.revision < self.not_before.get() {
            return self.catch_up().await;
        }
        let again = self.lead_once(now, mirror, &leadership, new_term).await;
        let deadline = leadership.deadline();
        // Without R5 nothing ends with the deadline.
        match self.world.lacks(Rule::Leadership) {
            true => again,
            false => Some(again.map_or(deadline, |again| again.min(deadline))),
        }
    }

    fn hand_on(&self, mirror: &Arc<Mirror>) {
        *self.mirror.borrow_mut() = Some(mirror.clone());
        if let Some((data, revision)) = mirror.data() {
            self.push(data, revision);
        }
    }

    /// True when a term begins.
    fn remember(&self, now: Moment, mirror: &Mirror, leadership: Option<&Leadership>) -> bool {
        let mut seen = self.seen.borrow_mut();
        let mut begins = false;
        match (leadership, &*self.term.borrow()) {
            (Some(new), Some(old)) if new.continues(old) => {}
            (new, _) => {
                begins = new.is_some();
                seen.leading_since = new.map(|_| now);
            }
        }
        *self.term.borrow_mut() = leadership.cloned();
        seen.settle(now, mirror);
        begins
    }

    async fn catch_up(&self) -> Option<Moment> {
        if !self.in_doubt.get() {
            let (changed, wanted) = (self.store.changed(), self.not_before.get());
            let there = async {
                loop {
                    let mut known = changed.version();
                    if self.store.mirror().is_some_and(|mirror| mirror.revision >= wanted) {
                        return;
                    }
                    changed.changed(&mut known).await;
                }
            };
            if self.world.within_time(self.host, BACK, there).await.is_some() {
                return Some(self.now());
            }
        }
        match self.store.read().await {
            Ok(_) => {
                self.in_doubt.set(false);
                Some(self.now())
            }
            Err(_) => Some(self.now() + BACK),
        }
    }

    async fn lead_once(
        self: &Rc<Sentinel>,
        now: Moment,
        mirror: &Arc<Mirror>,
        leadership: &Leadership,
        new_term: bool,
    ) -> Option<Moment> {
        let mut decision = match () {
            () if self.world.lacks(Rule::Mark) && new_term => doctor::without_mark(mirror).unwrap_or_default(),
            () if self.world.lacks(Rule::Successor) && self.found_mark(mirror) => Decision::default(),
            () => self.decide(now, mirror),
        };
        self.tell(&decision);
        if let Some(Err(refusal)) = &decision.wish {
            self.world.count("handovers refused");
            self.world.say(self.host, || format!("sentinel: refuses the handover: {refusal}"));
            *self.wish.borrow_mut() = None;
        }
        doctor::first_list(&self.world, &mut decision);
        let mut again = decision.revisit;
        for action in &decision.actions {
            self.errand(action, leadership);
            if *action == Action::Resign {
                self.world.count("resignations");
                self.resign();
                return None;
            }
        }
        if let Some(commit) = decision.committed() {
            again = self.commit(commit, mirror, leadership).await;
        }
        again
    }

    /// Somebody else has set the mark that stands.
    fn found_mark(&self, mirror: &Mirror) -> bool {
        let Some(mark) = mirror.data().and_then(|(data, _)| data.fencing()) else { return false };
        self.world.audit.borrow().marked.get(&mark.epoch).is_none_or(|uid| *uid != self.uid.as_str())
    }

    fn decide(&self, now: Moment, mirror: &Arc<Mirror>) -> Decision {
        let mut fresh = || format!("{:08x}", self.world.rng.borrow_mut().next() as u32);
        let initial = Some(&self.world.settings.spec);
        let (seen, wish) = (self.seen.borrow(), self.wish.borrow());
        let wish = wish.as_ref();
        match doctor::altered(&self.world, mirror, &seen) {
            Some((mirror, seen)) => decide(now, &World { mirror: &mirror, seen: &seen, initial, wish }, &mut fresh),
            None => decide(now, &World { mirror, seen: &seen, initial, wish }, &mut fresh),
        }
    }

    fn tell(&self, decision: &Decision) {
        if *self.told.borrow() == decision.reasons {
            return;
        }
        let new: Vec<String> =
            decision.reasons.iter().filter(|reason| !self.told.borrow().contains(reason)).cloned().collect();
        for reason in &new {
            self.world.coverage.borrow_mut().reason("decide", reason);
            self.world.say(self.host, || format!("sentinel: {reason}"));
        }
        if decision.stuck {
            self.world.audit.borrow_mut().found(
                self.world.rt.now(),
                "own check",
                format!("a decision was refused: {}", decision.reasons.join("; ")),
            );
        }
        self.told.borrow_mut().clone_from(&decision.reasons);
    }

    async fn commit(&self, commit: &Commit, mirror: &Mirror, leadership: &Leadership) -> Option<Moment> {
        let data = commit.next.clone();
        let Ok(txn) = txn::transaction(self.store.keys(), leadership, commit, &data, "") else {
            return Some(self.now() + PAUSE);
        };
        eligible::intends(&self.world, self.now(), commit, mirror, &self.seen.borrow());
        match self.send(&txn, leadership).await {
            Ok(Outcome::Done(revision)) => {
                self.count_handover(commit, mirror);
                self.done(commit, data, revision)
            }
            Ok(Outcome::Conflict) => {
                self.world.count("commits that conflicted");
                match self.store.read().await {
                    Ok(read) if read.revision > mirror.revision => Some(self.now()),
                    _ => Some(self.now() + PAUSE),
                }
            }
            Err(_) => {
                self.world.count("commits of unknown outcome");
                self.in_doubt.set(true);
                Some(self.now())
            }
        }
    }

    /// What became of a handover that somebody asked for, or of one by a keeper that ends.
    fn count_handover(&self, commit: &Commit, mirror: &Mirror) {
        let (Step::Elect { db, .. }, Some((before, _))) = (&commit.step, mirror.data()) else { return };
        if before.fencing().is_some_and(|mark| mark.planned) {
            self.world.count(match before.cluster.status.master.as_ref() == Some(db) {
                true => "handovers after which the old primary goes on",
                false => "handovers carried out",
            });
        }
    }

    async fn send(&self, txn: &Txn, leadership: &Leadership) -> Result<Outcome, StoreError> {
        let left = leadership.remaining(self.now());
        if self.world.lacks(Rule::Leadership) {
            return self.store.transact(txn).await;
        }
        if left.is_zero() {
            return Ok(Outcome::Conflict);
        }
        let sent = self.world.within_time(self.host, left, self.store.transact(txn)).await;
        sent.unwrap_or_else(|| Err(StoreError::Unknown("the leadership ran out meanwhile".into())))
    }

    fn done(&self, commit: &Commit, data: ClusterData, revision: Revision) -> Option<Moment> {
        let step = match &commit.step {
            Step::Initialise => "initialise",
            Step::Members => "members",
            Step::Handover => "handover",
            Step::CallOff { .. } => "call off",
            Step::Mark => "mark",
            Step::Stage => "stage",
            Step::Lapse => "lapse",
            Step::Elect { .. } => "elect",
        };
        self.world.count(&format!("commit: {step}"));
        self.world.say(self.host, || {
            let epoch = data.epoch();
            format!("sentinel: committed {step} at {revision}, epoch {epoch}")
        });
        if let Some(change) = &commit.change {
            self.world.count(&format!("proof: {:?}", change.proof));
        }
        if commit.step == Step::Handover && self.wish.take().is_some() {
            self.world.count("handovers granted");
        }
        self.credit(commit, &data);
        self.not_before.set(revision);
        self.push(&Arc::new(data), revision);
        Some(self.now())
    }

    /// Who began a change of primary, and who finished it.
    fn credit(&self, commit: &Commit, data: &ClusterData) {
        let mut audit = self.world.audit.borrow_mut();
        match &commit.step {
            Step::Mark => drop(audit.marked.insert(data.epoch(), self.uid.to_string())),
            Step::Elect { .. } => {
                let before = stolon::model::Epoch(data.epoch().0 - 1);
                let began = audit.marked.get(&before).is_some_and(|uid| *uid != self.uid.as_str());
                drop(audit);
                if began {
                    self.world.count("finished by a successor");
                }
            }
            _ => {}
        }
    }
}
