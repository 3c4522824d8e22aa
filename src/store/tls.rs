//! The files of TLS towards etcd. Knows flags; makes no connection.

use etcd_client::{Certificate, Identity, TlsOptions};

use crate::cli::StoreArgs;

/// What connections to https endpoints use; none for http. An error is one line that names the flag.
pub(super) fn tls(args: &StoreArgs) -> Result<Option<TlsOptions>, String> {
    let secure = args.store_endpoints.iter().filter(|url| url.starts_with("https://")).count();
    let files = args.store_ca_file.is_some() || args.store_cert_file.is_some();
    match secure {
        0 if files => {
            read_all(args)?;
            return Err("--store-endpoints: the --store-*-file flags need https URLs".into());
        }
        0 => return Ok(None),
        some if some < args.store_endpoints.len() => {
            return Err("--store-endpoints: all URLs must be http, or all https".into());
        }
        _ => {}
    }
    let (ca, identity) = read_all(args)?;
    let ca = ca.ok_or("--store-ca-file is needed for https endpoints: the authority of etcd's certificates")?;
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((cert, key)) = identity {
        options = options.identity(Identity::from_pem(cert, key));
    }
    Ok(Some(options))
}

type Pair = (Vec<u8>, Vec<u8>);

fn read_all(args: &StoreArgs) -> Result<(Option<Vec<u8>>, Option<Pair>), String> {
    let read = |flag: &str, path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|error| format!("{flag} {} can't be read: {error}", path.display()))
    };
    let ca = args.store_ca_file.as_ref().map(|path| read("--store-ca-file", path)).transpose()?;
    let identity = match (&args.store_cert_file, &args.store_key) {
        (Some(cert), Some(key)) => Some((read("--store-cert-file", cert)?, read("--store-key", key)?)),
        _ => None,
    };
    Ok((ca, identity))
}
