//! stolon-sentinel: command line and exit code. Everything else is in `run`.

use std::process::ExitCode;

use stolon::{launch::launch, task::Shutdown};
use stolon_sentinel::{
    cli::Cli,
    run::{new_uid, run},
};

fn main() -> ExitCode {
    let cli: Cli = stolon::cli::parse("STSENTINEL");
    let (uid, telemetry) = (new_uid(), cli.telemetry.clone());
    launch("stolon-sentinel", uid.as_str(), &telemetry, None, run(cli, uid.clone(), Shutdown::new()))
}
