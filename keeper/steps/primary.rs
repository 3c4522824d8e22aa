//! Becoming the primary and saying so: promotion, epochs without one, the key `ready` (R10), and the key `primary` put back
//! (R3). Whatever others rely on is compared with the holder's own lease in the same transaction.

use std::time::Duration;

use stolon::{
    model::{Epoch, Lsn, registration::ReadyKey},
    store::{LeaseState, Mirror, Outcome},
    telemetry,
};
use tracing::{Instrument, info_span};

use super::{Done, Hands, StepError};
use crate::{
    claims,
    journal::{Branch, Journal},
    pg::ConfRole,
    state::{Phase, Promotion},
};

/// A running primary answers the sampler in milliseconds.
const SAMPLE: Duration = Duration::from_secs(5);

impl Hands {
    pub(super) async fn promote(&self, epoch: Epoch) -> Done {
        let db = self.assignment()?.db;
        let span = info_span!("promoted", rule = "R3 R11", epoch = epoch.0, keeper = %self.shared.look(|state, _| state.me.clone()), db = %db);
        telemetry::continue_from(&span, &self.election_context(epoch));
        self.promote_traced(epoch).instrument(span).await
    }

    async fn promote_traced(&self, epoch: Epoch) -> Done {
        let server = self.shared.running().ok_or_else(|| StepError::NotNow("PostgreSQL does not run".into()))?;
        let before = self.shared.look(|state, _| state.journal.primary_epoch);
        self.journal(|journal| self.reign(journal, epoch))?;
        let arming = self.arm(epoch).await;
        let asked = self.shared.change(|state, now| {
            let authority = arming.is_ok() && state.grant(now).is_some_and(|grant| grant.epoch == epoch);
            let may = authority && state.run.phase == Phase::Standby;
            if may {
                state.run.phase = Phase::Promoting;
            }
            may
        });
        if !asked {
            self.journal(|journal| journal.primary_epoch = before)?;
            arming?;
            return Err(StepError::NotNow(format!("no authority for epoch {epoch} any more")));
        }
        drop(arming);
        let (promoted, ()) = tokio::join!(server.promote(), self.slots_while_promoting());
        let promoted = promoted?;
        let traceparent = telemetry::traceparent(&tracing::Span::current());
        let promotion = Promotion { epoch, timeline: promoted.timeline, switch_lsn: promoted.switch_lsn, traceparent };
        self.shared.change(|state, _| {
            state.run.phase = Phase::Primary;
            state.promotion = promotion;
        });
        self.look_at_data();
        self.sampler.hurry();
        tracing::info!(%epoch, timeline = promoted.timeline, switch = %promoted.switch_lsn, "promoted");
        Ok(())
    }

    /// Synchronous: the first commit waits for a follower, which is turned away while it has no slot. A server in recovery can
    /// make them already.
    async fn slots_while_promoting(&self) {
        if let Ok(assignment) = self.assignment()
            && !super::synchronous::wanted(&assignment, &ConfRole::Primary).is_empty()
        {
            self.followers_slots(&super::apply::slots(&assignment)).await;
        }
    }

    async fn followers_slots(&self, slots: &std::collections::BTreeSet<String>) {
        if let Err(error) = self.instance.refresh_slots(slots).await {
            tracing::warn!(%error, "the followers' slots could not be made yet");
        }
    }

    /// What clients don't wait for, and their first commit does: followers come at once when they see the key `ready`.
    async fn beside_ready(&self) {
        let Ok(assignment) = self.assignment() else { return };
        if super::synchronous::wanted(&assignment, &ConfRole::Primary).is_empty() {
            return self.followers_slots(&super::apply::slots(&assignment)).await;
        }
        let Some(server) = self.shared.running() else { return };
        if let Err(error) = self.settings(&server, ConfRole::Primary).await {
            tracing::warn!(%error, "PostgreSQL could not be told the synchronous list yet");
        }
    }

    /// Where this data is primary, and in which epoch.
    pub(super) fn reign(&self, journal: &mut Journal, epoch: Epoch) {
        (journal.primary_epoch, journal.primary_place) = (epoch, Some(self.place.folder()));
    }

    /// Context of the transaction that gave this epoch to us.
    fn election_context(&self, epoch: Epoch) -> String {
        let mirror = self.shared.look(|state, _| state.mirror.clone());
        let key = mirror.and_then(|mirror| mirror.primary.clone()).filter(|held| held.value.epoch == epoch);
        key.map(|held| held.value.traceparent).unwrap_or_default()
    }

    /// A primary that never stopped goes on in the next epoch.
    pub(super) fn adopt_epoch(&self, epoch: Epoch) -> Done {
        self.granted(epoch)?;
        self.journal(|journal| {
            self.reign(journal, epoch);
            journal.recruit = None;
        })?;
        tracing::info!(%epoch, "primary in this epoch without having stopped");
        Ok(())
    }

