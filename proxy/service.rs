//! ProxyService: what this proxy is, believes and does, for people with grpcurl and for `stolonctl`.

use std::net::SocketAddr;

use stolon::{
    model::{ClusterName, LeaseId, ProxyUid, view::ProxyView},
    rpc::{ProxyTalk, Streams},
    store::{LeaseState, Store},
    task::clock,
    wire::{Identity, millis, v1},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    gate::Closed,
    gatehouse::{Gatehouse, Snapshot},
};

pub struct Service {
    pub names: watch::Receiver<Identity>,
    pub house: Gatehouse,
    pub store: Store,
    pub lease: watch::Receiver<Option<LeaseState>>,
    pub streams: Streams<ProxyTalk>,
    pub listen_address: SocketAddr,
}

/// Who this proxy says it is.
pub fn identity(cluster: &ClusterName, uid: &ProxyUid, view: Option<&ProxyView>, lease: Option<LeaseId>) -> Identity {
    Identity {
        cluster_name: cluster.clone(),
        cluster_uid: view.map(|view| view.cluster_uid.clone()),
        uid: uid.to_string(),
        lease: lease.unwrap_or_default(),
    }
}

impl Service {
    fn answer(&self) -> v1::GetProxyStatusResponse {
        let snapshot = self.house.snapshot();
        let name = self.names.borrow().clone();
        let store = self.store.status(self.lease.borrow().as_ref());
        let open = snapshot.news.grant.as_ref().filter(|_| snapshot.news.closed.is_none());
        v1::GetProxyStatusResponse {
            identity: Some((&name).into()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            view: snapshot.view.as_ref().map(Into::into),
            report: Some((&snapshot.report).into()),
            route: open.map(|grant| grant.route.target()).unwrap_or_default(),
            closed_because: because(&snapshot, &store.error, self.malformed(&name.uid)),
            route_since_ms: millis(clock::now().since(snapshot.since)),
            listen_address: self.listen_address.to_string(),
            store: Some(store),
            streams: self.streams.status(),
        }
    }

    /// What is wrong with the own registration's value in etcd; none when it can be read.
    fn malformed(&self, uid: &str) -> Option<String> {
        let key = self.store.keys().proxy(&ProxyUid::parse(uid).ok()?);
        let mirror = self.store.mirror().borrow().clone()?;
        mirror.malformed.get(&key).map(|problem| format!("{key}: {problem}"))
    }
}

/// Why clients don't get through, in one line; empty when they do. `store` is the line's error, `malformed` what is wrong
/// with the own registration.
fn because(snapshot: &Snapshot, store: &str, malformed: Option<String>) -> String {
    let mut reasons = Vec::new();
    if let Some(closed) = &snapshot.news.closed {
        reasons.push(closed.to_string());
        let own = matches!(
            closed,
            Closed::NotRegistered
                | Closed::Expired
                | Closed::NothingRead
                | Closed::Outdated { .. }
                | Closed::Unregistered
        );
        if own {
            reasons.extend(malformed);
            reasons.extend((!store.is_empty()).then(|| store.to_owned()));
        }
    }
    reasons.extend((!snapshot.entrance.is_empty()).then(|| snapshot.entrance.clone()));
    reasons.join("; ")
}

#[tonic::async_trait]
impl v1::proxy_service_server::ProxyService for Service {
    async fn get_proxy_status(
        &self,
        _: Request<v1::GetProxyStatusRequest>,
    ) -> Result<Response<v1::GetProxyStatusResponse>, Status> {
        Ok(Response::new(self.answer()))
    }
}
