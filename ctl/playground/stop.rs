//! The end: in an order that lets PostgreSQL stop cleanly, with a bound, and without a process left behind.

use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::{children::Children, folder::Folder, interrupt::Interrupt, plan::Kind, proc};

/// For the keepers, each of which stops a PostgreSQL.
const KEEPERS: Duration = Duration::from_secs(15);
/// For those that have nothing to put in order.
const OTHERS: Duration = Duration::from_secs(4);
/// After SIGKILL.
const KILLED: Duration = Duration::from_secs(3);
const ALL: [Kind; 4] = [Kind::Keeper, Kind::Sentinel, Kind::Proxy, Kind::Etcd];

/// Stops all children; a second interrupt cuts it short.
pub async fn all(children: &mut Children, folder: &Folder, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    tokio::select! {
        () = in_order(children) => {}
        () = interrupt.next() => println!("killing what is left"),
    }
    children.signal(&ALL, Signal::KILL);
    if timeout(KILLED, children.gone(&ALL)).await.is_err() {
        bail!("these can't be killed: {}", children.names().join(", "));
    }
    no_postgres(folder).await
}

async fn in_order(children: &mut Children) {
    // etcd and a leader still there, keepers can leave in good order.
    children.signal(&[Kind::Keeper], Signal::TERM);
    if timeout(KEEPERS, children.gone(&[Kind::Keeper])).await.is_err() {
        println!("killing keepers that did not stop within {} s", KEEPERS.as_secs());
        children.signal(&[Kind::Keeper], Signal::KILL);
    }
    children.signal(&ALL, Signal::TERM);
    let _ = timeout(OTHERS, children.gone(&ALL)).await;
}

/// Kills what PostgreSQL still runs in the folder, also what starts meanwhile.
async fn no_postgres(folder: &Folder) -> anyhow::Result<()> {
    for _ in 0..100 {
        let left = proc::postgres_within(&folder.data());
        if left.is_empty() {
            return Ok(());
        }
        left.into_iter().for_each(proc::kill);
        sleep(KILLED / 100).await;
    }
    bail!("PostgreSQL still runs in {}", folder.data().display())
}