    /// R10: out of recovery, and still with authority.
    pub(super) async fn announce(&self, epoch: Epoch) -> Done {
        let promotion = self.promotion(epoch).await?;
        self.first_commits_wait().await?;
        self.granted(epoch)?;
        let (mirror, lease) = self.standing()?;
        let held = mirror.primary.as_ref().filter(|held| held.value.epoch == epoch && held.lease == lease.id);
        let held = held.ok_or_else(|| StepError::NotNow(format!("the key of epoch {epoch} isn't in sight yet")))?;
        let ready = ReadyKey {
            keeper: held.value.keeper.clone(),
            db: held.value.db.clone(),
            epoch,
            address: self.fixed.pg_address.0.clone(),
            port: self.fixed.pg_address.1,
            timeline: promotion.timeline,
            switch_lsn: promotion.switch_lsn,
            traceparent: promotion.traceparent.clone(),
        };
        let txn = claims::announce(self.store.keys(), held.modified, lease.id, &ready).map_err(StepError::NotNow)?;
        let (written, ()) = tokio::join!(self.store.transact(&txn), self.beside_ready());
        if written? == Outcome::Conflict {
            return Err(StepError::NotNow("the key `primary` has changed".into()));
        }
        self.shared.urge(promotion.traceparent);
        tracing::info!(%epoch, timeline = promotion.timeline, "serving");
        let branch = Branch { epoch, timeline: promotion.timeline };
        self.journal(|journal| (journal.branch, journal.recruit) = (Some(branch), None))?;
        self.seen_ready(epoch).await
    }

    /// Returns when the own key `ready` is in the mirror, so that it is not written twice.
    async fn seen_ready(&self, epoch: Epoch) -> Done {
        let mut mirror = self.store.mirror();
        let there = |seen: &Option<std::sync::Arc<Mirror>>| {
            seen.as_ref().and_then(|mirror| mirror.ready.as_ref()).is_some_and(|ready| ready.value.epoch >= epoch)
        };
        match tokio::time::timeout(SAMPLE, mirror.wait_for(there)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StepError::NotNow("the key `ready` was written and isn't in sight".into())),
        }
    }

    /// Of a promotion made by this process what it left; else what the running server says of its timeline.
    async fn promotion(&self, epoch: Epoch) -> Result<Promotion, StepError> {
        let known = self.shared.look(|state, _| state.promotion.clone());
        if known.epoch == epoch && known.timeline > 0 {
            return Ok(known);
        }
        let mut samples = self.sampler.watch();
        self.sampler.hurry();
        let primary = |sample: &Option<crate::pg::Sample>| sample.as_ref().is_some_and(|sample| !sample.in_recovery);
        let sample = tokio::time::timeout(SAMPLE, samples.wait_for(primary)).await;
        let timeline = match sample {
            Ok(Ok(sample)) => sample.as_ref().map_or(1, |sample| sample.position.timeline),
            _ => return Err(StepError::NotNow("PostgreSQL has not said its timeline yet".into())),
        };
        let switch_lsn = self.instance.lineage(timeline)?.last().map_or(Lsn(0), |switch| switch.lsn);
        let promotion = Promotion { epoch, timeline, switch_lsn, traceparent: self.election_context(epoch) };
        self.shared.note(|state, _| state.promotion = promotion.clone());
        Ok(promotion)
    }

    /// R3: the key is gone and nobody was elected: comparing both, in the same epoch.
    pub(super) async fn put_back(&self, epoch: Epoch) -> Done {
        let (mirror, lease) = self.standing()?;
        let txn =
            claims::put_back(self.store.keys(), &mirror, &self.me(), epoch, lease.id).map_err(StepError::NotNow)?;
        match self.store.transact(&txn).await? {
            Outcome::Done(_) => tracing::info!(%epoch, "put the key `primary` back"),
            Outcome::Conflict => {
                return Err(StepError::NotNow("the key could not be put back: things have changed".into()));
            }
        }
        let mut mirror = self.store.mirror();
        let there =
            |seen: &Option<std::sync::Arc<Mirror>>| seen.as_ref().is_some_and(|mirror| mirror.primary.is_some());
        let _ = tokio::time::timeout(SAMPLE, mirror.wait_for(there)).await;
        Ok(())
    }

    fn me(&self) -> stolon::model::KeeperUid {
        self.shared.look(|state, _| state.me.clone())
    }

    /// The mirror, and the lease that is valid now.
    fn standing(&self) -> Result<(std::sync::Arc<Mirror>, LeaseState), StepError> {
        let found = self.shared.look(|state, now| {
            let lease = state.lease.clone().filter(|lease| now < lease.deadline);
            state.mirror.clone().zip(lease)
        });
        found.ok_or_else(|| StepError::NotNow("not registered in etcd".into()))
    }
}
