//! The command line: `stolonctl VERB [FLAGS]`; flags may also come first (`order`).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stolon::{
    cli::StoreArgs,
    rpc::TlsArgs,
    telemetry::{LogLevel, TelemetryArgs},
};

const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 failed, with one line on standard error; 2 the command line can't be used.
Every flag is also an environment variable: STOLONCTL_ and its name in capitals, with _ for -.";

/// Shows and tends a stolon cluster, and runs one to play with.
#[derive(Parser, Clone, Debug)]
#[command(name = "stolonctl", version, after_help = EXIT_CODES, disable_help_subcommand = true,
          arg_required_else_help = false)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Shows primary, keepers, sentinels, proxies and problems. Exit code 0 also when the cluster is not available: ask
    /// the JSON form for `.cluster.available`.
    #[command(after_help = EXIT_CODES)]
    Status(StatusArgs),
    /// Shows the stored cluster data.
    #[command(after_help = EXIT_CODES)]
    Clusterdata(ClusterdataArgs),
    /// Shows the stored cluster specification.
    #[command(after_help = EXIT_CODES)]
    Spec(SpecArgs),
    /// Hands the primary role over to a standby, in good order: no commit is lost, the old primary follows. Refused with the
    /// reason when the standby can't take it; when a step fails, the old primary carries on.
    #[command(after_help = EXIT_CODES)]
    Switchover(SwitchoverArgs),
    /// Shows the version of this program.
    Version {
        /// Flags of the other verbs, without meaning here.
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<std::ffi::OsString>,
    },
    /// Runs a whole cluster on this machine: etcd, keepers, sentinels and a proxy as child processes, until Ctrl-C. They
    /// end with it, whatever it ends of; until then, what dies is started again.
    #[command(after_help = EXIT_CODES)]
    Playground(PlaygroundArgs),
}

/// What every verb needs that asks a cluster.
#[derive(Args, Clone, Debug)]
pub struct Access {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Least important lines that are logged.
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    pub log_level: LogLevel,
}

#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    pub access: Access,
    /// Text for people, or JSON for programs.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Args, Clone, Debug)]
#[command(arg_required_else_help = false)]
pub struct ClusterdataArgs {
    #[command(subcommand)]
    pub verb: ClusterdataVerb,
}

#[derive(Subcommand, Clone, Debug)]
pub enum ClusterdataVerb {
    /// Prints the document byte for byte as it is stored, and a line break.
    #[command(after_help = EXIT_CODES)]
    Read {
        #[command(flatten)]
        access: Access,
        /// Indented, fields in alphabetical order.
        #[arg(long)]
        pretty: bool,
    },
}

#[derive(Args, Clone, Debug)]
pub struct SwitchoverArgs {
    #[command(flatten)]
    pub access: Access,
    /// Keeper that is to be the primary. Default: the one whose standby is furthest.
    #[arg(long, value_name = "KEEPER")]
    pub to: Option<String>,
    /// Text for people, or JSON for programs.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

#[derive(Args, Clone, Debug)]
pub struct SpecArgs {
    #[command(flatten)]
    pub access: Access,
    /// Every field, also those that were left to their defaults.
    #[arg(long)]
    pub defaults: bool,
}

#[derive(Args, Clone, Debug)]
pub struct PlaygroundArgs {
    /// Folder for logs and data, kept at the end. Default: a new one below the temp folder, removed at a clean end.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Number of keepers, each with a PostgreSQL.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub keepers: u16,
    /// Number of sentinels.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub sentinels: u16,
    /// Port of the proxy, where clients connect; 0 is any free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Show a failover: write rows, kill the primary's PostgreSQL, measure the gap, look for missing rows.
    #[arg(long)]
    pub demo: bool,
    /// End after the demonstration; the exit code tells whether all was well.
    #[arg(long, requires = "demo")]
    pub exit: bool,
}

impl Access {
    /// Logs, and traces when OTEL's variables name a collector.
    pub fn telemetry(&self) -> TelemetryArgs {
        TelemetryArgs { log_level: self.log_level, ..TelemetryArgs::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use stolon::cli::try_parse;

    use super::*;

    #[test]
    fn flags_follow_their_verb() {
        Cli::command().debug_assert();
        let parse = |line: &str| try_parse::<Cli>("STOLONCTLTEST", line.split(' '));
        let status = parse("stolonctl status --cluster-name c -f json").unwrap();
        assert!(matches!(status.verb, Verb::Status(args) if args.format == Format::Json));
        for good in ["stolonctl clusterdata read --cluster-name c --pretty", "stolonctl version --cluster-name c"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["stolonctl status", "stolonctl nonsense", "stolonctl playground --exit", "stolonctl"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
