//! Command lines that all four programs share: environment variables by a program's prefix, and errors in one line.

mod empty;
mod json;
mod store;
mod url;

pub use json::{in_words, needed, read_json};
pub use store::StoreArgs;
pub use url::{NO_USER, UrlParser, collector, has_user};

use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory, FromArgMatches, error::ErrorKind};

/// Exit code for a command line that can't be used (sysexits' EX_USAGE is 64; clap's and GNU's habit is 2).
pub const USAGE: i32 = 2;

/// Parses this process's command line; every flag is also the environment variable `<prefix>_<FLAG>`. Ends the process
/// with one line on standard error when it can't be used.
pub fn parse<T: CommandFactory + FromArgMatches>(prefix: &str) -> T {
    parse_from(prefix, std::env::args_os())
}

/// The same for a command line that was put in order before; the first argument is the program's name.
pub fn parse_from<T: CommandFactory + FromArgMatches>(
    prefix: &str,
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> T {
    match try_parse(prefix, args) {
        Ok(parsed) => parsed,
        Err(error) => {
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                let _ = error.print();
                std::process::exit(0);
            }
            eprintln!("{}", one_line(&error));
            std::process::exit(USAGE);
        }
    }
}

pub fn try_parse<T: CommandFactory + FromArgMatches>(
    prefix: &str,
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<T, clap::Error> {
    let mut command = with_environment(T::command(), prefix);
    let mut matches = command.try_get_matches_from_mut(args)?;
    empty::refuse_empty(&command, &matches)?;
    T::from_arg_matches_mut(&mut matches)
}

fn with_environment(command: Command, prefix: &str) -> Command {
    let prefix = prefix.to_owned();
    command.mut_args(|arg| name_variable(arg, &prefix)).mut_subcommands(|sub| with_environment(sub, &prefix))
}

fn name_variable(arg: Arg, prefix: &str) -> Arg {
    // So that `--port -1` is refused as a value of --port, and not as an unknown flag `-1`.
    let arg = if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
    let Some(long) = arg.get_long() else {
        return arg;
    };
    if matches!(long, "help" | "version") || arg.get_env().is_some() {
        return arg;
    }
    let name = format!("{prefix}_{}", long.to_uppercase().replace('-', "_"));
    // A process parses its command line once; clap wants the name for as long as it runs.
    arg.env(&*name.leak())
}

/// clap's message without its usage and hints, joined to one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let kept =
        text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let line = kept.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    if line.starts_with("error:") { line } else { format!("error: {line}") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Sample {
        #[arg(long)]
        cluster_name: String,
        #[arg(long, default_value_t = 5431)]
        port: u16,
        #[arg(long)]
        to: Option<String>,
    }

    #[derive(Parser, Debug)]
    struct Verbs {
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(clap::Subcommand, Debug)]
    enum Verb {
        Move(Sample),
    }

    #[test]
    fn an_error_is_one_line_that_names_the_flag() {
        for (args, word) in [
            (&["x", "--nonsense"][..], "--nonsense"),
            (&["x"], "--cluster-name"),
            (&["x", "--cluster-name", "c", "--port", "99999"], "--port"),
            (&["x", "--cluster-name", "c", "--port", "-1"], "--port"),
            (&["x", "--cluster-name", "c", "--port", ""], "--port"),
            (&["x", "--cluster-name", "c", "--to", ""], "--to"),
            (&["x", "--cluster-name", "", "--to", "k"], "--cluster-name"),
        ] {
            let line = one_line(&try_parse::<Sample>("STTEST", args).unwrap_err());
            assert!(line.starts_with("error:") && line.contains(word) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn an_empty_value_is_refused_below_a_verb_too() {
        let line = one_line(&try_parse::<Verbs>("STTEST", ["x", "move", "--cluster-name", "c", "--to="]).unwrap_err());
        assert!(line.contains("--to") && line.contains("empty"), "{line}");
        assert!(try_parse::<Verbs>("STTEST", ["x", "move", "--cluster-name", "c", "--to", "k"]).is_ok());
    }

    #[test]
    fn every_flag_names_its_variable() {
        let help = with_environment(Sample::command(), "STTEST").render_long_help().to_string();
        assert!(help.contains("STTEST_CLUSTER_NAME") && help.contains("STTEST_PORT"), "{help}");
    }
}
