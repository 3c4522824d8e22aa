//! KeeperService: what this keeper is, believes and does, for people with grpcurl and for `stolonctl`.

use stolon::{
    model::ClusterName,
    rpc::{KeeperTalk, Streams},
    store::Store,
    wire::{Identity, millis, v1},
};
use tonic::{Request, Response, Status};

use crate::{report, report::Fixed, shared::Shared, state::State};

pub struct Service {
    pub cluster: ClusterName,
    pub shared: Shared,
    pub store: Store,
    pub streams: Streams<KeeperTalk>,
    pub fixed: std::sync::Arc<Fixed>,
}

/// Who this keeper says it is.
pub fn identity(cluster: &ClusterName, state: &State) -> Identity {
    Identity {
        cluster_name: cluster.clone(),
        cluster_uid: state
            .keeper
            .cluster_uid
            .clone()
            .or_else(|| state.view.as_ref().map(|view| view.cluster_uid.clone())),
        uid: state.me.to_string(),
        lease: state.lease.as_ref().map(|lease| lease.id).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl v1::keeper_service_server::KeeperService for Service {
    async fn get_keeper_status(
        &self,
        _: Request<v1::GetKeeperStatusRequest>,
    ) -> Result<Response<v1::GetKeeperStatusResponse>, Status> {
        let (host, port) = &self.fixed.pg_address;
        let answer = self.shared.look(|state, now| v1::GetKeeperStatusResponse {
            identity: Some((&identity(&self.cluster, state)).into()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            view: state.view.as_ref().map(Into::into),
            report: Some((&report::heartbeat(state, now)).into()),
            step: state.step.0.clone(),
            step_since_ms: millis(now.since(state.step.1)),
            authority_since_ms: millis(now.since(state.authority_since)),
            postgres_address: format!("{host}:{port}"),
            store: Some(self.store.status(state.lease.as_ref())),
            streams: self.streams.status(),
        });
        Ok(Response::new(answer))
    }
}
