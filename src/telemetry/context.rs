//! W3C trace context as text: how a trace crosses etcd and streams.

use std::collections::HashMap;

use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const KEY: &str = "traceparent";

/// The span's context as W3C `traceparent`; empty when it is not traced.
pub fn traceparent(span: &Span) -> String {
    if span.is_none() {
        return String::new();
    }
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return String::new();
    }
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

/// Makes the span a child of `traceparent`. Call it right after the span is made, before it is entered. Ignores an empty
/// text, and one that is no traceparent.
pub fn continue_from(span: &Span, traceparent: &str) {
    if traceparent.is_empty() || span.is_none() {
        return;
    }
    let carrier = HashMap::from([(KEY.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &carrier);
    if context.span().span_context().is_valid() {
        // Fails when no exporter is set up, or the span has begun: it then stays where it is.
        let _ = span.set_parent(context);
    }
}
