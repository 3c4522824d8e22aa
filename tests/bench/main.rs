//! Measures failovers (`failover`) and looks for those that should not be (`soak`), with the real programs on hosts of
//! their own. Here: the command line, the namespaces, the exit code.

mod calm;
mod client;
mod floor;
mod gap;
mod hosts;
mod kinds;
mod nuisance;
mod phases;
mod ready;
mod record;
mod report;
mod run;
mod soak;
mod stats;
mod table;
mod trial;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use stolon_tests::{
    bins,
    netns::{self, Network},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    kinds::{Handover, Kind, Mode},
    nuisance::Nuisance,
    record::Folder,
    report::Report,
    run::Plan,
};

/// Measures stolon's failovers. Needs root (network namespaces), etcd and PostgreSQL.
#[derive(Parser, Debug)]
#[command(name = "stolon-bench", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// The gap that clients see, per kind of failover, beside the floor. A run goes on where the last one stopped. Exit
    /// code 0: all trials made, no acknowledged row lost in synchronous mode; missed aims are said, and are no failure.
    Failover(FailoverArgs),
    /// Bothers a cluster with what must not cause a failover. Exit code 0: the same primary in the same epoch all the
    /// time, no acknowledged row lost.
    Soak(SoakArgs),
}

#[derive(Args, Debug)]
struct SoakArgs {
    /// For how long
    #[arg(long, value_name = "MINUTES", default_value_t = 60.0)]
    minutes: f64,
    /// Of one nuisance in a row
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    turn: f64,
    /// What to bother with; everything when not given
    #[arg(long, value_delimiter = ',', value_name = "NUISANCES")]
    nuisances: Vec<Nuisance>,
    /// Replication mode
    #[arg(long, value_name = "MODE", default_value = "async")]
    mode: Mode,
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
    /// Folder of the programs
    #[arg(long, value_name = "DIR", default_value = "bin")]
    programs: PathBuf,
}

#[derive(Args, Debug)]
struct FailoverArgs {
    /// What to measure; everything when not given
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    kinds: Vec<Kind>,
    /// Replication modes
    #[arg(long, value_delimiter = ',', value_name = "MODES", default_values = ["async", "sync"])]
    modes: Vec<Mode>,
    /// Trials per kind, those of former runs counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    trials: usize,
    /// How handovers are asked for
    #[arg(long, value_name = "HOW", default_value = "switchover")]
    handover: Handover,
    /// Leave the floor out
    #[arg(long)]
    no_floor: bool,
    /// Measure nothing: show what the folder holds
    #[arg(long)]
    show: bool,
    /// Measure nothing: print the README's section
    #[arg(long)]
    readme: bool,
    /// Folder of the results
    #[arg(long, value_name = "DIR", default_value = "target/bench-failover")]
    out: PathBuf,
    /// Folder of the programs
    #[arg(long, value_name = "DIR", default_value = "bin")]
    programs: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Failover(args) => failover(&args),
        Verb::Soak(args) => soak(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stolon-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn failover(args: &FailoverArgs) -> Result<bool, String> {
    let folder = Folder::open(&args.out)?;
    if args.readme {
        print!("{}", table::markdown(&Report::of(&folder.read()?), &table::machine()));
        return Ok(true);
    }
    let mut well = true;
    if !args.show {
        let kinds = if args.kinds.is_empty() { clap::ValueEnum::value_variants().to_vec() } else { args.kinds.clone() };
        let plan =
            Plan { kinds, modes: args.modes.clone(), trials: args.trials, by: args.handover, floor: !args.no_floor };
        well = on_hosts(&args.programs, async |network| run::run(&plan, &folder, network).await)?;
    }
    let report = Report::of(&folder.read()?);
    print!("{}", table::text(&report));
    let path = folder.write_whole("report.json", &report)?;
    println!("\n{} has all of it, also as JSON", path.display());
    Ok(well && report.lost_in_sync() == 0)
}

fn soak(args: &SoakArgs) -> Result<bool, String> {
    let folder = Folder::open(&args.out)?;
    let all = || clap::ValueEnum::value_variants().to_vec();
    let span = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    let plan = soak::Plan {
        nuisances: if args.nuisances.is_empty() { all() } else { args.nuisances.clone() },
        mode: args.mode,
        span: span(args.minutes * 60.0)?,
        turn: span(args.turn)?,
    };
    let turns = on_hosts(&args.programs, async |network| soak::run(&plan, &folder, network).await)?;
    print!("{}", soak::summary(&turns));
    Ok(!turns.is_empty() && turns.iter().all(|turn| turn.problem.is_empty()))
}

/// Makes the hosts, and works among them until it is done or a signal comes.
fn on_hosts<T, W>(programs: &Path, work: W) -> Result<T, String>
where
    T: Send,
    W: AsyncFnOnce(&Network) -> Result<T, String> + Send,
{
    if !netns::allowed("the measurement") {
        return Err("network namespaces need root: run it as root".into());
    }
    let programs = std::fs::canonicalize(programs)
        .map_err(|error| format!("{}: {error}: run `make build` first", programs.display()))?;
    bins::use_folder(&programs);
    let network = Network::new(hosts::HOSTS);
    let mut outcome = Err("the measuring thread ended without a word".to_owned());
    netns::inside(&network.switch, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        outcome = match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! { done = work(&network) => done, end = ended() => end }
            }),
            Err(error) => Err(format!("no runtime: {error}")),
        };
    });
    outcome
}

/// Returns when somebody asks for the end; what was started is ended by its owners.
async fn ended<T>() -> Result<T, String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals can't be caught: {error}"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    Err("ended by a signal; what was measured is kept, and the next run goes on from there".into())
}
