//! What generated clients call through: tonic's channel, which reconnects by itself, with the trace context put in.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;
use tracing::Instrument;

use super::trace;

/// A line to one address. Cheap to clone; connects when first used, and again when the connection has ended.
#[derive(Clone, Debug)]
pub struct Channel(pub(super) tonic::transport::Channel);

type Answer = Result<Response<Body>, tonic::transport::Error>;

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let span = trace::client_span(&mut request);
        let answer = span.in_scope(|| self.0.call(request));
        if span.is_none() {
            return Box::pin(answer);
        }
        let recorded = async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                trace::record(&tracing::Span::current(), response);
            }
            answer
        };
        Box::pin(recorded.instrument(span))
    }
}
