//! The command line: what a person typed, and nothing that depends on the machine.

use std::time::Duration;

use clap::{ArgAction, Parser};
use stolon::{cli::StoreArgs, rpc::GrpcArgs, telemetry::TelemetryArgs};

use crate::gate::door::WhenAbsent;

/// The clients' access point of a stolon cluster: forwards to the primary, and cuts what leads to a former one.
#[derive(Parser, Clone, Debug)]
#[command(name = "stolon-proxy", version)]
pub struct Cli {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Address to listen on for PostgreSQL clients.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub listen_address: String,
    /// Port to listen on for PostgreSQL clients; 0 is any free one.
    #[arg(long, value_name = "PORT", default_value_t = 5432)]
    pub port: u16,
    /// Port to listen on for gRPC (status, debugging); 0 is any free one, registered in etcd.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub grpc_port: u16,
    /// Close the listening socket when the registration in etcd has been gone for proxyTimeout. Connections are cut in
    /// any case, when the registration's lease runs out.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true",
          num_args = 0..=1, require_equals = true)]
    pub stop_listening: bool,
    #[command(flatten)]
    pub keepalive: KeepaliveArgs,
    #[command(flatten)]
    pub grpc: GrpcArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// TCP keepalive of both sides of a connection. It is always on; 0 leaves a value to the operating system.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "TCP keepalive")]
pub struct KeepaliveArgs {
    /// Seconds of silence before the first probe.
    #[arg(long = "tcp-keepalive-idle", value_name = "SECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=32767))]
    pub idle: u16,
    /// Unanswered probes after which the connection is dead.
    #[arg(long = "tcp-keepalive-count", value_name = "COUNT", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=127))]
    pub count: u16,
    /// Seconds between probes.
    #[arg(long = "tcp-keepalive-interval", value_name = "SECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=32767))]
    pub interval: u16,
}

impl KeepaliveArgs {
    pub fn idle(&self) -> Option<Duration> {
        seconds(self.idle)
    }

    pub fn interval(&self) -> Option<Duration> {
        seconds(self.interval)
    }

    pub fn count(&self) -> Option<u32> {
        (self.count > 0).then_some(self.count.into())
    }
}

fn seconds(count: u16) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(count.into()))
}

impl Cli {
    pub fn when_absent(&self) -> WhenAbsent {
        if self.stop_listening { WhenAbsent::StopListening } else { WhenAbsent::Listen }
    }
}

#[cfg(test)]
mod tests {
    use stolon::cli::try_parse;

    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        try_parse("STPROXYTEST", [&["stolon-proxy", "--cluster-name", "c"], args].concat())
    }

    #[test]
    fn the_defaults_are_stolons() {
        let cli = parse(&[]).unwrap();
        assert_eq!((cli.listen_address.as_str(), cli.port, cli.grpc_port), ("127.0.0.1", 5432, 0));
        assert!(cli.stop_listening && cli.keepalive.idle().is_none() && cli.keepalive.count().is_none());
    }

    #[test]
    fn stop_listening_reads_like_a_flag_of_go() {
        for (arg, absent) in [
            ("--stop-listening", WhenAbsent::StopListening),
            ("--stop-listening=true", WhenAbsent::StopListening),
            ("--stop-listening=false", WhenAbsent::Listen),
        ] {
            assert_eq!(parse(&[arg]).unwrap().when_absent(), absent, "{arg}");
        }
        assert!(parse(&["--stop-listening=maybe"]).is_err());
    }

    #[test]
    fn keepalive_values_that_the_kernel_refuses_are_refused_here() {
        for bad in ["--tcp-keepalive-idle=40000", "--tcp-keepalive-count=128", "--tcp-keepalive-interval=-1"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        assert_eq!(parse(&["--tcp-keepalive-idle", "30"]).unwrap().keepalive.idle(), Some(Duration::from_secs(30)));
    }
}
