//! `playground`: a whole cluster on this machine as child processes: an etcd, keepers, sentinels and a proxy, on ports
//! that are free, with all data and logs in one folder. Uses the programs as anybody would, by their flags alone.

mod child;
mod children;
mod demo;
mod folder;
mod interrupt;
mod plan;
mod ports;
mod proc;
mod programs;
mod ready;
mod sql;
mod stop;

use std::{future, time::Instant};

use anyhow::bail;

pub use child::{become_child, child_command};

use crate::cli::PlaygroundArgs;
use children::{Children, Death};
use folder::Folder;
use interrupt::Interrupt;
use plan::{Kind, Plan};

pub async fn run(args: PlaygroundArgs) -> anyhow::Result<()> {
    if args.demo && args.keepers < 2 {
        bail!("--demo needs at least --keepers 2: a failover needs a standby");
    }
    let programs = programs::find()?;
    let mut interrupt = Interrupt::new()?;
    let folder = Folder::open(args.folder.as_deref())?;
    let plan = Plan::new(&args, &programs, &folder)?;
    let mut children = Children::new(folder.path());
    let outcome = tokio::select! {
        outcome = show(&args, &plan, &mut children) => outcome,
        () = interrupt.next() => Ok(()),
    };
    println!("stopping everything");
    stop::all(&mut children, &folder, &mut interrupt).await?;
    folder.close(outcome.is_ok());
    outcome
}

/// Starts the cluster and shows what is asked for; ends on an error, or when the demonstration was all.
async fn show(args: &PlaygroundArgs, plan: &Plan, children: &mut Children) -> anyhow::Result<()> {
    let progress = Progress::start();
    progress.say(&format!("logs and data are in {}", plan.folder.display()));
    children.start(plan.of(Kind::Etcd))?;
    children.during(Death::Fatal, ready::etcd(plan)).await?;
    progress.say(&format!("etcd answers at {}", plan.endpoint()));
    for kind in [Kind::Keeper, Kind::Sentinel, Kind::Proxy] {
        children.start(plan.of(kind))?;
    }
    progress.say(&format!("started {} keepers, {} sentinels, a proxy", args.keepers, args.sentinels));
    children.during(Death::Fatal, ready::cluster(plan, &progress)).await?;
    let story = async {
        if args.demo {
            demo::run(plan).await?;
        }
        if args.exit {
            return Ok(());
        }
        println!("\n{}\n", plan.how_to_reach());
        future::pending().await
    };
    children.during(Death::Restart, story).await
}

/// Lines that tell how far the start has come, with the time since it began.
struct Progress(Instant);

impl Progress {
    fn start() -> Progress {
        Progress(Instant::now())
    }

    fn say(&self, what: &str) {
        println!("[{:5.1} s] {what}", self.0.elapsed().as_secs_f64());
    }
}
