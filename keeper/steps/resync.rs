//! R11: becoming a copy of a primary. What lies in the directory is kept if it can follow, else rewound, else replaced by
//! a base backup made beside it; nothing is deleted before its replacement is complete.

use stolon::model::{
    DbUid, WalPosition,
    registration::ReadyKey,
    view::{Assignment, Upstream},
};

use super::{Done, Hands, StepError, is_copy};
use crate::{
    journal::{Branch, DbState},
    pg::{ClusterState, ConfRole, Control, DataState, PgError, Server},
    plan::{Data, Fit, Method, fit},
};

/// To keep whole data, before they are copied anew.
const ATTEMPTS: u32 = 3;

impl Hands {
    pub(super) async fn resync(&self, db: &DbUid, upstream: &Upstream, method: Method) -> Done {
        let assignment = self.assignment()?;
        let (Some((host, port)), true) = (upstream.address.clone(), is_copy(&assignment, db)) else {
            return Err(StepError::NotNow("another copy is wanted now".into()));
        };
        let ready = self.ready(upstream)?;
        self.stop().await?;
        self.join_cluster()?;
        let server = Server { host, port };
        self.copying(true);
        let made = self.make(&assignment, &server, &ready, method).await;
        self.copying(false);
        made?;
        self.shared.note(|state, _| state.keep_failures = 0);
        self.journal(|journal| {
            journal.branch = Some(Branch { epoch: ready.epoch, timeline: ready.timeline });
            (journal.recruit, journal.primary_epoch) = (None, Default::default());
        })?;
        self.db_state(|state| *state = DbState { uid: Some(db.clone()), ..DbState::default() })?;
        self.look_at_control().await
    }

    fn ready(&self, upstream: &Upstream) -> Result<ReadyKey, StepError> {
        let mirror = self.shared.look(|state, _| state.mirror.clone());
        let ready = mirror.and_then(|mirror| mirror.ready.as_ref().map(|held| held.value.clone()));
        ready
            .filter(|ready| ready.db == upstream.db)
            .ok_or_else(|| StepError::NotNow(format!("db {} does not serve as primary", upstream.db)))
    }

    async fn make(&self, assignment: &Assignment, server: &Server, ready: &ReadyKey, method: Method) -> Done {
        let data = self.shared.look(|state, _| state.data);
        self.refuse_foreign(server).await?;
        if method == Method::KeepIfPossible && matches!(data, Data::Primary | Data::Standby) {
            match self.keep(assignment, server, ready).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if self.may_pass(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the data in this directory can't be kept, so it is copied anew");
                    self.look_at_data();
                }
            }
        }
        tracing::info!(from = %ready.db, host = server.host, port = server.port, "copying the primary by pg_basebackup");
        self.instance.base_backup(server, &assignment.db.slot()).await?;
        tracing::info!("the copy is complete");
        Ok(())
    }

    /// What failed may succeed when tried again, and the data are still whole. A copy of a large database takes hours.
    fn may_pass(&self, error: &StepError) -> bool {
        let whole = matches!(self.instance.data_state(), DataState::Primary | DataState::Standby);
        match error {
            StepError::NotNow(_) | StepError::Store(_) | StepError::Journal(_) | StepError::Guard(_) => true,
            StepError::Postgres(PgError::Refused(_)) => false,
            StepError::Postgres(_) if !whole => false,
            StepError::Postgres(_) => self.shared.note(|state, _| {
                state.keep_failures += 1;
                state.keep_failures < ATTEMPTS
            }),
        }
    }

    /// Data of another database are nobody's to replace.
    async fn refuse_foreign(&self, server: &Server) -> Done {
        if !self.instance.is_initialized() {
            return Ok(());
        }
        let (ours, theirs) = (self.instance.control().await?.system_id, self.instance.ask(server).await?.system_id);
        if ours == theirs {
            return Ok(());
        }
        let dir = self.instance.data_dir();
        Err(StepError::Postgres(PgError::Refused(format!(
            "{} holds another database (system identifier {ours}, the primary's is {theirs}): move it away, or give the \
             keeper another data directory",
            dir.display()
        ))))
    }

    /// True when the present data can go on as a standby of this primary.
    async fn keep(&self, assignment: &Assignment, server: &Server, ready: &ReadyKey) -> Result<bool, StepError> {
        let control = self.instance.control().await?;
        let lineage = self.view()?.lineage;
        let (branch, data) = self.shared.look(|state, _| {
            let timeline = control.known_position().timeline;
            (state.journal.branch_of_primary(timeline), state.data)
        });
        match fit(branch, Some(end(&control)), &lineage, ready) {
            Fit::OtherLineage => {
                tracing::warn!("this data comes from a promotion that is no part of the cluster's history");
                return Ok(false);
            }
            Fit::Follows if control.state.is_clean() => {
                if data == Data::Primary {
                    tracing::info!("the former primary's data are part of the new one's history: it follows as it is");
                    self.write_conf(ConfRole::Standby { upstream: None })?;
                }
                return Ok(true);
            }
            _ => {}
        }
        if !assignment.use_pg_rewind {
            tracing::info!("this data went its own way, and usePgrewind is off");
            return Ok(false);
        }
        tracing::info!(to = %ready.db, "rewinding by pg_rewind");
        let how = self.instance.rewind(server).await?;
        tracing::info!(?how, "pg_rewind is done");
        Ok(true)
    }
}

/// A lower bound of the end of WAL; after a clean stop of a primary just past the start of its last record. (A standby's
/// is the end of a record already.)
fn end(control: &Control) -> WalPosition {
    let mut position = control.known_position();
    position.lsn.0 += u64::from(control.state == ClusterState::ShutDown);
    position
}
