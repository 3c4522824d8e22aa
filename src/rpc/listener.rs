//! The server side: binds early, so that a taken port is a line at start and not a surprise later, and serves when the
//! daemon is ready.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    sync::Arc,
};

use tonic::service::Routes;

use super::{GrpcArgs, Services, serve, tls::TlsFiles};
use crate::{task::Shutdown, wire::DESCRIPTORS};

/// Connections that the system has taken and the accept loop has not.
const QUEUE: i32 = 1024;

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<TlsFiles>>,
    advertised: String,
}

impl Listener {
    /// Binds now; 0 is any free port. `flag` is the name of the port's flag, for the error. Refuses to listen outside
    /// loopback without TLS: whoever reaches the port could read the cluster's state and speak as any keeper.
    pub fn bind(args: &GrpcArgs, port: u16, flag: &str) -> Result<Listener, String> {
        let tls = TlsFiles::load(&args.tls)?;
        let address = &args.grpc_listen_address;
        let found = resolve(address, port)?;
        if tls.is_none() && !found.ip().is_loopback() {
            return Err(format!(
                "--grpc-listen-address {address} is not loopback: give --grpc-cert-file, --grpc-key-file and \
                 --grpc-ca-file, or anybody who reaches it could speak as a member of the cluster"
            ));
        }
        if found.ip().is_unspecified() && args.grpc_advertise_address.is_none() {
            return Err(format!(
                "--grpc-listen-address {address} names no host: give --grpc-advertise-address, where others reach it"
            ));
        }
        let socket = TcpListener::bind(found).map_err(|error| refused(&error, found, flag))?;
        // A longer queue than the standard library's 128, if the system grants it: else a stranger's connections fill it.
        let _ = rustix::net::listen(&socket, QUEUE);
        let bound = socket.local_addr().and_then(|bound| socket.set_nonblocking(true).map(|()| bound));
        let bound = bound.map_err(|error| refused(&error, found, flag))?;
        let host = args.grpc_advertise_address.clone().unwrap_or_else(|| address.clone());
        Ok(Listener { socket, tls, advertised: join(&host, bound.port()) })
    }

    /// `host:port` that others reach it at.
    pub fn advertised(&self) -> String {
        self.advertised.clone()
    }

    /// Serves until the shutdown, adding health and reflection (v1 and v1alpha). Give `Services`, or plain `Routes`.
    pub async fn serve(self, services: impl Into<Services>, shutdown: Shutdown) -> Result<(), String> {
        let routes = complete(services.into()).await?;
        let socket =
            tokio::net::TcpListener::from_std(self.socket).map_err(|error| format!("gRPC listener: {error}"))?;
        serve::serve(socket, self.tls, routes, shutdown).await;
        Ok(())
    }
}

async fn complete(services: Services) -> Result<Routes, String> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut reflection = [(); 2].map(|()| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    });
    for name in services.names() {
        reporter.set_service_status(*name, tonic_health::ServingStatus::Serving).await;
    }
    if !services.names().is_empty() {
        let own = ["grpc.health.v1.Health"];
        for name in services.names().iter().copied().chain(own) {
            reflection = reflection.map(|builder| builder.with_service_name(name));
        }
    }
    let [v1, v1alpha] = reflection;
    let broken = |error| format!("the descriptor set of proto/ is damaged: {error}");
    let v1 = v1.with_service_name("grpc.reflection.v1.ServerReflection").build_v1().map_err(broken)?;
    let v1alpha =
        v1alpha.with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().map_err(broken)?;
    Ok(services.into_routes().add_service(health).add_service(v1).add_service(v1alpha))
}

fn resolve(address: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = address.trim_matches(['[', ']']);
    let found = (bare, port).to_socket_addrs();
    let found = found.map_err(|error| format!("--grpc-listen-address {address} can't be resolved: {error}"))?;
    let found: Vec<_> = found.collect();
    // A name of several addresses: the one that others find too, which is IPv4 more often than not.
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("--grpc-listen-address {address} has no address"))
}

fn refused(error: &std::io::Error, address: SocketAddr, flag: &str) -> String {
    let port = address.port();
    match error.kind() {
        ErrorKind::AddrInUse => format!("{flag} {port}: {address} is in use by another process, choose another port"),
        ErrorKind::AddrNotAvailable => {
            format!("--grpc-listen-address {}: this host has no such address", address.ip())
        }
        _ => format!("{flag} {port}: can't listen on {address}: {error}"),
    }
}

fn join(host: &str, port: u16) -> String {
    let bare = host.trim_matches(['[', ']']);
    if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") }
}
