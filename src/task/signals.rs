//! The requests to end that a daemon understands.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Shutdown;

/// SIGTERM and SIGINT, which no longer end the process by themselves.
pub struct EndRequests {
    terminate: Signal,
    interrupt: Signal,
}

impl EndRequests {
    pub fn listen() -> Result<EndRequests, String> {
        let open = |kind| signal(kind).map_err(|error| format!("signals can't be received: {error}"));
        Ok(EndRequests { terminate: open(SignalKind::terminate())?, interrupt: open(SignalKind::interrupt())? })
    }

    /// Returns when one arrives, after a line in the log. May be dropped: nothing is lost.
    pub async fn next(&mut self) {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "asked to end");
    }
}

/// A task: the first request triggers the shutdown.
pub async fn end_on_request(shutdown: Shutdown) -> Result<(), String> {
    let mut requests = EndRequests::listen()?;
    tokio::select! {
        () = shutdown.requested() => {}
        () = requests.next() => shutdown.trigger(),
    }
    Ok(())
}
