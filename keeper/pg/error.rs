//! Why an operation on PostgreSQL failed: one line for people, and a variant that says what the caller may do about it.

use std::{io, path::Path, time::Duration};

/// See the module. No variant ever holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The file system refused.
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// A helper program failed; its last line of complaint.
    #[error("{program} failed: {problem}")]
    Program { program: &'static str, problem: String },
    /// The server could not be reached or refused a statement.
    #[error("{doing}: {problem}")]
    Sql { doing: &'static str, problem: String },
    /// The server lives and has no place left for a new connection (SQLSTATE 53300).
    #[error("{doing}: all of max_connections are taken")]
    Full { doing: &'static str },
    /// A condition is not met; nothing was done.
    #[error("{0}")]
    Refused(String),
    /// The postmaster ended while something was awaited of it.
    #[error("postgres ended while {0}")]
    Exited(String),
    #[error("{doing}: nothing after {:.1} s", after.as_secs_f64())]
    TimedOut { doing: &'static str, after: Duration },
}

impl PgError {
    /// For `map_err`: an error of the file system, with what was being done to which path.
    pub(super) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> PgError + use<> {
        let doing = format!("{doing} {}", path.display());
        move |source| PgError::Io { doing, source }
    }

    pub(super) fn system(doing: &str) -> impl FnOnce(rustix::io::Errno) -> PgError + use<> {
        let doing = doing.to_owned();
        move |errno| PgError::Io { doing, source: errno.into() }
    }
}
