//! Ends of the server: at once (R4), in good order, and for good in an epoch (R2 i).

use std::time::Duration;

use stolon::model::Epoch;

use super::{Done, Hands};

/// A fast stop writes a checkpoint; what does not end in this time is killed.
const STOP: Duration = Duration::from_secs(60);
/// Under a planned mark clients wait: a checkpoint was written before.
const HAND_OVER: Duration = Duration::from_secs(10);
/// For standbys to fetch the shutdown checkpoint: milliseconds, unless one is frozen or far behind.
const LAST_FETCH: Duration = Duration::from_secs(2);
/// The checkpoint before a planned stop, during which clients work on.
const CHECKPOINT: Duration = Duration::from_secs(30);

impl Hands {
    fn asked(&self) {
        self.shared.change(|state, _| state.run.asked = true);
    }

    /// SIGKILL to all of PostgreSQL; what a dead postmaster left behind goes with it.
    pub(super) async fn kill(&self) -> Done {
        self.asked();
        if let Some(server) = self.shared.running() {
            let killed = server.kill_all().await;
            tracing::warn!(
                processes = killed.processes,
                took_ms = killed.took.as_millis() as u64,
                "PostgreSQL was killed"
            );
            self.shared.ended(server.id());
        }
        self.look_at_data();
        Ok(())
    }

    pub(super) async fn stop(&self) -> Done {
        self.asked();
        if let Some(server) = self.shared.running() {
            let clean = server.fast_stop(STOP).await;
            tracing::info!(clean, "PostgreSQL was stopped");
            self.shared.ended(server.id());
        }
        self.look_at_control().await
    }

    /// Most of the shutdown's work, done while clients still write (R8).
    pub(super) async fn prepare(&self, epoch: Epoch) -> Done {
        let began = std::time::Instant::now();
        let written = tokio::time::timeout(CHECKPOINT, self.instance.checkpoint()).await;
        let written = matches!(written, Ok(Ok(_)));
        tracing::info!(%epoch, written, took_ms = began.elapsed().as_millis() as u64, "checkpoint before the handover");
        self.shared.change(|state, _| state.prepared = epoch);
        self.shared.urge(String::new());
        Ok(())
    }

    /// Never again primary in epochs up to this one: the server is gone, then the promise is on disk, then it is told.
    pub(super) async fn give_up(&self, epoch: Epoch, planned: bool) -> Done {
        match (planned, self.shared.running()) {
            (true, Some(server)) => {
                self.asked();
                server.stop_for_handover(HAND_OVER, LAST_FETCH).await;
                self.shared.ended(server.id());
            }
            _ => self.kill_remains().await?,
        }
        // Told together with the promise: one without the other would look like a stop in disorder.
        let clean = self.note_the_end();
        if planned {
            tracing::info!(%epoch, clean, "PostgreSQL was stopped to be handed over");
        }
        self.journal(|journal| {
            journal.promised = journal.promised.max(epoch);
            journal.recruit = None;
        })?;
        tracing::info!(%epoch, "gave the epoch up");
        self.shared.urge(self.mark_context());
        Ok(())
    }

    /// Also sessions that outlived their postmaster.
    async fn kill_remains(&self) -> Done {
        let last = self.shared.server().borrow().clone();
        match last {
            Some(server) => {
                self.asked();
                server.kill_all().await;
                self.shared.ended(server.id());
                self.look_at_data();
                Ok(())
            }
            None => {
                tokio::task::block_in_place(|| self.instance.kill_leftovers());
                Ok(())
            }
        }
    }

    /// The end of WAL after a stop in good order. False when there was none: what the server wrote last is then not known.
    pub(super) fn note_the_end(&self) -> bool {
        self.look_at_data();
        let Some(end) = tokio::task::block_in_place(|| self.instance.shut_down_at()) else { return false };
        self.shared.change(|state, _| (state.stopped_at, state.stopped_clean) = (Some(end), true));
        true
    }

    /// Trace context of the mark in force; empty for none.
    pub(super) fn mark_context(&self) -> String {
        let mark = self.shared.look(|state, _| state.view.as_ref().and_then(|view| view.fencing.clone()));
        mark.map(|mark| mark.traceparent).unwrap_or_default()
    }
}
