//! Flags of logs and traces, the same for all programs.

use clap::{Args, ValueEnum};

use crate::cli::{UrlParser, collector};

/// What is told, and to whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs and traces")]
pub struct TelemetryArgs {
    /// Least important lines that are logged. The environment variable RUST_LOG wins over it.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Colours in the log: on a terminal only (auto), always (true) or never (false).
    #[arg(long, value_name = "WHEN", default_value = "auto", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub log_color: LogColor,
    /// URL of an OTLP collector (gRPC) that gets the traces, such as http://127.0.0.1:4317. The standard OTEL_*
    /// variables work too. Neither given: no traces.
    #[arg(long, value_name = "URL", hide_env_values = true, value_parser = UrlParser(collector))]
    pub otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogColor {
    #[default]
    Auto,
    True,
    False,
}

impl Default for TelemetryArgs {
    fn default() -> TelemetryArgs {
        TelemetryArgs { log_level: LogLevel::Info, log_color: LogColor::Auto, otlp_endpoint: None }
    }
}
