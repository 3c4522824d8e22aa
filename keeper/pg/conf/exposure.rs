//! A server that asks for no password must not be reachable from elsewhere.

use std::net::IpAddr;

use crate::pg::Credentials;

/// Refuses a `listen_addresses` beyond loopback while a login needs no password. The error is one line for people.
pub fn check_exposure(listen_address: &str, credentials: &Credentials) -> Result<(), String> {
    if !credentials.open() {
        return Ok(());
    }
    let exposed = listen_address.split(',').map(str::trim).find(|address| !address.is_empty() && !is_loopback(address));
    match exposed {
        None => Ok(()),
        Some(address) => Err(format!(
            "PostgreSQL would listen on {address} and let everybody in without a password: set --pg-su-password(file) and \
             --pg-repl-password(file), or listen on a loopback address only"
        )),
    }
}

fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Auth, Login, Secret};

    fn credentials(superuser: Auth) -> Credentials {
        let replication = Login { name: "repl".into(), auth: Auth::Scram(Secret::new("x")) };
        Credentials { superuser: Login { name: "su".into(), auth: superuser }, replication }
    }

    #[test]
    fn a_server_without_passwords_stays_on_loopback() {
        let open = credentials(Auth::Trust);
        for fine in ["127.0.0.1", "localhost", "::1", "127.0.0.1, ::1", ""] {
            assert_eq!(check_exposure(fine, &open), Ok(()), "{fine}");
        }
        for bad in ["*", "0.0.0.0", "10.0.0.7", "127.0.0.1,db1", "::"] {
            assert!(check_exposure(bad, &open).is_err(), "{bad}");
        }
        assert_eq!(check_exposure("*", &credentials(Auth::Scram(Secret::new("y")))), Ok(()));
    }
}
