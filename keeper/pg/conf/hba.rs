//! pg_hba.conf: first the lines by which keepers and standbys come in, then the user's.

use stolon::model::view::Access;

use super::Admit;
use crate::pg::{Auth, Credentials, Login};

/// First line while only internal users are admitted: the next keeper must know it, too.
pub(super) const INTERNAL_ONLY: &str =
    "# Only internal users: started again, and the synchronous standbys have not caught up yet.";

/// Without passwords only loopback is admitted; `check_exposure` makes sure that nothing else listens either.
pub(super) fn render(credentials: &Credentials, access: &Access, user: Option<&[String]>, admit: Admit) -> String {
    let Credentials { superuser, replication } = credentials;
    let mut lines = Vec::new();
    if admit == Admit::InternalOnly {
        lines.push(INTERNAL_ONLY.to_owned());
    }
    lines.extend([line("local", "all", superuser, ""), line("local", "replication", superuser, "")]);
    lines.extend([line("local", "replication", replication, ""), line("local", "all", replication, "")]);
    for (database, login) in [("all", superuser), ("all", replication), ("replication", replication)] {
        let from = sources(&login.auth, access);
        lines.extend(from.iter().map(|address| line("host", database, login, address)));
    }
    if admit == Admit::Everybody {
        match user {
            Some(user) => lines.extend(user.iter().cloned()),
            None => lines.extend(default_lines(credentials)),
        }
    }
    lines.join("\n") + "\n"
}

fn line(kind: &str, database: &str, login: &Login, address: &str) -> String {
    let name = login.name.replace('"', "\"\"");
    let space = if address.is_empty() { "" } else { " " };
    format!("{kind} {database} \"{name}\"{space}{address} {}", login.auth.method())
}

fn sources(auth: &Auth, access: &Access) -> Vec<String> {
    let loopback = || vec!["127.0.0.1/32".to_owned(), "::1/128".to_owned()];
    match (auth, access) {
        (Auth::Trust, _) => loopback(),
        (_, Access::Everywhere) => vec!["0.0.0.0/0".into(), "::0/0".into()],
        (_, Access::Only(hosts)) => hosts.iter().map(|host| with_mask(host)).chain(loopback()).collect(),
    }
}

/// A host name stands alone; an address needs a mask.
fn with_mask(host: &str) -> String {
    match host.parse() {
        Ok(std::net::IpAddr::V4(_)) => format!("{host}/32"),
        Ok(std::net::IpAddr::V6(_)) => format!("{host}/128"),
        Err(_) => host.to_owned(),
    }
}

fn default_lines(credentials: &Credentials) -> Vec<String> {
    let (method, addresses) = match &credentials.superuser.auth {
        Auth::Trust => ("trust", ["127.0.0.1/32", "::1/128"]),
        auth => (auth.method(), ["0.0.0.0/0", "::0/0"]),
    };
    let host = addresses.iter().map(|address| format!("host all all {address} {method}"));
    [format!("local all all {method}")].into_iter().chain(host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Secret;

    fn credentials(auth: Auth) -> Credentials {
        let login = |name: &str| Login { name: name.into(), auth: auth.clone() };
        Credentials { superuser: login("postgres"), replication: login("repl") }
    }

    #[test]
    fn without_passwords_no_line_admits_more_than_loopback() {
        let text = render(&credentials(Auth::Trust), &Access::Everywhere, None, Admit::Everybody);
        assert!(
            text.lines()
                .filter(|l| l.starts_with("host"))
                .all(|l| l.contains(" 127.0.0.1/32 ") || l.contains(" ::1/128 "))
        );
        assert!(text.contains("host all all 127.0.0.1/32 trust"), "{text}");
    }

    #[test]
    fn with_passwords_every_line_asks_for_one() {
        let scram = Auth::Scram(Secret::new("x"));
        let text = render(&credentials(scram), &Access::Everywhere, None, Admit::Everybody);
        assert!(text.lines().all(|line| line.ends_with(" scram-sha-256")), "{text}");
        assert!(text.contains("host replication \"repl\" 0.0.0.0/0 scram-sha-256"), "{text}");
    }

    #[test]
    fn strict_access_names_the_hosts_of_the_cluster() {
        let access = Access::Only(vec!["10.0.0.7".into(), "db2".into()]);
        let text = render(&credentials(Auth::Md5(Secret::new("x"))), &access, Some(&[]), Admit::Everybody);
        assert!(text.contains("host replication \"repl\" 10.0.0.7/32 md5"), "{text}");
        assert!(text.contains("host all \"postgres\" db2 md5"), "{text}");
        assert!(!text.contains("0.0.0.0/0"), "{text}");
    }

    #[test]
    fn while_only_internal_users_are_admitted_the_users_lines_are_out() {
        let user = ["host all all 0.0.0.0/0 trust".to_owned()];
        let secret = credentials(Auth::Scram(Secret::new("x")));
        let shut = render(&secret, &Access::Everywhere, Some(&user), Admit::InternalOnly);
        assert!(!shut.contains("host all all") && shut.starts_with(INTERNAL_ONLY), "{shut}");
        assert!(
            render(&secret, &Access::Everywhere, Some(&user), Admit::Everybody)
                .contains("host all all 0.0.0.0/0 trust")
        );
    }
}
