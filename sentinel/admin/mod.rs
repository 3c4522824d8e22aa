//! AdminService: what this sentinel is and thinks, and what it knows of the cluster. All but the handover only read, and
//! wait for nobody.

mod available;
pub mod problems;
mod status;
mod switchover;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use stolon::{
    model::{ClusterName, SentinelUid},
    store::{LeaseState, Mirror, Store},
    task::clock,
    wire::{Identity, millis, v1},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{election::Election, hub::Hub, mood::Mood};

/// Everything that answers are made from. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub store: Store,
    pub hub: Hub,
    pub election: Election,
    pub mood: Mood,
    pub lease: watch::Receiver<Option<LeaseState>>,
    pub cluster: ClusterName,
    pub uid: SentinelUid,
}

impl Admin {
    fn mirror(&self) -> Option<Arc<Mirror>> {
        self.store.mirror().borrow().clone()
    }

    fn leads(&self, mirror: Option<&Arc<Mirror>>) -> bool {
        mirror.is_some_and(|mirror| self.election.leadership(clock::now(), mirror).is_some())
    }

    fn identity(&self, mirror: Option<&Arc<Mirror>>, lease: Option<&LeaseState>) -> v1::Identity {
        let data = mirror.and_then(|mirror| mirror.data());
        v1::Identity::from(&Identity {
            cluster_name: self.cluster.clone(),
            cluster_uid: data.map(|(data, _)| data.cluster.uid.clone()),
            uid: self.uid.to_string(),
            lease: lease.map(|lease| lease.id).unwrap_or_default(),
        })
    }

    fn sentinel(&self) -> v1::GetSentinelStatusResponse {
        let (mirror, lease) = (self.mirror(), self.lease.borrow().clone());
        let thoughts = self.mood.now();
        let leader = mirror.as_ref().and_then(|mirror| mirror.leader());
        v1::GetSentinelStatusResponse {
            identity: Some(self.identity(mirror.as_ref(), lease.as_ref())),
            version: env!("CARGO_PKG_VERSION").into(),
            leader: self.leads(mirror.as_ref()),
            since_ms: millis(clock::now().since(thoughts.since)),
            leader_uid: leader.map(|leader| leader.uid.to_string()).unwrap_or_default(),
            store: Some(self.store.status(lease.as_ref())),
            reasons: thoughts.reasons,
            streams: self.hub.peers().status(),
        }
    }

    fn cluster(&self) -> v1::GetClusterStatusResponse {
        let mirror = self.mirror();
        let known = mirror.clone().unwrap_or_default();
        let mut answer = status::cluster(clock::now(), &known, &self.hub.lock().seen);
        answer.answered_by = self.uid.to_string();
        if mirror.is_none() {
            answer.problems = vec!["this sentinel has not read etcd yet".into()];
        }
        let error = self.store.status(None).error;
        if !error.is_empty() {
            answer.problems.insert(0, format!("etcd can't be reached by this sentinel ({error})"));
        }
        let leads = self.leads(mirror.as_ref());
        for entry in &mut answer.sentinels {
            // What etcd said last is no news of others while it is away.
            entry.leader &= if entry.uid == answer.answered_by { leads } else { error.is_empty() };
        }
        if leads {
            let reasons = self.mood.now().reasons;
            answer
                .problems
                .extend(reasons.into_iter().filter(|reason| !answer.problems.contains(reason)).collect::<Vec<_>>());
        }
        answer
    }
}

#[tonic::async_trait]
impl v1::admin_service_server::AdminService for Admin {
    type SwitchoverStream = switchover::BoxStream<Result<v1::SwitchoverResponse, Status>>;

    async fn switchover(
        &self,
        request: Request<v1::SwitchoverRequest>,
    ) -> Result<Response<Self::SwitchoverStream>, Status> {
        self.switch_over(&request.into_inner().to).await.map(Response::new)
    }

    async fn get_sentinel_status(
        &self,
        _: Request<v1::GetSentinelStatusRequest>,
    ) -> Result<Response<v1::GetSentinelStatusResponse>, Status> {
        Ok(Response::new(self.sentinel()))
    }

    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        Ok(Response::new(self.cluster()))
    }

    async fn get_cluster_data(
        &self,
        _: Request<v1::GetClusterDataRequest>,
    ) -> Result<Response<v1::GetClusterDataResponse>, Status> {
        let mirror = self.mirror().ok_or_else(|| Status::unavailable("this sentinel has not read etcd yet"))?;
        let stored = mirror.cluster.as_ref().ok_or_else(|| Status::not_found("there are no cluster data"))?;
        let json = String::from_utf8(stored.bytes.to_vec())
            .map_err(|_| Status::data_loss("the stored cluster data are no UTF-8 text: read their key in etcd"))?;
        Ok(Response::new(v1::GetClusterDataResponse { revision: stored.revision.0, json }))
    }
}
