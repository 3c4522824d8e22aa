//! Questions to sentinels and keepers, with short deadlines: a status that waits for what is broken is of no use.

use std::{future::Future, time::Duration};

use stolon::{
    rpc::{Channel, Dialer},
    store::Mirror,
    wire::v1::{
        self, GetClusterStatusRequest, GetKeeperStatusRequest, admin_service_client::AdminServiceClient,
        keeper_service_client::KeeperServiceClient,
    },
};
use tokio::time::timeout;
use tonic::{Response, Status};

/// For one answer, connection included.
const DEADLINE: Duration = Duration::from_millis(1500);

/// A sentinel's answer.
pub struct Answer {
    pub cluster: v1::GetClusterStatusResponse,
    /// It leads, by its own list.
    pub leads: bool,
    /// Why sentinels that should have known better did not answer.
    pub silent: Vec<String>,
}

/// Asks the leading sentinel, and all the others when that one doesn't answer. The error is a line for people.
pub async fn sentinels(mirror: &Mirror, dialer: &Dialer) -> Result<Answer, String> {
    let leader = mirror.leader().map(|candidate| &candidate.uid);
    let mut all: Vec<_> = mirror.sentinels.values().map(|registered| &registered.info).collect();
    all.sort_by_key(|info| Some(&info.uid) != leader);
    let mut silent = Vec::new();
    for info in all {
        match ask(dialer, &info.grpc_address, cluster_status).await {
            Ok(cluster) => {
                let leads = cluster.sentinels.iter().any(|entry| entry.leader && entry.uid == cluster.answered_by);
                return Ok(Answer { cluster, leads, silent });
            }
            Err(problem) => silent.push(format!("sentinel {} does not answer: {problem}", info.uid)),
        }
    }
    Err(if silent.is_empty() { "no sentinel is registered".to_owned() } else { silent.join("; ") })
}

/// How long the keeper has held the authority, in milliseconds.
pub async fn held_for(mirror: &Mirror, dialer: &Dialer, keeper: &str) -> Option<u64> {
    let registered = mirror.keepers.values().find(|registered| registered.info.uid.as_str() == keeper)?;
    let answer = ask(dialer, &registered.info.grpc_address, keeper_status).await.ok()?;
    let holds = answer.report.is_some_and(|report| report.authority_epoch > 0);
    holds.then_some(answer.authority_since_ms)
}

async fn cluster_status(channel: Channel) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
    AdminServiceClient::new(channel).get_cluster_status(GetClusterStatusRequest {}).await
}

async fn keeper_status(channel: Channel) -> Result<Response<v1::GetKeeperStatusResponse>, Status> {
    KeeperServiceClient::new(channel).get_keeper_status(GetKeeperStatusRequest {}).await
}

async fn ask<T, F>(dialer: &Dialer, address: &str, question: impl FnOnce(Channel) -> F) -> Result<T, String>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let channel = dialer.channel(address)?;
    match timeout(DEADLINE, question(channel)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("{address}: {}", dialer.explain(&status))),
        Err(_) => Err(format!("{address}: no answer within {DEADLINE:?}")),
    }
}
