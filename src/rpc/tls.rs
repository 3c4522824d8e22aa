//! Certificates of mutual TLS, read anew when the files change. A new file that can't be used keeps the old one in use,
//! with one error in the log: a half-written certificate must not take a daemon off the network.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::time::timeout;

use super::TlsArgs;

/// A look at three files takes microseconds, unless their disk hangs: then the certificates in use stay so.
const LOOK: Duration = Duration::from_millis(300);

/// The three files, and what was made of them last.
#[derive(Debug)]
pub(super) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    configs: Arc<Configs>,
    /// Of the files that were looked at last, usable or not.
    stamps: Stamps,
}

/// For new connections, either way.
#[derive(Debug)]
pub(super) struct Configs {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

/// Changes when a file is written or replaced: modification time (seconds, nanoseconds), size, inode.
type Stamp = Option<(i64, i64, u64, u64)>;
type Stamps = [Stamp; 3];

impl TlsFiles {
    /// None without the three flags; clap sees to it that they come together.
    pub fn load(args: &TlsArgs) -> Result<Option<Arc<TlsFiles>>, String> {
        let (cert, key, ca) = match (&args.grpc_cert_file, &args.grpc_key_file, &args.grpc_ca_file) {
            (None, None, None) => return Ok(None),
            (Some(cert), Some(key), Some(ca)) => (cert.clone(), key.clone(), ca.clone()),
            _ => return Err("--grpc-cert-file, --grpc-key-file and --grpc-ca-file are needed together".into()),
        };
        let stamps = [stamp(&cert), stamp(&key), stamp(&ca)];
        let configs = Arc::new(read(&cert, &key, &ca)?);
        Ok(Some(Arc::new(TlsFiles { cert, key, ca, state: Mutex::new(State { configs, stamps }) })))
    }

    /// What a connection that begins now uses.
    pub async fn current(self: &Arc<Self>) -> Arc<Configs> {
        let files = self.clone();
        // Off this thread: it may be the one that carries heartbeats.
        let looked = tokio::task::spawn_blocking(move || files.refresh());
        match timeout(LOOK, looked).await {
            Ok(Ok(configs)) => configs,
            _ => self.lock().configs.clone(),
        }
    }

    fn refresh(&self) -> Arc<Configs> {
        let stamps = [stamp(&self.cert), stamp(&self.key), stamp(&self.ca)];
        if self.lock().stamps == stamps {
            return self.lock().configs.clone();
        }
        let read = read(&self.cert, &self.key, &self.ca);
        let mut state = self.lock();
        let seen = state.stamps == stamps;
        state.stamps = stamps;
        match read {
            Ok(configs) => {
                state.configs = Arc::new(configs);
                tracing::info!(file = %self.cert.display(), "using the changed TLS files for new connections");
            }
            Err(error) if !seen => tracing::error!(error, "changed TLS files can't be used, the former stay in use"),
            Err(_) => {}
        }
        state.configs.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
}

fn read(cert: &Path, key: &Path, ca: &Path) -> Result<Configs, String> {
    let chain = certificates("--grpc-cert-file", cert)?;
    let key_bytes = bytes("--grpc-key-file", key)?;
    let private = PrivateKeyDer::from_pem_slice(&key_bytes)
        .map_err(|_| format!("--grpc-key-file {}: no private key in PEM format in it", key.display()))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("--grpc-ca-file", ca)? {
        roots.add(authority).map_err(|error| format!("--grpc-ca-file {}: {error}", ca.display()))?;
    }
    configs(chain, private, Arc::new(roots))
        .map_err(|error| format!("--grpc-cert-file {} with --grpc-key-file {}: {error}", cert.display(), key.display()))
}

/// A daemon with a certificate that its peers refuse runs on without streams: they cost speed, never safety.
fn warn_of_refusal(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'static>]) {
    let Some((own, issuers)) = chain.split_first() else { return };
    if let Err(error) = verifier.verify_client_cert(own, issuers, UnixTime::now()) {
        tracing::error!(
            "--grpc-cert-file, checked against --grpc-ca-file: others will refuse this certificate: {error}"
        );
    }
}

fn bytes(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{flag} {} can't be read: {error}", path.display()))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(&bytes(flag, path)?).collect::<Result<Vec<_>, _>>();
    let none = || format!("{flag} {}: no certificate in PEM format in it", path.display());
    found.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(none)
}

fn configs(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
) -> Result<Configs, rustls::Error> {
    let provider: Arc<CryptoProvider> = ring::default_provider().into();
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    warn_of_refusal(&*verifier, &chain);
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    // Each connection proves itself anew: no session outlives its certificate.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    client.resumption = rustls::client::Resumption::disabled();
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Configs { server: Arc::new(server), client: Arc::new(client) })
}
