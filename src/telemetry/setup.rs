//! Puts the subscriber together: lines for people filtered by level, spans of our own code for the collector.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::FilterFn, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{
    LogColor, LogLevel, TelemetryArgs,
    export::{self, Export},
};

/// Keeps the export going. Shut it down at the end of the process, or the last second of traces is lost.
#[must_use]
pub struct Telemetry {
    pub(super) export: Option<Export>,
}

impl Telemetry {
    /// Sends what is left, within a second.
    pub fn shutdown(mut self) {
        if let Some(export) = &mut self.export {
            export.shutdown();
        }
    }
}

/// Sets the process's logs and traces up, once, at its start. `service` is such as `stolon-keeper`, `instance` the
/// component's uid. An error is one line for people. Needs no runtime.
pub fn init(args: &TelemetryArgs, service: &'static str, instance: &str) -> Result<Telemetry, String> {
    let (subscriber, telemetry) = build(args, service, instance)?;
    subscriber.try_init().map_err(|error| format!("logs are set up already: {error}"))?;
    Ok(telemetry)
}

pub(super) fn build(
    args: &TelemetryArgs,
    service: &'static str,
    instance: &str,
) -> Result<(impl Subscriber + Send + Sync, Telemetry), String> {
    let url = export::endpoint(args.otlp_endpoint.as_deref(), |name| std::env::var(name).ok())?;
    let export = url.map(|url| Export::start(&url, export::resource(service, instance))).transpose()?;
    let spans = export.as_ref().map(|export| {
        tracing_opentelemetry::layer::<Registry>()
            .with_tracer(export.provider.tracer("stolon"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(ours).with_max_level_hint(LevelFilter::INFO))
    });
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colour(args.log_color))
        .with_filter(filter(args.log_level, std::env::var("RUST_LOG").ok())?);
    Ok((Registry::default().with(spans).with(lines), Telemetry { export }))
}

/// Spans and events of our own crates; what tonic, h2 and the exporter itself do is no part of a failover's story.
fn ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("stolon") && *metadata.level() <= LevelFilter::INFO
}

pub(super) fn filter(level: LogLevel, rust_log: Option<String>) -> Result<EnvFilter, String> {
    if let Some(text) = rust_log.filter(|text| !text.is_empty()) {
        return EnvFilter::try_new(&text).map_err(|error| format!("RUST_LOG {text:?} can't be used: {error}"));
    }
    let directives = match level {
        LogLevel::Debug => "warn,stolon=debug",
        LogLevel::Info => "warn,stolon=info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    EnvFilter::try_new(directives).map_err(|error| error.to_string())
}

fn colour(when: LogColor) -> bool {
    match when {
        LogColor::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        LogColor::True => true,
        LogColor::False => false,
    }
}
