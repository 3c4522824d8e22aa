//! R8: leave the primary of the ending epoch, replay to the end, promise, and only then report.

use std::time::Duration;

use stolon::{
    model::{Epoch, registration::Recruit},
    telemetry,
};
use tracing::{Instrument, info_span};

use super::{Done, Hands, StepError};
use crate::pg::ConfRole;

/// A standby may have much to replay; the sentinel waits as long as its specification says.
const REPLAY: Duration = Duration::from_secs(300);

impl Hands {
    pub(super) async fn recruit(&self, epoch: Epoch) -> Done {
        let context = self.mark_context();
        let span = info_span!("recruited", rule = "R8", epoch = epoch.0, keeper = %self.shared.look(|state, _| state.me.clone()));
        telemetry::continue_from(&span, &context);
        self.recruit_traced(epoch).instrument(span).await
    }

    async fn recruit_traced(&self, epoch: Epoch) -> Done {
        let server = self.shared.running().ok_or_else(|| StepError::NotNow("PostgreSQL does not run".into()))?;
        self.write_conf(ConfRole::Standby { upstream: None })?;
        self.shared.change(|state, _| state.following = None);
        let position = server.recruit(REPLAY).await?;
        self.journal(|journal| {
            journal.promised = journal.promised.max(epoch);
            journal.recruit = Some(Recruit { epoch: epoch.next(), position });
        })?;
        self.shared.urge(telemetry::traceparent(&tracing::Span::current()));
        tracing::info!(%epoch, %position, "left the primary, and consented to the next epoch");
        Ok(())
    }
}
