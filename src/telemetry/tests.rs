//! Traces as a collector in this process receives them, and what a missing one costs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span as Received,
};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use tracing::{Instrument, Span, info_span};

use super::{
    LogColor, LogLevel, TelemetryArgs, continue_from,
    export::{Quiet, endpoint},
    setup, traceparent,
};
use crate::{
    rpc::{Dialer, GrpcArgs, Listener, Services, TlsArgs},
    task::Shutdown,
    wire::v1::{
        GetProxyStatusRequest, GetProxyStatusResponse, proxy_service_client::ProxyServiceClient,
        proxy_service_server::*,
    },
};

/// A span with the attributes of its process.
type Kept = (Received, Vec<KeyValue>);

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Kept>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let resource = of_process.resource.unwrap_or_default().attributes;
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (span, resource.clone())));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// It serves on a thread of its own, as it is another process in life.
    fn start() -> (Collector, String) {
        let collector = Collector::default();
        let service = TraceServiceServer::new(collector.clone());
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(socket).unwrap());
                let _ = Server::builder().add_service(service).serve_with_incoming(incoming).await;
            });
        });
        (collector, url)
    }

    fn span(&self, name: &str) -> Received {
        let all = self.0.lock().unwrap();
        let mut named = all.iter().filter(|(span, _)| span.name == name);
        let found = named.next().unwrap_or_else(|| panic!("no span {name} among {all:#?}")).0.clone();
        assert!(named.next().is_none(), "more than one {name}: {all:#?}");
        found
    }
}

struct Proxy;

#[tonic::async_trait]
impl ProxyService for Proxy {
    async fn get_proxy_status(
        &self,
        _: Request<GetProxyStatusRequest>,
    ) -> Result<Response<GetProxyStatusResponse>, Status> {
        tracing::info!("asked");
        Err(Status::unavailable("not yet"))
    }
}

fn args(url: &str) -> TelemetryArgs {
    TelemetryArgs { log_level: LogLevel::Error, log_color: LogColor::False, otlp_endpoint: Some(url.to_owned()) }
}

fn loopback() -> GrpcArgs {
    GrpcArgs { grpc_listen_address: "127.0.0.1".into(), grpc_advertise_address: None, tls: TlsArgs::default() }
}

/// A call inside the current span to a server of this process.
async fn call() {
    let listener = Listener::bind(&loopback(), 0, "--port").unwrap();
    let address = listener.advertised();
    let shutdown = Shutdown::new();
    let services = Services::new().with(ProxyServiceServer::new(Proxy));
    let served = tokio::spawn(listener.serve(services, shutdown.clone()));
    let channel = Dialer::new(&loopback()).unwrap().channel(&address).unwrap();
    let refused = ProxyServiceClient::new(channel).get_proxy_status(GetProxyStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.message(), "not yet");
    shutdown.trigger();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_trace_crosses_a_grpc_call_and_a_traceparent_text() {
    let (collector, url) = Collector::start();
    let (subscriber, telemetry) = setup::build(&args(&url), "stolon-proxy", "p1").unwrap();
    let _while_it_lasts = tracing::subscriber::set_default(subscriber);

    let detected = info_span!("detected", epoch = 4);
    let text = traceparent(&detected);
    assert!(text.starts_with("00-") && text.len() == 55, "{text}");
    call().instrument(detected.clone()).await;
    drop(detected);
    // Another daemon, later: only the text is left.
    let promoted = info_span!("promoted", epoch = 5);
    continue_from(&promoted, &text);
    assert_eq!(&traceparent(&promoted)[..35], &text[..35], "the same trace");
    drop(promoted);
    info_span!(target: "h2", "foreign").in_scope(|| {});
    telemetry.shutdown();

    let (detected, promoted) = (collector.span("detected"), collector.span("promoted"));
    assert!(detected.parent_span_id.is_empty() && promoted.parent_span_id == detected.span_id);
    let all = collector.0.lock().unwrap().clone();
    let rpc: Vec<_> = all.iter().filter(|(span, _)| span.name == "stolon.v1.ProxyService/GetProxyStatus").collect();
    let by_kind = |kind: i32| &rpc.iter().find(|(span, _)| span.kind == kind).unwrap().0;
    let (server, client) = (by_kind(2), by_kind(3));
    assert!(client.parent_span_id == detected.span_id && server.parent_span_id == client.span_id);
    assert!(server.events.iter().any(|event| event.name == "asked"), "{server:?}");
    let status = server.attributes.iter().find(|attribute| attribute.key == "rpc.grpc.status_code").unwrap();
    assert_eq!(status.value.clone().unwrap().value, Some(Value::IntValue(14)));
    assert!(all.iter().all(|(span, _)| span.trace_id == detected.trace_id), "one trace and nothing else: {all:#?}");
    assert_eq!(all.len(), 4);
    for (key, value) in [("service.name", "stolon-proxy"), ("service.instance.id", "p1")] {
        let attribute = all[0].1.iter().find(|attribute| attribute.key == key).unwrap();
        assert_eq!(attribute.value.clone().unwrap().value, Some(Value::StringValue(value.into())));
    }
    assert!(all[0].1.iter().any(|attribute| attribute.key == "host.name"));
}

#[tokio::test]
async fn a_collector_that_is_not_there_slows_nothing() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (subscriber, telemetry) = setup::build(&args(&format!("http://{gone}")), "stolon-proxy", "p1").unwrap();
    let guard = tracing::subscriber::set_default(subscriber);
    let began = Instant::now();
    for epoch in 0..10_000 {
        info_span!("detected", epoch).in_scope(|| {});
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?} for 10000 spans", began.elapsed());
    call().instrument(info_span!("detected")).await;
    let began = Instant::now();
    telemetry.shutdown();
    assert!(began.elapsed() < Duration::from_secs(2), "the last flush is bounded: {:?}", began.elapsed());
    drop(guard);
}

