//! The messages of the two streams, the same shape for keepers and proxies: what goes up to a sentinel, what comes down.

use super::{BadMessage, Identity, Probe, field::choice, field::required, v1};
use crate::model::{
    report::{KeeperReport, ProbeResult, ProxyReport},
    view::{KeeperView, ProxyView},
};

/// From a keeper or proxy to a sentinel. The traceparent travels beside it, in the generated message.
#[derive(Clone, Debug, PartialEq)]
pub enum Up<R> {
    /// Must come first, and once.
    Hello(Identity),
    Report(R),
    Probe {
        id: u64,
        result: ProbeResult,
    },
}

/// From a sentinel to a keeper or proxy.
#[derive(Clone, Debug, PartialEq)]
pub enum Down<V> {
    View(V),
    Probe(Probe),
}

macro_rules! stream {
    ($request:ident, $up:ident, $report:ty, $response:ident, $down:ident, $view:ty) => {
        impl TryFrom<v1::$request> for Up<$report> {
            type Error = BadMessage;
            fn try_from(request: v1::$request) -> Result<Self, BadMessage> {
                Ok(match required("message", request.message)? {
                    v1::$up::Message::Hello(identity) => Up::Hello(identity.try_into()?),
                    v1::$up::Message::Report(report) => Up::Report(report.try_into()?),
                    v1::$up::Message::Probe(outcome) => Up::Probe {
                        id: outcome.id,
                        result: choice::<v1::ProbeResult>("probe.result", outcome.result)?.try_into()?,
                    },
                })
            }
        }

        impl From<(&Up<$report>, &str)> for v1::$request {
            /// Second is the traceparent, empty for none.
            fn from((up, traceparent): (&Up<$report>, &str)) -> Self {
                let message = match up {
                    Up::Hello(identity) => v1::$up::Message::Hello(identity.into()),
                    Up::Report(report) => v1::$up::Message::Report(report.into()),
                    Up::Probe { id, result } => v1::$up::Message::Probe(v1::ProbeOutcome {
                        id: *id,
                        result: v1::ProbeResult::from(*result).into(),
                    }),
                };
                v1::$request { message: Some(message), traceparent: traceparent.to_owned() }
            }
        }

        impl TryFrom<v1::$response> for Down<$view> {
            type Error = BadMessage;
            fn try_from(response: v1::$response) -> Result<Self, BadMessage> {
                Ok(match required("message", response.message)? {
                    v1::$down::Message::View(view) => Down::View(view.try_into()?),
                    v1::$down::Message::Probe(probe) => Down::Probe(probe.try_into()?),
                })
            }
        }

        impl From<(&Down<$view>, &str)> for v1::$response {
            /// Second is the traceparent, empty for none.
            fn from((down, traceparent): (&Down<$view>, &str)) -> Self {
                let message = match down {
                    Down::View(view) => v1::$down::Message::View(view.into()),
                    Down::Probe(probe) => v1::$down::Message::Probe(probe.into()),
                };
                v1::$response { message: Some(message), traceparent: traceparent.to_owned() }
            }
        }
    };
}

stream!(
    KeeperStreamRequest,
    keeper_stream_request,
    KeeperReport,
    KeeperStreamResponse,
    keeper_stream_response,
    KeeperView
);
stream!(ProxyStreamRequest, proxy_stream_request, ProxyReport, ProxyStreamResponse, proxy_stream_response, ProxyView);
