//! The synchronous list in PostgreSQL (R18 to R21): told so that no commit escapes it, proven before anybody is counted.

use std::time::Duration;

use stolon::model::{
    cluster::BLOCKING_NAME,
    view::{Assignment, Role},
};

use super::{Done, Hands, StepError};
use crate::{
    pg::{ConfRole, Postmaster},
    synchronous::{Synchronous, blocked},
};

/// For seeing a commit hang: a few milliseconds, or as long as the checkpointer is busy with its last file.
const PROOF: Duration = Duration::from_secs(5);
/// Before the next try, when backends don't wait yet.
const AGAIN: Duration = Duration::from_millis(20);

/// Application names that commits are to wait for in this role: the assignment's, all of them; as a standby of a synchronous
/// cluster nobody's, so that the first commits after a promotion wait (R21).
pub fn wanted(assignment: &Assignment, role: &ConfRole) -> Vec<String> {
    match (&assignment.role, role) {
        (Role::Primary { synchronous_names, .. }, ConfRole::Primary) => synchronous_names.clone(),
        _ if assignment.synchronous => vec![BLOCKING_NAME.to_owned()],
        _ => Vec::new(),
    }
}

impl Hands {
    /// The list to start a primary with: the wanted names and the blocking one, until commits were seen to wait; only
    /// internal users until the standbys have caught up, because a restart makes waiting commits visible (R20).
    pub(super) fn restart_list(&self) -> Result<Synchronous, StepError> {
        let names = wanted(&self.assignment()?, &ConfRole::Primary);
        let list = if names.is_empty() { names.clone() } else { blocked(&names) };
        Ok(Synchronous::started(list, !names.is_empty()))
    }

    /// Writes the settings for this role and makes the server read them. A list that begins goes by way of the blocking
    /// name: only a commit that hangs shows that backends wait at all.
    pub(super) async fn settings(&self, server: &Postmaster, role: ConfRole) -> Done {
        let names = wanted(&self.assignment()?, &role);
        let waits = self.shared.look(|state, _| state.synchronous.waits());
        if role == ConfRole::Primary && !names.is_empty() && !waits {
            let list = blocked(&names);
            self.tell(server, role.clone(), &list).await?;
            self.prove_waiting().await?;
        }
        self.tell(server, role, &names).await
    }

    async fn tell(&self, server: &Postmaster, role: ConfRole, names: &[String]) -> Done {
        let change = self.write_names(role, names)?;
        // What a former keeper wrote last, the server may never have been told.
        let adopted = self.shared.look(|state, _| state.applied.is_none());
        if change.needs_reload() || adopted {
            server.reload().await?;
        }
        if change.needs_reload() {
            tracing::info!(parameters = ?change.parameters, hba = change.hba, "PostgreSQL reads its settings anew");
        }
        self.shared.change(|_, _| ());
        Ok(())
    }

    /// Execution 19: a promoted standby that runs with the blocking name has proven that its commits wait before clients
    /// are sent to it.
    pub(super) async fn first_commits_wait(&self) -> Done {
        let unproven = self.shared.look(|state, _| {
            let list = &state.synchronous;
            !list.waits() && list.names().iter().any(|name| name == BLOCKING_NAME)
        });
        if unproven { self.prove_waiting().await } else { Ok(()) }
    }

    /// Returns when a commit was seen to hang. The list in force must hold the blocking name.
    async fn prove_waiting(&self) -> Done {
        let all = async {
            while !self.instance.commits_wait(PROOF).await? {
                tokio::time::sleep(AGAIN).await;
            }
            Ok::<_, StepError>(())
        };
        match tokio::time::timeout(PROOF, all).await {
            Ok(proven) => proven?,
            Err(_) => {
                let problem =
                    "commits don't wait for the synchronous list yet: PostgreSQL's checkpointer has not read it";
                return Err(StepError::NotNow(problem.into()));
            }
        }
        self.shared.change(|state, _| state.synchronous.seen_waiting());
        Ok(())
    }

    /// R20: the standbys have caught up, everybody may come in.
    pub(super) async fn admit(&self) -> Done {
        let server = self.shared.running().ok_or_else(|| StepError::NotNow("PostgreSQL does not run".into()))?;
        self.shared.note(|state, _| state.synchronous.restricted = false);
        if self.write_conf(ConfRole::Primary)?.needs_reload() {
            server.reload().await?;
        }
        self.shared.change(|_, _| ());
        tracing::info!("everybody is admitted: the synchronous standbys have caught up");
        Ok(())
    }
}
