//! Brings a server that runs as it should to the wanted generation: parameters, access, slots; and lets go of data that
//! its copy has replaced.

use std::collections::BTreeSet;

use stolon::model::{
    DbUid, Generation,
    view::{Assignment, Role},
};

use super::{Done, Hands, StepError};
use crate::pg::{ConfRole, Expendable};

impl Hands {
    pub(super) async fn apply(&self, db: &DbUid, generation: Generation) -> Done {
        let assignment = self.assignment()?;
        let server = self.shared.running().ok_or_else(|| StepError::NotNow("PostgreSQL does not run".into()))?;
        if assignment.db != *db || assignment.generation != generation {
            return Err(StepError::NotNow("another generation is wanted now".into()));
        }
        let role = match &assignment.role {
            Role::Primary { .. } => ConfRole::Primary,
            Role::Standby(upstream) => ConfRole::Standby { upstream: upstream.address.clone() },
        };
        self.settings(&server, role).await?;
        self.instance.refresh_slots(&slots(&assignment)).await?;
        self.db_state(|state| state.generation = generation)?;
        self.shared.change(|state, _| state.applied = Some((db.clone(), generation)));
        self.shared.urge(String::new());
        self.let_go(&server).await
    }

    async fn let_go(&self, server: &crate::pg::Postmaster) -> Done {
        let Some(old) = Expendable::of(server) else { return Ok(()) };
        tracing::info!(folders = ?old.folders(), "removing data that a complete copy has replaced");
        Ok(old.remove().await?)
    }
}

/// Slots that a server in this role has.
pub(super) fn slots(assignment: &Assignment) -> BTreeSet<String> {
    match &assignment.role {
        Role::Primary { followers, additional_slots, .. } => {
            let own = followers.iter().map(DbUid::slot);
            own.chain(additional_slots.iter().map(|name| format!("stolon_{name}"))).collect()
        }
        Role::Standby(_) => BTreeSet::new(),
    }
}
