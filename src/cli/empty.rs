//! Empty values: `--to ""`, or a variable of that value, is what a script writes whose own variable was not set. It means
//! nothing that could be told from what the flag's absence means, so it is refused for every flag.

use std::ffi::OsStr;

use clap::{ArgMatches, Command, error::ErrorKind, parser::ValueSource};

/// Refuses a flag whose value is empty, by its name. The command is the one that made these matches.
pub(super) fn refuse_empty(command: &Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let id = arg.get_id().as_str();
        let Ok(Some(mut values)) = matches.try_get_raw(id) else { continue };
        if !values.any(OsStr::is_empty) {
            continue;
        }
        let variable = arg.get_env().filter(|_| matches.value_source(id) == Some(ValueSource::EnvVariable));
        let line = match variable {
            Some(name) => format!("{} is empty: give a value, or unset it (as --{long})", name.to_string_lossy()),
            None => format!("--{long}: its value is empty: give one, or leave the flag out"),
        };
        return Err(command.clone().error(ErrorKind::InvalidValue, line));
    }
    let below = matches.subcommand().and_then(|(name, below)| Some((command.find_subcommand(name)?, below)));
    below.map_or(Ok(()), |(command, matches)| refuse_empty(command, matches))
}
