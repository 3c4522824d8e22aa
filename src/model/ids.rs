//! Names of things. Each is a type of its own, so that mixing them does not compile.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is no valid name: one line, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct BadName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $valid:path, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            pub fn parse(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                if $valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(BadName { what: $what, text, rule: $rule })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::parse(text)
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::parse(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 48 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && !text.starts_with('.')
}

name!(
    /// Name of a cluster: a part of the path in the store.
    ClusterName, "cluster name", token, "use letters, digits, '-', '_' and '.', not starting with '.'"
);
name!(
    /// Uid of the cluster data, made when the cluster is initialised.
    ClusterUid, "cluster uid", token, "use letters, digits, '-', '_' and '.'"
);
name!(
    /// Uid of a keeper, saved in its data directory; part of names in PostgreSQL, hence the narrow rule.
    KeeperUid, "keeper id", word, "use 1 to 48 lower-case letters, digits and '_'"
);
name!(
    /// Uid of a db object: one assignment of a database to a keeper. A new copy is a new db.
    DbUid, "db uid", word, "use 1 to 48 lower-case letters, digits and '_'"
);
name!(
    /// Uid of a proxy, new at each start.
    ProxyUid, "proxy uid", token, "use letters, digits, '-', '_' and '.'"
);
name!(
    /// Uid of a sentinel, new at each start.
    SentinelUid, "sentinel uid", token, "use letters, digits, '-', '_' and '.'"
);

impl DbUid {
    /// Name of its replication slot, and its `application_name` (`reference` format: `stolon_<db uid>`).
    pub fn slot(&self) -> String {
        format!("stolon_{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_id_refuses_what_postgres_or_a_path_would_choke_on() {
        for bad in ["", "A", "a-b", "a b", "../x", &"x".repeat(49)] {
            assert!(KeeperUid::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(KeeperUid::parse("postgres0").unwrap().as_str(), "postgres0");
    }

    #[test]
    fn a_bad_name_says_which_rule_it_breaks() {
        let error = ClusterName::parse("a/b").unwrap_err().to_string();
        assert!(error.starts_with("cluster name \"a/b\" is not valid: use letters"), "{error}");
    }
}
