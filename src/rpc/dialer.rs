//! The client side: makes channels to other daemons, plain or by mutual TLS with the certificates of the moment.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{Status, transport::Endpoint};

use super::{Channel, GrpcArgs, TlsArgs, explain, tls::TlsFiles};

/// TCP and TLS handshake together; a live host on any sane network answers far sooner.
const CONNECT: Duration = Duration::from_secs(1);
/// From a request to the headers of its answer.
const ANSWER: Duration = Duration::from_secs(5);
/// An idle line is pinged at this interval, and given up after `PING_ANSWER`: a silent peer is noticed in 3 s.
const PING: Duration = Duration::from_secs(2);
const PING_ANSWER: Duration = Duration::from_secs(1);

/// In the line about a connection that could not be made.
const DIALLED: &str = " port ";
/// In the same line, when TCP stood.
const HANDSHAKE: &str = "TLS handshake: ";

/// Makes channels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Option<Arc<TlsFiles>>,
}

pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

impl Dialer {
    /// Reads the TLS files once; an error is one line that names the file.
    pub fn new(args: &GrpcArgs) -> Result<Dialer, String> {
        Dialer::with_files(&args.tls)
    }

    /// For a program that only calls (`stolonctl`).
    pub fn with_files(args: &TlsArgs) -> Result<Dialer, String> {
        Ok(Dialer { tls: TlsFiles::load(args)? })
    }

    /// A channel to `address` (`host:port`). Makes no connection yet, so call it inside a tokio runtime and keep it.
    pub fn channel(&self, address: &str) -> Result<Channel, String> {
        let bad = |_| format!("{address:?} is no gRPC address: HOST:PORT is needed");
        let uri: http::Uri = format!("http://{address}").parse().map_err(bad)?;
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(format!("{address:?} is no gRPC address: HOST:PORT is needed"));
        };
        let host = Arc::<str>::from(host.trim_matches(['[', ']']));
        let endpoint = Endpoint::from(uri)
            .timeout(ANSWER)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(true);
        let dialer = self.clone();
        let connector = tower::service_fn(move |_| {
            let (dialer, host) = (dialer.clone(), host.clone());
            async move { dialer.connect(&host, port).await.map(TokioIo::new) }
        });
        Ok(Channel(endpoint.connect_with_connector_lazy(connector)))
    }

    /// What a call failed of whose channel has not answered before, in one line; with what to do when the connection was
    /// made and then cut, which is all that a client sees of a peer that wants TLS, or another certificate.
    pub fn explain(&self, status: &Status) -> String {
        let text = explain(status);
        let here = std::error::Error::source(status).is_some() && !text.contains("Timeout expired");
        let dialled = text.contains(DIALLED);
        match &self.tls {
            None if here && !dialled => {
                text + "; if the other side speaks TLS: give --grpc-ca-file, --grpc-cert-file and --grpc-key-file"
            }
            Some(_) if here && !dialled => {
                text + "; it may have refused the certificate of --grpc-cert-file: is that one valid, and from an authority in \
                        the other side's --grpc-ca-file?"
            }
            Some(_) if text.contains(HANDSHAKE) && !text.contains("certificate") && !text.contains("alert") => {
                text + "; the other side may not speak TLS: then leave out --grpc-ca-file, --grpc-cert-file and --grpc-key-file"
            }
            _ => text,
        }
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Line>> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{host}{DIALLED}{port}: {error}"));
        match timeout(CONNECT, self.handshake(host, port)).await {
            Ok(connected) => connected.map_err(named),
            Err(_) => Err(named(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}")))),
        }
    }

    async fn handshake(&self, host: &str, port: u16) -> io::Result<Box<dyn Line>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let Some(files) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no name that a certificate could have"))?;
        let config = files.current().await.client.clone();
        let secure = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(secure.map_err(|error| io::Error::new(error.kind(), format!("{HANDSHAKE}{error}")))?))
    }
}
