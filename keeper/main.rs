//! stolon-keeper: command line and exit code. Everything else is in `run`.

use std::process::ExitCode;

use stolon::launch::{failed, launch};
use stolon_keeper::{cli::Cli, guard};

/// Work that may hang on a disk takes a thread each; heartbeats must always find one.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == guard::ARGUMENT) {
        return guard::main(arguments.collect());
    }
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
    let telemetry = cli.telemetry.clone();
    launch("stolon-keeper", &instance, &telemetry, Some(THREADS), stolon_keeper::run(cli))
}
