//! Flags of the gRPC side, the same for the three daemons.

use std::path::PathBuf;

use clap::Args;

/// Where a daemon listens for gRPC, and how it proves itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "gRPC")]
pub struct GrpcArgs {
    /// Address to listen on for gRPC. Any other than loopback needs the three --grpc-*-file flags.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub grpc_listen_address: String,
    /// Host name or address that other daemons reach this one's gRPC at. Default: --grpc-listen-address.
    #[arg(long, value_name = "HOST")]
    pub grpc_advertise_address: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// Files of mutual TLS. Replaced files are used for the next connection, without a restart.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsArgs {
    /// This daemon's certificate (PEM), for its gRPC server and as a client of others.
    #[arg(long, value_name = "FILE", requires_all = ["grpc_key_file", "grpc_ca_file"])]
    pub grpc_cert_file: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["grpc_cert_file", "grpc_ca_file"])]
    pub grpc_key_file: Option<PathBuf>,
    /// Certificates of the authorities that every peer's certificate must come from (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["grpc_cert_file", "grpc_key_file"])]
    pub grpc_ca_file: Option<PathBuf>,
}
