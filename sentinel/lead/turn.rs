//! A leader's turn: decides, says why, starts errands, and commits what is to be committed. A sentinel that does not lead
//! only says what it sees.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{ClusterData, Moment, Revision},
    store::{Mirror, Outcome, StoreError, Txn},
    task::clock,
};

use super::{Leader, outage::Over, txn};
use crate::{
    decide::{Action, Commit, Decision, Step, World, decide},
    election::Leadership,
    stamp::stamp,
};

/// After a conflict that the mirror doesn't explain.
const PAUSE: Duration = Duration::from_millis(500);

impl Leader {
    /// Says what a sentinel sees that doesn't lead.
    pub(super) fn look_on(&self, mirror: &Mirror) {
        let trouble = crate::admin::problems::unusable(mirror);
        let stuck = trouble.is_some();
        let reason = trouble.unwrap_or_else(|| match mirror.leader() {
            Some(leader) if &leader.uid == self.election.uid() => {
                "this sentinel does not lead any more: its lease was not renewed in time, or it resigned".to_owned()
            }
            Some(leader) => format!("sentinel {} leads", leader.uid),
            None => "no sentinel leads".to_owned(),
        });
        self.mood.tell(false, &[reason], stuck);
    }

    pub(super) async fn lead(&mut self, now: Moment, mirror: &Mirror, leadership: &Leadership) -> Option<Moment> {
        if let Some(over) = self.outage.follow(now, mirror) {
            let Over { epoch, keeper, took } = over;
            tracing::warn!(%epoch, %keeper, after_ms = took.as_millis(), "the change of primary is over: clients are served");
        }
        let decision = self.decide(now, mirror);
        self.story.watch(mirror, decision.watching);
        let present = self.story.present();
        present.in_scope(|| self.mood.tell(true, &decision.reasons, decision.stuck));
        let mut again = decision.revisit;
        for action in &decision.actions {
            self.errands.start(action, leadership);
            if *action == Action::Resign {
                tracing::warn!("this sentinel resigns: another one may see more");
                self.election.resign();
                return None;
            }
        }
        if let Some(commit) = decision.committed() {
            again = self.commit(commit, mirror, leadership).await;
        }
        again
    }

    fn decide(&mut self, now: Moment, mirror: &Mirror) -> Decision {
        let mut state = self.hub.lock();
        self.story.follow(mirror, &state.seen);
        let wish = state.wishes.open().cloned();
        let world = World { mirror, seen: &state.seen, initial: self.initial.as_ref(), wish: wish.as_ref() };
        let decision = decide(now, &world, &mut || format!("{:08x}", rand::random::<u32>()));
        if let Some(Err(refusal)) = &decision.wish {
            state.wishes.answer(Err(refusal.clone()));
        }
        decision
    }

    /// One transaction (R2). Returns when to decide again.
    async fn commit(&mut self, commit: &Commit, mirror: &Mirror, leadership: &Leadership) -> Option<Moment> {
        let context = self.story.commit(commit);
        let data = complete(commit, mirror, &context);
        let txn = match txn::transaction(self.store.keys(), leadership, commit, &data, &context) {
            Ok(txn) => txn,
            Err(error) => {
                tracing::error!(%error, "a decision can't be written down");
                return Some(clock::now() + PAUSE);
            }
        };
        match self.send(&txn, leadership).await {
            Ok(Outcome::Done(revision)) => self.done(commit, data, revision, &context),
            Ok(Outcome::Conflict) => self.conflict(commit, mirror).await,
            Err(error) => self.doubt(commit, &error),
        }
    }

    /// Sends it while the leadership lasts, and waits no longer than that.
    async fn send(&self, txn: &Txn, leadership: &Leadership) -> Result<Outcome, StoreError> {
        let left = leadership.remaining(clock::now());
        if left.is_zero() {
            return Ok(Outcome::Conflict);
        }
        let late = |_| Err(StoreError::Unknown("the leadership ran out meanwhile".into()));
        tokio::time::timeout(left, self.store.transact(txn)).await.unwrap_or_else(late)
    }

