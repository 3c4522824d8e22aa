//! Logs and traces: lines on standard error, spans to an OTLP collector when one is named, and the W3C context that
//! makes one failover one trace across daemons. A missing collector costs a line in the log, and nothing else.

mod args;
mod context;
mod export;
mod setup;
#[cfg(test)]
mod tests;

pub use args::{LogColor, LogLevel, TelemetryArgs};
pub use context::{continue_from, traceparent};
pub use setup::{Telemetry, init};
