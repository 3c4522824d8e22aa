//! Reading a cluster's keys once, and printing.

use std::{
    io::{self, Write},
    sync::Arc,
};

use anyhow::{anyhow, bail};
use stolon::{
    cli::StoreArgs,
    store::{Mirror, Store, Stored},
};

/// All keys of the cluster. Fails within `--store-timeout` when etcd doesn't answer, and when there is no such cluster.
pub async fn read(args: &StoreArgs) -> anyhow::Result<Arc<Mirror>> {
    let store = Store::new(args).map_err(anyhow::Error::msg)?;
    let mirror = store.read().await.map_err(|error| {
        anyhow!("{error}: check --store-endpoints ({}), or see whether etcd runs", args.store_endpoints.join(","))
    })?;
    let nobody = mirror.keepers.is_empty() && mirror.sentinels.is_empty() && mirror.proxies.is_empty();
    if mirror.cluster.is_none() && nobody && mirror.malformed.is_empty() {
        bail!("{}: etcd has no keys below {}", no_cluster(args), store.keys().base());
    }
    Ok(mirror)
}

/// The stored cluster data, readable or not.
pub fn cluster_data<'a>(args: &StoreArgs, mirror: &'a Mirror) -> anyhow::Result<&'a Stored> {
    mirror.cluster.as_ref().ok_or_else(|| anyhow!("{}: it has no cluster data yet", no_cluster(args)))
}

fn no_cluster(args: &StoreArgs) -> String {
    format!("there is no cluster {} (--cluster-name) at {}", args.cluster_name, args.store_endpoints.join(","))
}

/// Prints a text and a line break. A closed pipe is an error here, not a panic.
pub fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

pub fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.write_all(b"\n")?;
    out.flush()
}
