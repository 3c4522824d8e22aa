//! stolon-keeper: parses, sets logs and traces up, runs, and says in one line what went wrong.

use std::process::ExitCode;

use stolon::telemetry;
use stolon_keeper::cli::Cli;

/// Work that may hang on a disk takes a thread each; heartbeats must always find one.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut cli: Cli = stolon::cli::parse("STKEEPER");
    // stolon knows the flag by both names.
    if cli.id.is_none()
        && let Ok(id) = std::env::var("STKEEPER_ID")
    {
        match id.parse() {
            Ok(id) => cli.id = Some(id),
            Err(bad) => return failed(&format!("STKEEPER_ID: {bad}")),
        }
    }
    let instance = cli.id.as_ref().map_or_else(|| "keeper".to_owned(), ToString::to_string);
    let telemetry = match telemetry::init(&cli.telemetry, "stolon-keeper", &instance) {
        Ok(telemetry) => telemetry,
        Err(problem) => return failed(&problem),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(stolon_keeper::run(cli));
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(format!("no threads: {error}")),
    };
    telemetry.shutdown();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => failed(&problem),
    }
}

fn failed(problem: &str) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::FAILURE
}
