//! What the loop does not wait for, as `sentinel/lead/errands.rs` has it.

use std::{rc::Rc, time::Duration};

use stolon::{model::LeaseId, store::StoreError};
use stolon_sentinel::{decide::Action, election::Leadership, observe::Probe};

use super::Sentinel;
use crate::{
    keeper::host_of,
    probe::{dial, knock},
    world::SEC,
};

const DEADLINE: Duration = Duration::from_millis(450);

impl Sentinel {
    pub(super) fn errand(self: &Rc<Sentinel>, action: &Action, leadership: &Leadership) {
        let (own, asked) = (self.clone(), self.now());
        let rt = &self.world.rt;
        match action {
            Action::AskWitnesses { target, .. } => {
                self.world.count("rounds of witnesses");
                let (target, asked) = (target.clone(), self.ask_all(target));
                rt.spawn(&self.process, async move {
                    let result = knock(&own.town, own.host, host_of(&target), DEADLINE).await;
                    own.seen.borrow_mut().own_witness(&target, asked, result);
                    own.woken.bump();
                });
            }
            Action::Redial { keeper, .. } => {
                let keeper = keeper.clone();
                self.seen.borrow_mut().redials.insert(keeper.clone(), Probe { asked, result: None });
                rt.spawn(&self.process, async move {
                    let result = Some(dial(&own.town, own.host, host_of(&keeper), DEADLINE).await);
                    own.seen.borrow_mut().redials.insert(keeper, Probe { asked, result });
                    own.woken.bump();
                });
            }
            Action::KnockPostgres { keeper, .. } => {
                let keeper = keeper.clone();
                self.seen.borrow_mut().knocks.insert(keeper.clone(), Probe { asked, result: None });
                rt.spawn(&self.process, async move {
                    let result = Some(knock(&own.town, own.host, host_of(&keeper), DEADLINE).await);
                    own.seen.borrow_mut().knocks.insert(keeper, Probe { asked, result });
                    own.woken.bump();
                });
            }
            Action::MeasureLease { lease, .. } if self.leases.borrow_mut().insert(*lease) => {
                rt.spawn(&self.process, own.measure(*lease));
            }
            Action::RevokeLease { lease, .. } if self.leases.borrow_mut().insert(*lease) => {
                self.world.count("leases of proxies revoked");
                rt.spawn(&self.process, own.revoke(*lease, leadership.clone()));
            }
            Action::MeasureLease { .. } | Action::RevokeLease { .. } | Action::Commit(_) | Action::Resign => {}
        }
    }

    async fn measure(self: Rc<Sentinel>, lease: LeaseId) {
        match self.store.granted_ttl(lease).await {
            Ok(ttl) => drop(self.seen.borrow_mut().ttls.insert(lease, ttl.unwrap_or_default())),
            Err(_) => self.world.rt.sleep(SEC).await,
        }
        self.leases.borrow_mut().remove(&lease);
        self.woken.bump();
    }

    async fn revoke(self: Rc<Sentinel>, lease: LeaseId, leadership: Leadership) {
        let attempt = async {
            let mirror = self.store.read().await?;
            match self.leadership(self.now(), &mirror) {
                Some(still) if still.continues(&leadership) => self.store.revoke(lease).await,
                _ => Err(StoreError::Refused("another sentinel leads".into())),
            }
        };
        let left = leadership.remaining(self.now());
        if !matches!(self.world.within_time(self.host, left, attempt).await, Some(Ok(()))) {
            self.world.rt.sleep(SEC).await;
        }
        self.leases.borrow_mut().remove(&lease);
        self.woken.bump();
    }
}
