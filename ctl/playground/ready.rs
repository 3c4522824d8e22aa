//! Waiting for the cluster, telling what it waits for.

use std::{future::Future, time::Duration};

use anyhow::{anyhow, bail};
use stolon::{
    rpc::{Dialer, TlsArgs},
    store::Store,
};
use tokio::time::{Instant, sleep};

use super::{Progress, plan::Plan, sql};
use crate::status;

/// etcd's start, on a busy machine.
pub const ETCD: Duration = Duration::from_secs(20);
/// initdb and the first election, on a busy machine.
const CLUSTER: Duration = Duration::from_secs(120);
/// Copies of an empty database.
const STANDBYS: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
/// What the cluster waits for is told when it lasts.
const TELL: Duration = Duration::from_secs(4);

pub async fn etcd(plan: &Plan) -> anyhow::Result<()> {
    store(plan)?.read().await.map(drop).map_err(|error| anyhow!("{error}"))
}

/// Until a client can write through the proxy, and all standbys stream.
pub async fn cluster(plan: &Plan, progress: &Progress) -> anyhow::Result<()> {
    let answers = until(CLUSTER, || async {
        let recovering = sql::value(plan, "SELECT pg_is_in_recovery()").await?;
        if recovering == "f" { Ok(()) } else { bail!("the proxy leads to a standby") }
    });
    told(plan, progress, answers).await.map_err(|error| error.context("no primary answers through the proxy"))?;
    progress.say("a primary answers through the proxy");
    let standbys = usize::from(plan.keepers) - 1;
    match told(plan, progress, until(STANDBYS, || streaming(plan, standbys))).await {
        Ok(()) => progress.say(&format!("{standbys} standbys stream from it")),
        Err(error) => progress.say(&format!("going on without all standbys: {error}")),
    }
    Ok(())
}

/// Standbys that have all of it. By their names: a pg_basebackup at work streams, too.
const STREAMING: &str = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' \
     AND application_name LIKE 'stolon\\_%' AND replay_lsn = pg_current_wal_lsn()";

/// Ok when so many standbys stream from the primary, and nothing is on its way to them.
pub async fn streaming(plan: &Plan, standbys: usize) -> anyhow::Result<()> {
    let count = sql::value(plan, STREAMING).await?;
    if count.parse() == Ok(standbys) { Ok(()) } else { bail!("{count} of {standbys} standbys stream") }
}

/// Looks again and again until it is so; the last reason why not when the time is over.
pub async fn until<T, F>(bound: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + bound;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => sleep(LOOK).await,
        }
    }
}

pub fn store(plan: &Plan) -> anyhow::Result<Store> {
    Store::new(&plan.store_args()?).map_err(|problem| anyhow!(problem))
}

/// The cluster's status, as `stolonctl status` has it.
pub async fn status(plan: &Plan) -> anyhow::Result<status::Status> {
    let dialer = Dialer::with_files(&TlsArgs::default()).map_err(|problem| anyhow!(problem))?;
    let mirror = store(plan)?.read().await.map_err(|error| anyhow!("{error}"))?;
    Ok(status::gather(&plan.store_args()?.cluster_name, &mirror, &dialer).await)
}

/// Does the waiting, and tells what the cluster says that it waits for, each reason once.
async fn told<T>(plan: &Plan, progress: &Progress, wait: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let tell = async {
        let mut last = Vec::new();
        loop {
            sleep(TELL).await;
            let problems = status(plan).await.map_or_else(|error| vec![error.to_string()], |status| status.problems);
            problems.iter().filter(|line| !last.contains(*line)).for_each(|line| progress.say(line));
            last = problems;
        }
    };
    tokio::select! {
        outcome = wait => outcome,
        never = tell => never,
    }
}