    fn done(&mut self, commit: &Commit, data: ClusterData, revision: Revision, context: &str) -> Option<Moment> {
        tell(commit, &data, revision);
        self.story.stored(&commit.step);
        match &commit.step {
            Step::Handover => self.hub.lock().wishes.answer(Ok(data.epoch())),
            Step::CallOff { why } => self.hub.lock().wishes.call_off(data.epoch(), why.clone()),
            _ => {}
        }
        self.not_before = revision;
        self.hub.push(&Arc::new(data), revision, context);
        Some(clock::now())
    }

    /// Something that was compared has changed: the mirror tells what, or will.
    async fn conflict(&mut self, commit: &Commit, mirror: &Mirror) -> Option<Moment> {
        tracing::debug!(step = ?commit.step, "what was decided from has changed meanwhile");
        self.story.failed(&commit.step);
        match self.store.read().await {
            Ok(read) if read.revision > mirror.revision => Some(clock::now()),
            _ => Some(clock::now() + PAUSE),
        }
    }

    fn doubt(&mut self, commit: &Commit, error: &StoreError) -> Option<Moment> {
        tracing::warn!(step = ?commit.step, %error, "a transaction failed; the store is read before the next one");
        self.story.failed(&commit.step);
        self.in_doubt = true;
        Some(clock::now())
    }
}

/// The cluster data of a commit, with what only the shell knows: the dates, and the context of the mark.
fn complete(commit: &Commit, mirror: &Mirror, context: &str) -> ClusterData {
    let mut data = commit.next.clone();
    if let (Step::Mark, Some(mark)) = (&commit.step, &mut data.cluster.status.fencing) {
        context.clone_into(&mut mark.traceparent);
    }
    stamp(mirror.data().map(|(data, _)| &**data), &mut data, &clock::rfc3339_now());
    data
}

fn tell(commit: &Commit, data: &ClusterData, revision: Revision) {
    let (epoch, reason) = (data.epoch(), data.fencing().map_or("", |mark| &mark.reason));
    match &commit.step {
        Step::Initialise => tracing::info!(%epoch, %revision, uid = %data.cluster.uid, "cluster initialised"),
        Step::Mark => tracing::warn!(%epoch, %revision, reason, "fencing mark set: this epoch ends"),
        Step::Elect { db, keeper, why } => {
            tracing::warn!(%epoch, %revision, %keeper, %db, why, "new primary elected");
        }
        Step::Stage => tracing::info!(%epoch, %revision, "standbys are to leave the old primary"),
        Step::Lapse => tracing::warn!(%epoch, %revision, "about to revoke the lease of a proxy"),
        Step::Handover => tracing::warn!(%epoch, %revision, "this epoch is about to be handed over"),
        Step::CallOff { why } => tracing::warn!(%epoch, %revision, "{why}"),
        Step::Members => tracing::info!(%epoch, %revision, "cluster data changed"),
    }
}

#[cfg(test)]
mod tests {
    use stolon::store::Stored;

    use super::*;

    fn stored() -> Mirror {
        let data = ClusterData::parse(include_bytes!("../../src/model/testdata/clusterdata.json")).unwrap();
        let stored = Stored { revision: Revision(4), bytes: Arc::default(), data: Ok(Arc::new(data)) };
        Mirror { cluster: Some(stored), ..Mirror::default() }
    }

    #[test]
    fn only_a_new_mark_gets_the_context_of_its_detection() {
        use stolon::model::cluster::{Fencing, Stage};
        let mirror = stored();
        let mut next = ClusterData::clone(mirror.data().unwrap().0);
        next.cluster.status.fencing = Some(Fencing {
            epoch: next.epoch(),
            stage: Stage::Fence,
            planned: false,
            to: None,
            reason: "test".into(),
            traceparent: String::new(),
        });
        let commit = |step| Commit { step, next: next.clone(), from: Revision(4), change: None };
        let context = |step| complete(&commit(step), &mirror, "00-1-2-01").fencing().unwrap().traceparent.clone();
        assert_eq!(context(Step::Mark), "00-1-2-01");
        assert_eq!(context(Step::Stage), "");
    }
}
