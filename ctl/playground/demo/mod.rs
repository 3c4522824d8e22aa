//! The demonstration: a client writes through the proxy, the primary's PostgreSQL is killed with -9, and what the client
//! noticed is told: for how long nothing was acknowledged, and whether any acknowledged row is missing.

mod victim;
mod writer;

use std::{cell::RefCell, time::Duration};

use anyhow::{Context, anyhow, bail};
use tokio::time::sleep;

use super::{
    plan::Plan,
    proc,
    ready::{self, until},
    sql::{self, Session},
};
use victim::Victim;
use writer::{Lost, Record};

/// Writing before the kill, and after the failover.
const WRITING: Duration = Duration::from_secs(2);
const FAILOVER: Duration = Duration::from_secs(60);
/// The old primary's return, by a rewind or a new copy.
const RETURN: Duration = Duration::from_secs(90);
/// Missing rows that are named one by one.
const NAMED: usize = 20;

/// Ends with an error when something is not as it should be: no failover, a missing row, an old primary that stays away.
pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    println!("\nDemonstration: the primary's PostgreSQL is killed while a client writes");
    let record = RefCell::new(Record::default());
    sql::value(
        plan,
        "DROP TABLE IF EXISTS demo; CREATE TABLE demo (id bigint PRIMARY KEY, at timestamptz DEFAULT now()); SELECT 1",
    )
    .await
    .context("the demonstration's table")?;
    let old = tokio::select! {
        failed_over = failover(plan, &record) => failed_over?,
        never = writer::write(plan, &record) => match never {},
    };
    let lost = lost(plan, &record.into_inner()).await?;
    let back = until(RETURN, || ready::streaming(plan, usize::from(plan.keepers) - 1)).await;
    match &back {
        Ok(()) => println!("{old} is back as a standby: all {} standbys stream from the new primary", plan.keepers - 1),
        Err(error) => println!("{old} is not back as a standby: {error}"),
    }
    println!("\n{}", crate::status::text(&ready::status(plan).await?).trim_end());
    back.context("the old primary did not come back")?;
    match lost {
        Lost::Nothing => Ok(()),
        Lost::Tail { ids, .. } => bail!("{} acknowledged rows were lost with the old primary", ids.len()),
        Lost::Holes { ids } => bail!("{} acknowledged rows are missing that nothing may lose", ids.len()),
    }
}

/// Writes a while, kills, waits until another server acknowledges, writes a while. Gives the keeper of the old primary.
async fn failover(plan: &Plan, record: &RefCell<Record>) -> anyhow::Result<String> {
    sleep(WRITING).await;
    let before = record.borrow().acknowledged();
    if before == 0 {
        bail!("the client could not write a row: {}", record.borrow().last_error());
    }
    let victim = Victim::find(plan).await?;
    println!(
        "{before} rows acknowledged by {} (port {}), primary of epoch {}",
        victim.keeper, victim.port, victim.epoch
    );
    let processes = victim.processes();
    let ids: Vec<String> = processes.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
    println!("kill -9 {}   # all of PostgreSQL of {}", ids.join(" "), victim.keeper);
    record.borrow_mut().killed_now();
    processes.into_iter().for_each(proc::kill);
    let next = || async { record.borrow().next_server().ok_or_else(|| anyhow!(record.borrow().last_error())) };
    let port = until(FAILOVER, next).await.context("no row was acknowledged after the kill")?;
    if port == victim.port {
        bail!("{} was started again in place: no standby was ready to take over", victim.keeper);
    }
    let heir = Victim::find(plan).await?;
    println!("{} (port {port}) acknowledges rows, as primary of epoch {}", heir.keeper, heir.epoch);
    sleep(WRITING).await;
    println!("gap: {} ms without an acknowledged row", record.borrow().gap().as_millis());
    Ok(victim.keeper)
}

/// Compares what was acknowledged with what is there, and tells it.
async fn lost(plan: &Plan, record: &Record) -> anyhow::Result<Lost> {
    let there = Session::connect(plan).await?.column("SELECT id FROM demo").await?;
    let lost = record.lost(&there.iter().filter_map(|id| id.parse().ok()).collect());
    let total = record.acknowledged();
    match &lost {
        Lost::Nothing => println!("all {total} acknowledged rows are there"),
        Lost::Tail { ids, from_kill } => println!(
            "{} of {total} acknowledged rows are missing: {}, the last of the old primary, acknowledged from {:.1} ms {} \
             the kill on. Replication is asynchronous, which can lose what the old primary had not sent yet",
            ids.len(),
            named(ids),
            from_kill.abs(),
            if *from_kill < 0.0 { "before" } else { "after" },
        ),
        Lost::Holes { ids } => println!(
            "{} of {total} acknowledged rows are missing: {}. They are NOT just the last before the kill",
            ids.len(),
            named(ids)
        ),
    }
    Ok(lost)
}

fn named(ids: &[u64]) -> String {
    let names: Vec<String> = ids.iter().take(NAMED).map(u64::to_string).collect();
    names.join(", ") + if ids.len() > NAMED { " and more" } else { "" }
}
