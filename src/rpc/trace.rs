//! W3C trace context across gRPC: the client sends the context of the span that makes the call, the server continues it.
//! Calls that nobody traces cost nothing on the client, and streams and probes of health leave no spans on the server.

use http::{HeaderMap, HeaderValue, Request, Response};
use tracing::{Span, field::Empty, info_span};

use crate::telemetry;

const HEADER: &str = "traceparent";

/// The span of one call on the server. A stream is a line, not work: it has none unless its opening was traced.
pub(super) fn server_span<B>(request: &Request<B>) -> Span {
    let path = request.uri().path().trim_start_matches('/');
    let parent = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if path.starts_with("grpc.") || (parent.is_empty() && path.ends_with("Stream")) {
        return Span::none();
    }
    let span = info_span!(parent: None, "serve", otel.name = path, otel.kind = "server", rpc.system = "grpc", rpc.grpc.status_code = Empty);
    telemetry::continue_from(&span, parent);
    span
}

/// The span of one call on the client, when the work that makes it is traced; writes the header.
pub(super) fn client_span<B>(request: &mut Request<B>) -> Span {
    if telemetry::traceparent(&Span::current()).is_empty() {
        return Span::none();
    }
    let path = request.uri().path().trim_start_matches('/');
    let span =
        info_span!("call", otel.name = path, otel.kind = "client", rpc.system = "grpc", rpc.grpc.status_code = Empty);
    if let Ok(value) = HeaderValue::try_from(telemetry::traceparent(&span)) {
        request.headers_mut().insert(HEADER, value);
    }
    span
}

/// A refused call says its status in the headers.
pub(super) fn record<B>(span: &Span, response: &Response<B>) {
    if !span.is_none() {
        span.record("rpc.grpc.status_code", code(response.headers()));
    }
}

fn code(headers: &HeaderMap) -> i64 {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}
