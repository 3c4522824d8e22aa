//! stolon-proxy: command line, telemetry, runtime, exit code. Everything else is in `run`.

use std::process::ExitCode;

use stolon::{task::Shutdown, telemetry};
use stolon_proxy::{
    cli::Cli,
    run::{new_uid, run},
};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let cli: Cli = stolon::cli::parse("STPROXY");
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<(), String> {
    let uid = new_uid();
    let telemetry = telemetry::init(&cli.telemetry, "stolon-proxy", uid.as_str())?;
    let runtime = Runtime::new().map_err(|error| format!("no runtime: {error}"))?;
    let outcome = runtime.block_on(run(cli, uid, Shutdown::new()));
    // What still waits for etcd or a name server has no say in when this ends.
    runtime.shutdown_background();
    telemetry.shutdown();
    outcome
}
