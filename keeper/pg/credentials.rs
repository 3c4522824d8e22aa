//! The two logins that a cluster runs on, and passwords that no log or error can show.

use std::fmt;

/// A password. Neither `Debug` nor `Display` of anything that holds it shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself: only for the server, a password file, or a program's standard input.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a login proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// It does not: only on loopback.
    Trust,
    /// `md5` in pg_hba.conf: the server takes SCRAM when the stored password is one, and still admits databases that
    /// stolon created with md5.
    Md5(Secret),
    /// `scram-sha-256` in pg_hba.conf.
    Scram(Secret),
}

impl Auth {
    /// The method's name in pg_hba.conf.
    pub fn method(&self) -> &'static str {
        match self {
            Auth::Trust => "trust",
            Auth::Md5(_) => "md5",
            Auth::Scram(_) => "scram-sha-256",
        }
    }

    pub fn password(&self) -> Option<&Secret> {
        match self {
            Auth::Trust => None,
            Auth::Md5(secret) | Auth::Scram(secret) => Some(secret),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub name: String,
    pub auth: Auth,
}

/// The same on every keeper of a cluster. Both logins may have one name, with one password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub superuser: Login,
    pub replication: Login,
}

impl Credentials {
    /// A rule of stolon: one name, one login.
    pub fn check(&self) -> Result<(), String> {
        let (one, two) = (&self.superuser, &self.replication);
        if one.name.is_empty() || two.name.is_empty() {
            return Err("the superuser and the replication user need a name".into());
        }
        if one.name == two.name && one.auth != two.auth {
            return Err(format!(
                "superuser and replication user are both {:?} with different passwords or methods: give both the same",
                one.name
            ));
        }
        for login in [one, two] {
            if login.name.contains(['\n', '\r', '\0']) {
                return Err(format!("the user name {:?} holds a line break", login.name));
            }
            let empty = login.auth.password().is_some_and(|secret| secret.reveal().is_empty());
            if empty || login.auth.password().is_some_and(|s| s.reveal().contains(['\n', '\r', '\0'])) {
                return Err(format!("the password of {:?} is empty or holds a line break", login.name));
            }
        }
        Ok(())
    }

    /// True when a connection needs no password at all.
    pub fn open(&self) -> bool {
        self.superuser.auth == Auth::Trust || self.replication.auth == Auth::Trust
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str, auth: Auth) -> Login {
        Login { name: name.into(), auth }
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = format!("{:?}", login("a", Auth::Scram(Secret::new("hush"))));
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn one_name_with_two_passwords_is_refused() {
        let scram = |text: &str| Auth::Scram(Secret::new(text));
        let bad = Credentials { superuser: login("a", scram("x")), replication: login("a", scram("y")) };
        assert!(bad.check().unwrap_err().contains("both \"a\""));
        let good = Credentials { superuser: login("a", scram("x")), replication: login("a", scram("x")) };
        assert_eq!(good.check(), Ok(()));
    }
}
