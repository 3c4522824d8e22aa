//! An OTLP collector in the test's own process: takes spans over gRPC and keeps them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// One span as received.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    /// `service.name` of the process that sent it.
    pub service: String,
    /// Attributes of the span.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of the process (resource).
    pub resource: BTreeMap<String, String>,
    pub start: u64,
    pub end: u64,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

pub struct Collector {
    kept: Kept,
    /// For `--otlp-endpoint`.
    pub endpoint: String,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Collector {
        Collector::start_at("127.0.0.1").await
    }

    /// On another address, for programs on hosts of their own.
    pub async fn start_at(address: &str) -> Collector {
        let listener = tokio::net::TcpListener::bind((address, 0)).await.expect("a port for the collector");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        let task = tokio::spawn(async move {
            let served = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
            served.await.expect("the collector serves");
        });
        Collector { kept, endpoint, task }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.kept.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The spans of one trace, by id.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        for of_process in request.into_inner().resource_spans {
            let resource = texts(of_process.resource.map(|r| r.attributes).unwrap_or_default());
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                kept.push(Span {
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    service: resource.get("service.name").cloned().unwrap_or_default(),
                    attributes: texts(span.attributes),
                    resource: resource.clone(),
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(bool) => bool.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().filter_map(|kv| Some((kv.key, text(kv.value?.value?)))).collect()
}
