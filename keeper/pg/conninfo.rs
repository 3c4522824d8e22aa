//! libpq's connection strings and its password file. No string made here holds a password.

use super::{Credentials, Instance, Login, PgError};

/// `key='value'` pairs, quoted as libpq wants them.
pub(super) fn join(pairs: &[(&str, &str)]) -> String {
    let quoted = pairs.iter().map(|(key, value)| {
        let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
        format!("{key}='{escaped}'")
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// How a program or the walreceiver of this instance reaches another server.
pub(super) fn to_server(instance: &Instance, host: &str, port: u16, login: &Login, more: &[(&str, &str)]) -> String {
    let (port, passfile) = (port.to_string(), instance.passfile());
    let passfile = passfile.to_string_lossy();
    let mut pairs = vec![("host", host), ("port", &port), ("user", &login.name), ("sslmode", "prefer")];
    if login.auth.password().is_some() {
        pairs.push(("passfile", &passfile));
    }
    // A peer that vanished without a word is noticed by its silence on the connection, too.
    pairs.extend([
        ("connect_timeout", "5"),
        ("keepalives_idle", "5"),
        ("keepalives_interval", "2"),
        ("keepalives_count", "3"),
    ]);
    pairs.extend_from_slice(more);
    join(&pairs)
}

/// Writes the password file (0600, of PostgreSQL's user); without passwords there is none.
pub(super) fn write_passfile(instance: &Instance) -> Result<(), PgError> {
    let path = instance.passfile();
    let text = passfile(instance.credentials());
    if text.is_empty() {
        return instance.as_owner(|| super::files::remove(&path).map(drop).map_err(PgError::io("remove", &path)));
    }
    instance.write_owned(&path, text.as_bytes()).map(drop)
}

fn passfile(credentials: &Credentials) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let mut text = String::new();
    for login in [&credentials.replication, &credentials.superuser] {
        if let Some(secret) = login.auth.password() {
            text += &format!("*:*:*:{}:{}\n", escape(&login.name), escape(secret.reveal()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Auth, Secret};

    #[test]
    fn values_with_quotes_stay_one_value() {
        assert_eq!(join(&[("host", "a b"), ("user", r"o'x\")]), r"host='a b' user='o\'x\\'");
    }

    #[test]
    fn separators_in_names_and_passwords_are_escaped() {
        let login = |name: &str, text: &str| Login { name: name.into(), auth: Auth::Scram(Secret::new(text)) };
        let credentials = Credentials { superuser: login("su", r"p:\q"), replication: login("repl", "r") };
        assert_eq!(passfile(&credentials), "*:*:*:repl:r\n*:*:*:su:p\\:\\\\q\n");
    }
}
