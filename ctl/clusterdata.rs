//! `clusterdata read`: the stored document, for saving and for looking.

use anyhow::Context;

use crate::{cli::Access, store};

pub async fn read(access: &Access, pretty: bool) -> anyhow::Result<()> {
    let mirror = store::read(&access.store).await?;
    let stored = store::cluster_data(&access.store, &mirror)?;
    if pretty {
        let value: serde_json::Value = serde_json::from_slice(&stored.bytes)
            .context("the stored cluster data is not JSON; without --pretty it is printed as it is")?;
        store::print(&format!("{value:#}"))?;
    } else {
        store::print_bytes(&stored.bytes)?;
    }
    Ok(())
}
