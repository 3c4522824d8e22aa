//! The two kinds of streams to a sentinel: the same protocol with a keeper's or a proxy's messages.

use std::{fmt::Debug, future::Future};

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Channel;
use crate::{
    model::{
        report::{KeeperReport, ProxyReport},
        view::{KeeperView, ProxyView},
    },
    wire::{BadMessage, Down, Up, v1},
};

/// One side's messages, and how its stream is opened.
pub trait Talk: Send + Sync + 'static {
    type Report: Send + 'static;
    type View: Debug + Send + 'static;
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn request(up: &Up<Self::Report>, traceparent: &str) -> Self::Request;
    /// What came, and its traceparent.
    fn response(response: Self::Response) -> Result<(Down<Self::View>, String), BadMessage>;
    /// Returns when the sentinel has answered with its headers.
    fn open(
        channel: Channel,
        requests: ReceiverStream<Self::Request>,
    ) -> impl Future<Output = Result<Streaming<Self::Response>, Status>> + Send;
}

/// A keeper's streams.
#[derive(Debug)]
pub struct KeeperTalk;

/// A proxy's streams.
#[derive(Debug)]
pub struct ProxyTalk;

macro_rules! talk {
    ($talk:ty, $report:ty, $view:ty, $request:ident, $response:ident, $method:ident) => {
        impl Talk for $talk {
            type Report = $report;
            type View = $view;
            type Request = v1::$request;
            type Response = v1::$response;

            fn request(up: &Up<$report>, traceparent: &str) -> v1::$request {
                v1::$request::from((up, traceparent))
            }

            fn response(mut response: v1::$response) -> Result<(Down<$view>, String), BadMessage> {
                let traceparent = std::mem::take(&mut response.traceparent);
                Ok((response.try_into()?, traceparent))
            }

            async fn open(
                channel: Channel,
                requests: ReceiverStream<v1::$request>,
            ) -> Result<Streaming<v1::$response>, Status> {
                let mut client = v1::sentinel_service_client::SentinelServiceClient::new(channel);
                Ok(client.$method(requests).await?.into_inner())
            }
        }
    };
}

talk!(KeeperTalk, KeeperReport, KeeperView, KeeperStreamRequest, KeeperStreamResponse, keeper_stream);
talk!(ProxyTalk, ProxyReport, ProxyView, ProxyStreamRequest, ProxyStreamResponse, proxy_stream);
