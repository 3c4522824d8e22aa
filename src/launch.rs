//! How a daemon's process begins and ends: telemetry, runtime, one line for an error, exit code.

use std::{future::Future, process::ExitCode};

use tokio::runtime::Builder;

use crate::telemetry::{self, TelemetryArgs};

/// Runs `body` to its end as `service` (the program's name) under the name `instance`. `threads`: unset for one per core.
/// An error is one line on standard error, and a failure as exit code.
pub fn launch(
    service: &'static str,
    instance: &str,
    args: &TelemetryArgs,
    threads: Option<usize>,
    body: impl Future<Output = Result<(), String>>,
) -> ExitCode {
    match start(service, instance, args, threads, body) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => failed(&problem),
    }
}

/// For what is wrong before there is anything to run.
pub fn failed(problem: &str) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::FAILURE
}

fn start(
    service: &'static str,
    instance: &str,
    args: &TelemetryArgs,
    threads: Option<usize>,
    body: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let telemetry = telemetry::init(args, service, instance)?;
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| format!("no threads: {error}"))?;
    let outcome = runtime.block_on(body);
    // What still waits for etcd or a name server has no say in when this ends.
    runtime.shutdown_background();
    telemetry.shutdown();
    outcome
}
