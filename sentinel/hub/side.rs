//! What differs between the streams of keepers and those of proxies.

use std::fmt::Debug;

use stolon::{
    model::{
        ClusterData, KeeperUid, LeaseId, Moment, ProxyUid, Revision,
        report::{KeeperReport, ProxyReport},
        spec::BadSpec,
        view::{KeeperView, ProxyView},
    },
    store::Mirror,
    wire::{BadMessage, Down, Up, v1},
};

use super::{Lines, State};
use crate::observe::Observations;

pub trait Side: Sized + Send + Sync + 'static {
    const KIND: &'static str;
    type Uid: Clone + Ord + Debug + Send + Sync + 'static;
    type Report: Send + 'static;
    type View: Send + 'static;
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn uid(text: &str) -> Result<Self::Uid, String>;
    fn text(uid: &Self::Uid) -> &str;
    fn request(request: Self::Request) -> Result<Up<Self::Report>, BadMessage>;
    fn response(down: &Down<Self::View>, traceparent: &str) -> Self::Response;
    fn view(data: &ClusterData, revision: Revision, uid: &Self::Uid) -> Result<Self::View, BadSpec>;
    /// Lease of the peer's registration, when it has one.
    fn lease(mirror: &Mirror, uid: &Self::Uid) -> Option<LeaseId>;
    fn lines(state: &mut State) -> &mut Lines<Self>;
    fn connected(seen: &mut Observations, now: Moment, uid: &Self::Uid);
    fn ended(seen: &mut Observations, now: Moment, uid: &Self::Uid);
    /// True when the report says something new.
    fn report(seen: &mut Observations, now: Moment, uid: &Self::Uid, report: Self::Report) -> bool;
}

pub struct KeeperSide;
pub struct ProxySide;

macro_rules! side {
    ($side:ty, $kind:literal, $uid:ty, $report:ty, $view:ty, $request:ident, $response:ident, $registered:ident,
     $connected:ident, $ended:ident, $fold:ident, $derive:expr) => {
        impl Side for $side {
            const KIND: &'static str = $kind;
            type Uid = $uid;
            type Report = $report;
            type View = $view;
            type Request = v1::$request;
            type Response = v1::$response;

            fn uid(text: &str) -> Result<$uid, String> {
                <$uid>::parse(text).map_err(|bad| bad.to_string())
            }
            fn text(uid: &$uid) -> &str {
                uid.as_str()
            }
            fn request(request: v1::$request) -> Result<Up<$report>, BadMessage> {
                request.try_into()
            }
            fn response(down: &Down<$view>, traceparent: &str) -> v1::$response {
                (down, traceparent).into()
            }
            fn view(data: &ClusterData, revision: Revision, uid: &$uid) -> Result<$view, BadSpec> {
                $derive(data, revision, uid)
            }
            fn lease(mirror: &Mirror, uid: &$uid) -> Option<LeaseId> {
                mirror.$registered.get(uid).map(|registered| registered.lease)
            }
            fn lines(state: &mut State) -> &mut Lines<$side> {
                &mut state.$registered
            }
            fn connected(seen: &mut Observations, now: Moment, uid: &$uid) {
                seen.$connected(now, uid);
            }
            fn ended(seen: &mut Observations, now: Moment, uid: &$uid) {
                seen.$ended(now, uid);
            }
            fn report(seen: &mut Observations, now: Moment, uid: &$uid, report: $report) -> bool {
                seen.$fold(now, uid, report)
            }
        }
    };
}

side!(
    KeeperSide,
    "keeper",
    KeeperUid,
    KeeperReport,
    KeeperView,
    KeeperStreamRequest,
    KeeperStreamResponse,
    keepers,
    keeper_connected,
    keeper_ended,
    keeper_report,
    KeeperView::derive
);
side!(
    ProxySide,
    "proxy",
    ProxyUid,
    ProxyReport,
    ProxyView,
    ProxyStreamRequest,
    ProxyStreamResponse,
    proxies,
    proxy_connected,
    proxy_ended,
    proxy_report,
    |data, revision, _: &ProxyUid| ProxyView::derive(data, revision)
);
