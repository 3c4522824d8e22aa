//! Becoming the primary and saying so, as `keeper/steps/primary.rs` does it, by the very transactions of the keeper.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{Epoch, registration::ReadyKey},
    store::{LeaseState, Mirror, Outcome},
};
use stolon_keeper::{
    claims,
    journal::Branch,
    state::{Phase, Promotion},
};

use super::{
    Keeper,
    converge::{Done, Problem},
};
use crate::world::MS;

const SAMPLE: Duration = Duration::from_secs(5);

impl Keeper {
    pub(super) async fn promote(&self, epoch: Epoch) -> Done {
        let server = self.server().ok_or(Problem::NotNow("PostgreSQL does not run"))?;
        let before = self.look(|state, _| state.journal.primary_epoch);
        self.journal(|journal| self.reign(journal, epoch)).await;
        let asked = self.change(|state, now| {
            let may = state.grant(now).is_some_and(|grant| grant.epoch == epoch) && state.run.phase == Phase::Standby;
            if may {
                state.run.phase = Phase::Promoting;
            }
            may
        });
        if !asked {
            self.journal(|journal| journal.primary_epoch = before).await;
            return Err(Problem::NotNow("no authority any more"));
        }
        self.guard.arm();
        server.epoch.set(epoch);
        self.world.count("promotions");
        self.world.say(self.host, || format!("keeper: promotes for epoch {epoch}"));
        self.world.promotes(&self.machine, epoch);
        let promoted = self.machine.promote(&server).await;
        let (timeline, switch_lsn) = promoted.ok_or(Problem::Failed("it ended while it was promoted".into()))?;
        self.change(|state, _| {
            state.run.phase = Phase::Primary;
            state.promotion = Promotion { epoch, timeline, switch_lsn, traceparent: String::new() };
        });
        self.look_at_data();
        self.sample_now();
        Ok(())
    }

    /// A primary that never stopped goes on in the next epoch.
    pub(super) async fn adopt_epoch(&self, epoch: Epoch) -> Done {
        self.granted(epoch)?;
        self.journal(|journal| {
            self.reign(journal, epoch);
            journal.recruit = None;
        })
        .await;
        if let Some(server) = self.server() {
            server.epoch.set(epoch);
        }
        self.world.audit.borrow_mut().reigns(self.world.rt.now(), self.host, epoch);
        self.world.count("epochs adopted without a stop");
        Ok(())
    }

    pub(super) async fn announce(&self, epoch: Epoch) -> Done {
        let promotion = self.promotion(epoch).await?;
        self.first_commits_wait().await?;
        self.granted(epoch)?;
        let (mirror, lease) = self.standing()?;
        let held = mirror.primary.as_ref().filter(|held| held.value.epoch == epoch && held.lease == lease.id);
        let held = held.ok_or(Problem::NotNow("the key isn't in sight yet"))?;
        let ready = ReadyKey {
            keeper: held.value.keeper.clone(),
            db: held.value.db.clone(),
            epoch,
            address: self.fixed.pg_address.0.clone(),
            port: self.fixed.pg_address.1,
            timeline: promotion.timeline,
            switch_lsn: promotion.switch_lsn,
            traceparent: String::new(),
        };
        let txn = claims::announce(self.store.keys(), held.modified, lease.id, &ready);
        let txn = txn.map_err(Problem::Failed)?;
        match self.store.transact(&txn).await {
            Ok(Outcome::Done(_)) => {}
            Ok(Outcome::Conflict) => return Err(Problem::NotNow("the key has changed")),
            Err(error) => return Err(Problem::Failed(error.to_string())),
        }
        self.urge.bump();
        self.world.count("primaries announced");
        let branch = Branch { epoch, timeline: promotion.timeline };
        self.journal(|journal| (journal.branch, journal.recruit) = (Some(branch), None)).await;
        let there = |mirror: &Mirror| mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch >= epoch);
        match self.seen(there).await {
            true => Ok(()),
            false => Err(Problem::NotNow("the key `ready` isn't in sight")),
        }
    }

    /// Waits a while until the mirror shows it.
    async fn seen(&self, there: impl Fn(&Mirror) -> bool) -> bool {
        let changed = self.store.changed();
        let look = async {
            loop {
                let mut known = changed.version();
                if self.store.mirror().is_some_and(|mirror| there(&mirror)) {
                    return;
                }
                changed.changed(&mut known).await;
            }
        };
        self.world.within_time(self.host, SAMPLE, look).await.is_some()
    }

    async fn promotion(&self, epoch: Epoch) -> Result<Promotion, Problem> {
        let known = self.look(|state, _| state.promotion.clone());
        if known.epoch == epoch && known.timeline > 0 {
            return Ok(known);
        }
        self.world.pass(MS, 10 * MS).await;
        let primary = self.machine.primary().filter(|server| server.process.runs());
        let found = primary.and_then(|_| self.machine.with_data(|data| (data.timeline(), data.switch())));
        let (timeline, switch_lsn) = found.ok_or(Problem::NotNow("PostgreSQL has not said its timeline yet"))?;
        let promotion = Promotion { epoch, timeline, switch_lsn, traceparent: String::new() };
        self.note(|state, _| state.promotion = promotion.clone());
        Ok(promotion)
    }

    pub(super) async fn put_back(&self, epoch: Epoch) -> Done {
        let (mirror, lease) = self.standing()?;
        let txn = claims::put_back(self.store.keys(), &mirror, &self.uid, epoch, lease.id);
        let txn = txn.map_err(Problem::Failed)?;
        match self.store.transact(&txn).await {
            Ok(Outcome::Done(_)) => self.world.count("keys put back"),
            Ok(Outcome::Conflict) => return Err(Problem::NotNow("things have changed")),
            Err(error) => return Err(Problem::Failed(error.to_string())),
        }
        let _ = self.seen(|mirror| mirror.primary.is_some()).await;
        Ok(())
    }

    fn standing(&self) -> Result<(Arc<Mirror>, LeaseState), Problem> {
        let found = self.look(|state, now| {
            let lease = state.lease.clone().filter(|lease| now < lease.deadline);
            state.mirror.clone().zip(lease)
        });
        found.ok_or(Problem::NotNow("not registered in etcd"))
    }
}
