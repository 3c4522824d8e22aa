//! Mutual TLS: who gets in, who does not and why, and certificates that are replaced while the daemon runs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::rpc::explain;

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = format!("{} {}", folder.display(), rand::random::<u32>());
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer, folder: folder.to_owned() }
    }

    /// Writes `<name>.cert`, `<name>.key` and `<name>.ca`.
    pub fn issue(&self, name: &str, host: &str, last_year: i32) -> TlsArgs {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let write = |kind: &str, text: String| {
            let path = self.folder.join(format!("{name}.{kind}"));
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        TlsArgs {
            grpc_cert_file: write("cert", cert.pem()),
            grpc_key_file: write("key", key.serialize_pem()),
            grpc_ca_file: write("ca", self.issuer.pem()),
        }
    }
}

pub(super) fn with(tls: &TlsArgs) -> GrpcArgs {
    GrpcArgs { tls: tls.clone(), ..loopback() }
}

/// A call over a connection of its own: the refusal's line, when it is refused.
pub(super) async fn call(address: &str, tls: &TlsArgs) -> Result<(), String> {
    let dialer = Dialer::with_files(tls).unwrap();
    let channel = dialer.channel(address).unwrap();
    let answer = soon("an answer", async { HealthClient::new(channel).check(HealthCheckRequest::default()).await });
    match answer.await {
        Ok(_) => Ok(()),
        Err(status) => Err(dialer.explain(&status)),
    }
}

#[tokio::test]
async fn only_holders_of_the_authoritys_valid_certificates_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let server = ours.issue("server", "127.0.0.1", 2100);
    let serving = Serving::start(&with(&server), 0);
    let client = ours.issue("client", "client.example", 2100);
    call(&serving.address, &client).await.unwrap();

    let theirs = Authority::new(folder.path()).issue("foreign", "client.example", 2100);
    let impostor = TlsArgs { grpc_ca_file: server.grpc_ca_file.clone(), ..theirs.clone() };
    for (who, tls, word) in [
        ("a foreign authority's certificate", impostor, "UnknownCA"),
        ("an expired certificate", ours.issue("expired", "client.example", 2020), "Expired"),
        ("a client that knows another authority", theirs, "UnknownIssuer"),
        ("a client without TLS", TlsArgs::default(), ""),
    ] {
        let error = call(&serving.address, &tls).await.expect_err(who);
        assert!(error.contains(word) && !error.contains('\n') && error.len() > 10, "{who}: {error}");
    }
    // A client that has the authority's certificate, but none of its own.
    let error = nameless(serving.port, &server).await;
    assert!(error.contains("CertificateRequired"), "{error}");
    serving.stop().await;
}

async fn nameless(port: u16, server: &TlsArgs) -> String {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio::io::AsyncReadExt;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.grpc_ca_file.as_ref().unwrap()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let ended = soon("the server hangs up", async { stream.read_u8().await });
    ended.await.unwrap_err().to_string()
}

#[tokio::test]
async fn whoever_is_cut_off_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let server = ours.issue("server", "127.0.0.1", 2100);
    let secure = Serving::start(&with(&server), 0);
    let plain = Serving::start(&loopback(), 0);
    let theirs = Authority::new(folder.path()).issue("foreign", "client.example", 2100);
    let impostor = TlsArgs { grpc_ca_file: server.grpc_ca_file.clone(), ..theirs };
    // What the cut looks like is a matter of microseconds.
    for _ in 0..20 {
        for (address, tls, advice) in [
            (
                &secure.address,
                TlsArgs::default(),
                "speaks TLS: give --grpc-ca-file, --grpc-cert-file and --grpc-key-file",
            ),
            (&secure.address, impostor.clone(), "refused the certificate of --grpc-cert-file"),
            (&plain.address, server.clone(), "may not speak TLS"),
        ] {
            let error = call(address, &tls).await.unwrap_err();
            assert!(error.contains(advice) && !error.contains('\n'), "{advice}: {error}");
        }
    }
    plain.stop().await;
    secure.stop().await;
    // Where nobody listens, TLS is not the reason.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = call(&nobody, &TlsArgs::default()).await.unwrap_err();
    assert!(error.contains("refused") && !error.contains("TLS"), "{error}");
}

#[tokio::test]
async fn a_servers_certificate_must_be_valid_for_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let serving = Serving::start(&with(&ours.issue("server", "db1.example", 2100)), 0);
    let error = call(&serving.address, &ours.issue("client", "client.example", 2100)).await.unwrap_err();
    assert!(error.contains("127.0.0.1") && error.contains("certificate"), "{error}");
    serving.stop().await;
}

#[tokio::test]
async fn replaced_files_serve_the_next_connection_and_broken_ones_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = Authority::new(folder.path());
    let server = old.issue("server", "127.0.0.1", 2100);
    let client = old.issue("client", "client.example", 2100);
    let serving = Serving::start(&with(&server), 0);
    let lasting = Dialer::with_files(&client).unwrap();
    let check = async |dialer: &Dialer| {
        let channel = dialer.channel(&serving.address).unwrap();
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.map_err(|status| explain(&status))
    };
    check(&lasting).await.unwrap();
    std::fs::write(server.grpc_cert_file.as_ref().unwrap(), "half a certi").unwrap();
    check(&lasting).await.unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let new = Authority::new(elsewhere.path());
    let install = |from: &TlsArgs, to: &TlsArgs| {
        for (from, to) in [
            (&from.grpc_cert_file, &to.grpc_cert_file),
            (&from.grpc_key_file, &to.grpc_key_file),
            (&from.grpc_ca_file, &to.grpc_ca_file),
        ] {
            std::fs::copy(from.as_ref().unwrap(), to.as_ref().unwrap()).unwrap();
        }
    };
    install(&new.issue("server", "127.0.0.1", 2100), &server);
    let refused = check(&lasting).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "the client still has the old authority: {refused}");
    install(&new.issue("client", "client.example", 2100), &client);
    check(&lasting).await.unwrap();
    serving.stop().await;
}

#[test]
fn files_that_cant_be_used_at_the_start_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path());
    let (good, other) = (ours.issue("good", "h", 2100), ours.issue("other", "h", 2100));
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "no certificate").unwrap();
    let gone = Some(folder.path().join("gone"));
    for (tls, words) in [
        (TlsArgs { grpc_cert_file: Some(garbage.clone()), ..good.clone() }, ["--grpc-cert-file", "garbage"]),
        (TlsArgs { grpc_key_file: good.grpc_cert_file.clone(), ..good.clone() }, ["--grpc-key-file", "good.cert"]),
        (TlsArgs { grpc_key_file: other.grpc_key_file, ..good.clone() }, ["good.cert", "other.key"]),
        (TlsArgs { grpc_ca_file: gone, ..good.clone() }, ["--grpc-ca-file", "gone"]),
        (TlsArgs { grpc_ca_file: None, ..good }, ["--grpc-ca-file", "together"]),
    ] {
        let error = Dialer::with_files(&tls).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    }
}
