//! stolonctl: what operators ask and do. One file (or folder) per verb; each ends with an exit code that scripts can
//! use, and with one line on standard error when it failed. Changes of the primary are asked of the leading sentinel.

mod cli;
mod clusterdata;
mod order;
mod playground;
mod spec;
mod status;
mod store;
mod switchover;

use std::{future::Future, io, process::ExitCode};

use cli::{Access, Cli, ClusterdataVerb, Verb};

/// Exit code of a verb that could not do what it was asked.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    if let Some(command) = playground::child_command() {
        eprintln!("error: {}", playground::become_child(command));
        return ExitCode::from(FAILED);
    }
    let args = order::verbs_first(std::env::args_os());
    match run(stolon::cli::parse_from::<Cli>("STOLONCTL", args)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough, such as `head`.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.verb {
        Verb::Status(args) => asking(&args.access, status::run(&args)),
        Verb::Clusterdata(args) => {
            let ClusterdataVerb::Read { access, pretty } = &args.verb;
            asking(access, clusterdata::read(access, *pretty))
        }
        Verb::Spec(args) => asking(&args.access, spec::run(&args)),
        Verb::Switchover(args) => asking(&args.access, switchover::run(&args)),
        Verb::Version { .. } => Ok(store::print(&format!("stolonctl version {}", env!("CARGO_PKG_VERSION")))?),
        Verb::Playground(args) => runtime()?.block_on(playground::run(args)),
    }
}

/// Runs a verb that asks a cluster, with logs and traces.
fn asking(access: &Access, verb: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let telemetry = stolon::telemetry::init(&access.telemetry(), "stolonctl", "").map_err(anyhow::Error::msg)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(verb);
    // Not waited for: a name that is still being looked up has no say in when this ends.
    runtime.shutdown_background();
    telemetry.shutdown();
    outcome
}

/// One thread: it is the one that starts the playground's processes, and they die with it.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace(['\n', '\r'], " ")
}
