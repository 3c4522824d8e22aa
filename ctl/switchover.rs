//! `switchover`: hands the primary role over to a standby, in good order and without losing a commit.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use stolon::{
    rpc::{Dialer, explain},
    wire::v1::{
        SwitchoverDone, SwitchoverRequest, admin_service_client::AdminServiceClient, switchover_response::Event,
    },
};
use tokio::time::timeout;

use crate::{
    cli::{Format, SwitchoverArgs},
    store,
};

/// A little more than the sentinel gives itself: its answer is better than none.
const DEADLINE: Duration = Duration::from_secs(130);

pub async fn run(args: &SwitchoverArgs) -> anyhow::Result<()> {
    let dialer = Dialer::with_files(&args.access.tls).map_err(|problem| anyhow!(problem))?;
    let mirror = store::read(&args.access.store).await?;
    let Some(leader) = mirror.leader() else { bail!("no sentinel leads: nobody could hand the primary role over") };
    let Some(sentinel) = mirror.sentinels.get(&leader.uid) else {
        bail!("sentinel {} leads and is not registered: ask again in a moment", leader.uid)
    };
    let asked = ask(&dialer, &sentinel.info.grpc_address, args);
    let answer = timeout(DEADLINE, asked).await.map_err(|_| anyhow!("no answer within {DEADLINE:?}")).flatten();
    let done = answer.with_context(|| format!("switchover, by sentinel {}", leader.uid))?;
    store::print(&show(&done, args.format)?)?;
    Ok(())
}

async fn ask(dialer: &Dialer, address: &str, args: &SwitchoverArgs) -> anyhow::Result<SwitchoverDone> {
    let channel = dialer.channel(address).map_err(anyhow::Error::msg)?;
    let request = SwitchoverRequest { to: args.to.clone().unwrap_or_default() };
    let failed = |status| anyhow!("{}", explain(&status));
    let asked = AdminServiceClient::new(channel).switchover(request).await;
    let mut events = asked.map_err(|status| anyhow!("{}", dialer.explain(&status)))?.into_inner();
    while let Some(message) = events.message().await.map_err(failed)? {
        match message.event {
            Some(Event::Done(done)) => return Ok(done),
            Some(Event::Granted(granted)) if args.format == Format::Text => {
                store::print(&format!("granted: keeper {} gives epoch {} up", granted.from, granted.epoch))?;
            }
            _ => {}
        }
    }
    bail!("the sentinel ended without an answer: see the status")
}

fn show(done: &SwitchoverDone, format: Format) -> anyhow::Result<String> {
    let SwitchoverDone { keeper, epoch, took_ms } = done;
    Ok(match format {
        Format::Text => format!("keeper {keeper} is the primary now, in epoch {epoch} (took {took_ms} ms)"),
        Format::Json => {
            serde_json::to_string_pretty(&serde_json::json!({ "keeper": keeper, "epoch": epoch, "tookMs": took_ms }))?
        }
    })
}