#[test]
fn without_a_collector_nothing_is_traced_and_the_calls_do_nothing() {
    let none = TelemetryArgs { otlp_endpoint: None, ..TelemetryArgs::default() };
    let (subscriber, telemetry) = setup::build(&none, "stolon-proxy", "p1").unwrap();
    let _while_it_lasts = tracing::subscriber::set_default(subscriber);
    assert!(telemetry.export.is_none());
    let span = info_span!("detected");
    continue_from(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!((traceparent(&span), traceparent(&Span::none())), (String::new(), String::new()));
    telemetry.shutdown();
}

#[tokio::test]
async fn garbage_for_a_traceparent_is_ignored() {
    let (_, url) = Collector::start();
    let (subscriber, telemetry) = setup::build(&args(&url), "stolon-proxy", "p1").unwrap();
    let _while_it_lasts = tracing::subscriber::set_default(subscriber);
    for garbage in ["", "nonsense", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-é"] {
        let span = info_span!("detected");
        continue_from(&span, garbage);
        assert_eq!(traceparent(&span).len(), 55, "{garbage:?}");
    }
    telemetry.shutdown();
}

#[derive(Debug)]
struct Moody(Arc<AtomicBool>);

impl SpanExporter for Moody {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        let works = self.0.load(Ordering::Relaxed);
        if works { Ok(()) } else { Err(OTelSdkError::InternalFailure("refused\nagain".into())) }
    }
}

#[tokio::test]
async fn trouble_with_the_collector_is_told_once_and_its_end_too() {
    let (works, told) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
    let kept = told.clone();
    let tell = move |url: &str, problem: Option<&str>| {
        kept.lock().unwrap().push((url.to_owned(), problem.map(str::to_owned)));
    };
    let inner = Moody(works.clone());
    let quiet = Quiet { inner, failing: AtomicBool::new(false), url: "http://c".into(), tell: Arc::new(tell) };
    for mood in [true, false, false, false, true, true] {
        works.store(mood, Ordering::Relaxed);
        assert_eq!(quiet.export(Vec::new()).await.is_ok(), mood);
    }
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].1.as_ref().is_some_and(|problem| problem.contains("refused again")), "{told:?}");
    assert_eq!(told[1], ("http://c".to_owned(), None));
}

#[test]
fn the_collector_is_named_by_flag_or_by_otels_variables() {
    let with = |set: &'static [(&str, &str)]| {
        move |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4317");
    assert_eq!(endpoint(None, with(&[])), Ok(None));
    assert_eq!(endpoint(Some("c:4317"), with(&[])), Ok(Some("http://c:4317".into())));
    assert_eq!(
        endpoint(None, with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4317")])),
        Ok(Some(general.1.into()))
    );
    const BOTH: &[(&str, &str)] = &[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
    ];
    assert_eq!(endpoint(None, with(BOTH)), Ok(Some("http://traces:4317".into())));
    assert_eq!(endpoint(Some("http://flag:1"), with(BOTH)), Ok(Some("http://flag:1".into())));
    assert_eq!(endpoint(Some("http://flag:1"), with(&[("OTEL_SDK_DISABLED", "true")])), Ok(None));
    assert_eq!(endpoint(Some("http://flag:1"), with(&[("OTEL_TRACES_EXPORTER", "none")])), Ok(None));
    for (url, word) in [("https://c:4317", "TLS"), ("ftp://c", "no URL"), ("http://", "no URL")] {
        let error = endpoint(Some(url), with(&[])).unwrap_err();
        assert!(error.starts_with("--otlp-endpoint") && error.contains(word), "{error}");
    }
}

#[test]
fn rust_log_wins_over_the_flag_and_must_make_sense() {
    let shown = |level, rust_log: Option<&str>| setup::filter(level, rust_log.map(str::to_owned));
    assert_eq!(shown(LogLevel::Debug, None).unwrap().to_string(), "stolon=debug,warn");
    assert_eq!(shown(LogLevel::Debug, Some("h2=trace")).unwrap().to_string(), "h2=trace");
    assert_eq!(shown(LogLevel::Error, Some("")).unwrap().to_string(), "error");
    assert!(shown(LogLevel::Info, Some("a=b=c")).unwrap_err().starts_with("RUST_LOG"));
}
