//! `status`: the cluster as its leading sentinel sees it; as etcd alone tells it when no sentinel answers.

mod ask;
mod base;
mod shape;
#[cfg(test)]
mod tests;
mod text;
mod told;

use std::net::IpAddr;

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
    let mut status = gather(&args.access.store.cluster_name, &mirror, &dialer).await;
    if args.access.tls.grpc_cert_file.is_none() && status.source.sentinel.is_none() && beyond_loopback(&status) {
        status.problems.push(NEEDS_TLS.into());
    }
    match args.format {
        Format::Text => store::print(text(&status).trim_end())?,
        Format::Json => store::print(&serde_json::to_string_pretty(&status)?)?,
    }
    Ok(())
}

const NEEDS_TLS: &str =
    "sentinels beyond loopback speak mutual TLS only: give --grpc-cert-file, --grpc-key-file and --grpc-ca-file";

fn beyond_loopback(status: &Status) -> bool {
    let hosts = status.sentinels.iter().filter_map(|sentinel| sentinel.grpc_address.as_deref()?.rsplit_once(':'));
    hosts.map(|(host, _)| host.trim_matches(['[', ']'])).any(|host| {
        let loopback = host.parse::<IpAddr>().map_or(host == "localhost", |address| address.is_loopback());
        !loopback
    })
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
