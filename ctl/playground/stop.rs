//! The end: in an order that lets PostgreSQL stop cleanly, with a bound, and without a process left behind.

use std::time::Duration;

use anyhow::bail;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::{children::Children, folder::Folder, interrupt::Interrupt, plan::Kind, proc};

/// For the keepers, each of which stops a PostgreSQL.
const KEEPERS: Duration = Duration::from_secs(15);
/// All keepers end: there is nobody to hand over to.
const HAND_OVER: Duration = Duration::from_millis(500);
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
    // While etcd and a leader are there, keepers can leave in good order.
    children.signal(&[Kind::Keeper], Signal::TERM);
    if timeout(HAND_OVER, children.gone(&[Kind::Keeper])).await.is_err() {
        // The primary's waits for a successor; a second signal says that there won't be one.
        children.signal(&[Kind::Keeper], Signal::TERM);
    }
    if timeout(KEEPERS, children.gone(&[Kind::Keeper])).await.is_err() {
        println!("killing keepers that did not stop within {} s", KEEPERS.as_secs());
        children.signal(&[Kind::Keeper], Signal::KILL);
    }
    // etcd last: the others take their registrations back.
    for kinds in [&[Kind::Sentinel, Kind::Proxy][..], &[Kind::Etcd]] {
        children.signal(kinds, Signal::TERM);
        let _ = timeout(OTHERS, children.gone(kinds)).await;
    }
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
