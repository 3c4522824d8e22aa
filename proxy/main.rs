//! stolon-proxy: command line and exit code. Everything else is in `run`.

use std::process::ExitCode;

use stolon::{launch::launch, task::Shutdown};
use stolon_proxy::{
    cli::Cli,
    run::{new_uid, run},
};

fn main() -> ExitCode {
    let cli: Cli = stolon::cli::parse("STPROXY");
    let (uid, telemetry) = (new_uid(), cli.telemetry.clone());
    launch("stolon-proxy", uid.as_str(), &telemetry, None, run(cli, uid.clone(), Shutdown::new()))
}
