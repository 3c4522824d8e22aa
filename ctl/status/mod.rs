//! `status`: the cluster as its leading sentinel sees it; as etcd alone tells it when no sentinel answers.

mod ask;
mod base;
mod shape;
#[cfg(test)]
mod tests;
mod text;
mod told;

use anyhow::anyhow;
use stolon::{model::ClusterName, rpc::Dialer, store::Mirror};

pub use shape::Status;
pub use text::text;

use crate::{
    cli::{Format, StatusArgs},
    store,
};

pub async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let dialer = Dialer::with_files(&args.access.tls).map_err(|problem| anyhow!(problem))?;
    let mirror = store::read(&args.access.store).await?;
    let status = gather(&args.access.store.cluster_name, &mirror, &dialer).await;
    match args.format {
        Format::Text => store::print(text(&status).trim_end())?,
        Format::Json => store::print(&serde_json::to_string_pretty(&status)?)?,
    }
    Ok(())
}

/// What etcd tells, and what a sentinel adds.
pub async fn gather(name: &ClusterName, mirror: &Mirror, dialer: &Dialer) -> Status {
    let mut status = base::base(name, mirror);
    match ask::sentinels(mirror, dialer).await {
        Ok(answer) => told::add(&mut status, answer),
        Err(problem) => base::alone(&mut status, mirror, problem),
    }
    if let Some(primary) = &mut status.cluster.primary {
        primary.held_for_ms = ask::held_for(mirror, dialer, &primary.keeper).await;
    }
    status
}
