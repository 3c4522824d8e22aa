//! The command line: what a person typed, and nothing that depends on the machine. Names and defaults are stolon's where
//! it has them.

use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};
use stolon::{cli::StoreArgs, model::KeeperUid, rpc::GrpcArgs, telemetry::TelemetryArgs};

/// Manages one PostgreSQL instance, as the cluster data in etcd want it.
#[derive(Parser, Clone, Debug)]
#[command(name = "stolon-keeper", version)]
pub struct Cli {
    #[command(flatten)]
    pub store: StoreArgs,
    /// This keeper's id, for good: lower-case letters, digits and '_'. Saved in the data directory, and read from there
    /// when not given; a new one is made up for a new directory.
    #[arg(long = "id", alias = "uid", value_name = "ID", env = "STKEEPER_UID")]
    pub id: Option<KeeperUid>,
    /// The keeper's directory: its own files, and PostgreSQL's data below `postgres`. Made when it is missing.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Port to listen on for gRPC (status, debugging); 0 is any free one, registered in etcd.
    #[arg(long, value_name = "PORT", default_value_t = 5431)]
    pub port: u16,
    #[command(flatten)]
    pub postgres: PostgresArgs,
    #[command(flatten)]
    pub users: UserArgs,
    /// Whether this keeper may become the primary's.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true",
          num_args = 0..=1, require_equals = true)]
    pub can_be_master: bool,
    /// Whether commits may wait for this keeper's standby.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true",
          num_args = 0..=1, require_equals = true)]
    pub can_be_synchronous_replica: bool,
    /// When asked to end, leave PostgreSQL running for the next keeper on this directory, as for an upgrade of the
    /// keeper. It must come within the time of the registration's lease (5 s), or the cluster takes it for dead.
    #[arg(long)]
    pub leave_postgres: bool,
    /// Do not lock the data directory: only for file systems without locks. Two keepers on one directory destroy it.
    #[arg(long)]
    pub disable_data_dir_locking: bool,
    #[command(flatten)]
    pub grpc: GrpcArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// PostgreSQL itself.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "PostgreSQL")]
pub struct PostgresArgs {
    /// Addresses that PostgreSQL listens on, comma separated; '*' for all. Beyond loopback passwords are needed.
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1")]
    pub pg_listen_address: String,
    /// Port that PostgreSQL listens on.
    #[arg(long, value_name = "PORT", default_value_t = 5432, value_parser = clap::value_parser!(u16).range(1..))]
    pub pg_port: u16,
    /// Address that others reach PostgreSQL at. Default: the listening one.
    #[arg(long, value_name = "HOST")]
    pub pg_advertise_address: Option<String>,
    /// Port that others reach PostgreSQL at. Default: the listening one.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub pg_advertise_port: Option<u16>,
    /// Folder of PostgreSQL's Unix socket. Servers that share one need different ports, also in network namespaces.
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    pub pg_unix_socket_dir: PathBuf,
    /// Folder of PostgreSQL's programs. Default: PATH, then the distribution's.
    #[arg(long, value_name = "DIR")]
    pub pg_bin_path: Option<PathBuf>,
    /// OS user that runs PostgreSQL when the keeper runs as root. Default: postgres.
    #[arg(long, value_name = "USER")]
    pub pg_os_user: Option<String>,
}

/// The two users that the cluster works with; the same on all its keepers.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "PostgreSQL's users")]
pub struct UserArgs {
    /// Superuser. Default: the OS user that starts the keeper.
    #[arg(long, value_name = "NAME")]
    pub pg_su_username: Option<String>,
    /// The superuser's password; a file keeps it off the command line.
    #[arg(long, value_name = "PASSWORD", conflicts_with = "pg_su_passwordfile", hide_env_values = true)]
    pub pg_su_password: Option<String>,
    /// File with the superuser's password.
    #[arg(long, value_name = "FILE")]
    pub pg_su_passwordfile: Option<PathBuf>,
    /// How the superuser proves itself. Default: scram-sha-256 with a password, trust (loopback only) without.
    #[arg(long, value_name = "METHOD")]
    pub pg_su_auth_method: Option<Method>,
    /// User that standbys replicate as.
    #[arg(long, value_name = "NAME", default_value = "repl")]
    pub pg_repl_username: String,
    /// The replication user's password.
    #[arg(long, value_name = "PASSWORD", conflicts_with = "pg_repl_passwordfile", hide_env_values = true)]
    pub pg_repl_password: Option<String>,
    /// File with the replication user's password.
    #[arg(long, value_name = "FILE")]
    pub pg_repl_passwordfile: Option<PathBuf>,
    /// How the replication user proves itself. Default: as for the superuser.
    #[arg(long, value_name = "METHOD")]
    pub pg_repl_auth_method: Option<Method>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    Trust,
    Md5,
    #[value(name = "scram-sha-256")]
    Scram,
}

#[cfg(test)]
mod tests {
    use stolon::cli::try_parse;

    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        try_parse("STKEEPERTEST", [&["x", "--cluster-name", "c", "--data-dir", "d"], args].concat())
    }

    #[test]
    fn the_defaults_are_those_of_the_simple_cluster() {
        let cli = parse(&[]).unwrap();
        assert_eq!((cli.port, cli.postgres.pg_port), (5431, 5432));
        assert_eq!(cli.postgres.pg_listen_address, "127.0.0.1");
        assert!(cli.can_be_master && cli.id.is_none() && !cli.leave_postgres);
        assert_eq!(cli.users.pg_repl_username, "repl");
    }

    #[test]
    fn id_and_uid_are_one_flag() {
        for flag in ["--id", "--uid"] {
            assert_eq!(parse(&[flag, "k0"]).unwrap().id.unwrap().as_str(), "k0");
        }
        assert!(parse(&["--id", "A-b"]).is_err());
    }

    #[test]
    fn a_password_and_its_file_exclude_each_other() {
        assert!(parse(&["--pg-su-password", "x", "--pg-su-passwordfile", "f"]).is_err());
        assert!(parse(&["--pg-su-auth-method", "ident"]).is_err());
    }
}
