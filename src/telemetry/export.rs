//! The way to the collector: a thread and a runtime of its own, so that nothing of it runs where failovers are made; and
//! one line in the log when the collector can't be reached, one when it can again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter},
};
use tokio::runtime::Runtime;

use crate::cli::{NO_USER, collector, has_user};

/// Spans are sent this long after they ended, at the latest, unless OTEL_BSP_SCHEDULE_DELAY says otherwise.
const DELAY: Duration = Duration::from_secs(1);
/// Bound of the last flush.
const FLUSH: Duration = Duration::from_secs(1);

/// Exports spans until it is shut down.
pub(super) struct Export {
    pub provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

/// The collector's URL, by flag or by OTEL's variables; None when no traces are wanted.
pub(super) fn endpoint(
    flag: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let off = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || set("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let named = flag.map(|url| ("--otlp-endpoint", url.to_owned()));
    let by = |name: &'static str| set(name).map(|url| (name, url));
    let named =
        named.or_else(|| by("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")).or_else(|| by("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let Some((source, url)) = named.filter(|_| !off) else { return Ok(None) };
    if has_user(&url) {
        return Err(format!("{source}: {NO_USER}"));
    }
    let url = if url.contains("://") { url } else { format!("http://{url}") };
    collector(&url).map(Some).map_err(|problem| format!("{source} {url}: {problem}"))
}

impl Export {
    pub fn start(url: &str, resource: Resource) -> Result<Export, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .map_err(|error| format!("no thread for the OTLP exporter: {error}"))?;
        let exporter = {
            let _inside = runtime.enter();
            opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(url)
                .build()
                .map_err(|error| format!("OTLP exporter to {url}: {error}"))?
        };
        let quiet =
            Quiet { inner: exporter, failing: AtomicBool::new(false), url: url.to_owned(), tell: Arc::new(log) };
        let mut batches = BatchConfigBuilder::default();
        if std::env::var_os("OTEL_BSP_SCHEDULE_DELAY").is_none() {
            batches = batches.with_scheduled_delay(DELAY);
        }
        let processor = BatchSpanProcessor::builder(quiet).with_batch_config(batches.build()).build();
        let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
        Ok(Export { provider, runtime: Some(runtime) })
    }

    /// Sends what is left, within `FLUSH`.
    pub fn shutdown(&mut self) {
        // An error was logged when it was met, and there is nobody left to act on it.
        let _ = self.provider.shutdown_with_timeout(FLUSH);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the collector is told of this process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
pub(super) fn resource(service: &'static str, instance: &str) -> Resource {
    let given = Resource::builder().build();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = [
        ("service.name", service),
        ("service.instance.id", instance),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", host.trim()),
    ];
    let unset = |key: &'static str| match given.get(&key.into()) {
        None => true,
        Some(value) => key == "service.name" && value.as_str().starts_with("unknown_service"),
    };
    let added = own.into_iter().filter(|(key, _)| unset(key));
    Resource::builder().with_attributes(added.map(|(key, value)| KeyValue::new(key, value.to_owned()))).build()
}

fn log(url: &str, problem: Option<&str>) {
    match problem {
        Some(problem) => {
            tracing::warn!(collector = url, problem, "traces can't be exported and are dropped until they can")
        }
        None => tracing::info!(collector = url, "traces are exported again"),
    }
}

/// Gets the URL and the problem, None when it is over.
type Tell = Arc<dyn Fn(&str, Option<&str>) + Send + Sync>;

/// An exporter that tells of its troubles once, not at each batch.
pub(super) struct Quiet<E> {
    pub inner: E,
    pub failing: AtomicBool,
    pub url: String,
    pub tell: Tell,
}

impl<E> fmt::Debug for Quiet<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quiet").field("url", &self.url).finish_non_exhaustive()
    }
}

impl<E: SpanExporter> SpanExporter for Quiet<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(batch).await;
        let failing = result.is_err();
        if self.failing.swap(failing, Ordering::Relaxed) != failing {
            let problem = result.as_ref().err().map(|error| error.to_string().replace('\n', " "));
            (self.tell)(&self.url, problem.as_deref());
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
