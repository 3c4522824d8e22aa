//! Starting the server, as a primary under authority or as a standby, and turning a standby to another upstream.

use stolon::model::{Epoch, view::Upstream};

use super::{Done, Hands, StepError};
use crate::{
    journal::Branch,
    pg::{ConfRole, PmStatus, Postmaster},
    state::Phase,
    synchronous::Synchronous,
};

impl Hands {
    /// The epoch is on disk before the server runs in it (R11).
    pub(super) async fn start_primary(&self, epoch: Epoch) -> Done {
        self.journal(|journal| {
            self.reign(journal, epoch);
            journal.recruit = None;
        })?;
        let synchronous = self.restart_list()?;
        self.shared.note(|state, _| state.synchronous = synchronous.clone());
        self.write_names(ConfRole::Primary, synchronous.names())?;
        self.shared.remains_gone().await;
        let arming = self.arm(epoch).await?;
        self.granted(epoch)?;
        let server = self.spawn(Phase::StartingPrimary)?;
        drop(arming);
        server.wait_status(&[PmStatus::Ready]).await?;
        self.granted(epoch)?;
        self.shared.change(|state, _| state.run.phase = Phase::Primary);
        self.sampler.hurry();
        tracing::info!(%epoch, pid = server.id().pid, "PostgreSQL runs as primary");
        Ok(())
    }

    pub(super) async fn start_standby(&self, upstream: Option<&Upstream>) -> Done {
        let address = upstream.and_then(|upstream| upstream.address.clone());
        self.shared.note(|state, _| state.synchronous = Synchronous::default());
        self.write_conf(ConfRole::Standby { upstream: address.clone() })?;
        if let Some(upstream) = upstream.filter(|_| address.is_some()) {
            self.on_branch_of(upstream)?;
        }
        self.shared.remains_gone().await;
        let server = self.spawn(Phase::StartingStandby)?;
        let following = upstream.filter(|_| address.is_some()).cloned();
        self.shared.change(|state, _| state.following = following);
        server.wait_status(&[PmStatus::Ready]).await?;
        self.shared.change(|state, _| state.run.phase = Phase::Standby);
        self.sampler.hurry();
        self.shared.urge(String::new());
        tracing::info!(
            pid = server.id().pid,
            upstream = upstream.map(|u| u.db.to_string()),
            "PostgreSQL runs as standby"
        );
        Ok(())
    }

    fn spawn(&self, phase: Phase) -> Result<Postmaster, StepError> {
        self.sampler.forget();
        let server = tokio::task::block_in_place(|| Postmaster::spawn(&self.instance))?;
        self.shared.started(&server, phase);
        Ok(server)
    }

    pub(super) async fn follow(&self, upstream: &Upstream) -> Done {
        let server = self.shared.running().ok_or_else(|| StepError::NotNow("PostgreSQL does not run".into()))?;
        self.on_branch_of(upstream)?;
        if self.write_conf(ConfRole::Standby { upstream: upstream.address.clone() })?.needs_reload() {
            server.reload().await?;
        }
        self.shared.change(|state, _| state.following = Some(upstream.clone()));
        tracing::info!(upstream = %upstream.db, address = ?upstream.address, "following");
        Ok(())
    }

    /// From now on this data's history is that of the primary that serves (R11). A recruit's promise is fulfilled.
    pub(super) fn on_branch_of(&self, upstream: &Upstream) -> Done {
        let mirror = self.shared.look(|state, _| state.mirror.clone());
        let ready = mirror.and_then(|mirror| mirror.ready.clone()).filter(|ready| ready.value.db == upstream.db);
        let ready = ready.ok_or_else(|| StepError::NotNow(format!("db {} does not serve as primary", upstream.db)))?;
        let branch = Some(Branch { epoch: ready.value.epoch, timeline: ready.value.timeline });
        let known = self.shared.look(|state, _| state.journal.branch == branch && state.journal.recruit.is_none());
        if known { Ok(()) } else { self.journal(|journal| (journal.branch, journal.recruit) = (branch, None)) }
    }
}
