//! R4: the guard is armed before the server may acknowledge a commit, in each step that leads there.

use stolon::{model::Epoch, task::clock};

use super::{Hands, StepError};
use crate::shared::Shared;

/// Dropped when the server counts as one that may serve, or when it never will: what the guard is told follows that.
pub(super) struct Arming(Shared);

impl Hands {
    /// Returns when the guard holds the deadline of the authority for `epoch`.
    pub(super) async fn arm(&self, epoch: Epoch) -> Result<Arming, StepError> {
        self.granted(epoch)?;
        let began = clock::now();
        let request = self.shared.change(|state, _| {
            state.arming = Some(epoch);
            state.arms += 1;
            state.arms
        });
        let arming = Arming(self.shared.clone());
        self.guard.armed(epoch, request).await.map_err(StepError::Guard)?;
        tracing::debug!(%epoch, took_us = clock::now().since(began).as_micros() as u64, "the guard is armed");
        Ok(arming)
    }
}

impl Drop for Arming {
    fn drop(&mut self) {
        self.0.change(|state, _| state.arming = None);
    }
}
