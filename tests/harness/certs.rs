//! Certificates for mutual TLS: an authority, and per host one certificate and key, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    pub ca_file: PathBuf,
}

/// One holder's files.
#[derive(Clone, Debug)]
pub struct Holder {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

impl Holder {
    /// The daemons' flags for these files.
    pub fn flags(&self) -> Vec<String> {
        let pair = |flag: &str, path: &Path| [format!("--grpc-{flag}-file"), path.display().to_string()];
        [pair("cert", &self.cert), pair("key", &self.key), pair("ca", &self.ca)].concat()
    }

    /// The daemons' flags for their connection to etcd.
    pub fn store_flags(&self) -> Vec<String> {
        let pair = |flag: &str, path: &Path| [format!("--store-{flag}"), path.display().to_string()];
        [pair("cert-file", &self.cert), pair("key", &self.key), pair("ca-file", &self.ca)].concat()
    }
}

impl Authority {
    /// Makes an authority; its files go to `folder`.
    pub fn new(folder: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let ca_file = folder.join(format!("{name}.ca.pem"));
        std::fs::write(&ca_file, issuer.pem()).expect("the authority's file");
        Authority { issuer, folder: folder.to_owned(), ca_file }
    }

    /// A certificate valid now for these host names or addresses.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Holder {
        self.issue_until(name, hosts, 2100)
    }

    /// One that ended years ago.
    pub fn issue_expired(&self, name: &str, hosts: &[&str]) -> Holder {
        self.issue_until(name, hosts, 2020)
    }

    fn issue_until(&self, name: &str, hosts: &[&str], year: i32) -> Holder {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}.pem"));
        std::fs::write(file("cert"), cert.pem()).expect("the certificate's file");
        std::fs::write(file("key"), key.serialize_pem()).expect("the key's file");
        Holder { cert: file("cert"), key: file("key"), ca: self.ca_file.clone() }
    }
}
