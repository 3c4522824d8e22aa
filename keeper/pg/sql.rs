//! Short SQL sessions with a deadline. Over the unix socket for the own server, over TCP for others; no session outlives
//! its caller.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage, SimpleQueryRow, error::SqlState};

use super::{Instance, Login, PgError};

/// `dbname=postgres` exists wherever initdb ran; stolon relies on it too.
const DATABASE: &str = "postgres";

/// The own server, as superuser.
pub(super) fn local(instance: &Instance) -> Config {
    let config = instance.config();
    let mut sql = login(&config.credentials.superuser);
    sql.host_path(&config.socket_dir).port(config.port);
    sql
}

/// Settings common to every session of a login.
pub(super) fn login(login: &Login) -> Config {
    let mut sql = Config::new();
    sql.user(&login.name).dbname(DATABASE).application_name("stolon-keeper");
    if let Some(secret) = login.auth.password() {
        sql.password(secret.reveal());
    }
    sql
}

/// Connects anew, does `work`, and disconnects, all within `deadline`. Nothing is left running when this is dropped.
pub(super) async fn session<T, F, Fut>(
    sql: Config,
    deadline: Duration,
    doing: &'static str,
    work: F,
) -> Result<T, PgError>
where
    F: FnOnce(Arc<Client>) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let all = async {
        let (client, connection) = sql.connect(NoTls).await?;
        tokio::select! {
            result = work(Arc::new(client)) => result.map(Some),
            ended = connection => ended.map(|()| None),
        }
    };
    conclude(tokio::time::timeout(deadline, all).await, deadline, doing)
}

/// One outcome out of: too late, an error, the server's goodbye, a result.
pub(super) fn conclude<T>(
    outcome: Result<Result<Option<T>, Error>, tokio::time::error::Elapsed>,
    deadline: Duration,
    doing: &'static str,
) -> Result<T, PgError> {
    match outcome {
        Err(_) => Err(PgError::TimedOut { doing, after: deadline }),
        Ok(Err(error)) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) => Err(PgError::Full { doing }),
        Ok(Err(error)) => Err(PgError::Sql { doing, problem: problem(&error) }),
        Ok(Ok(None)) => Err(PgError::Sql { doing, problem: "the server closed the connection".into() }),
        Ok(Ok(Some(result))) => Ok(result),
    }
}

/// The rows of a statement, all values as text.
pub(super) async fn rows(client: &Client, statement: &str) -> Result<Vec<SimpleQueryRow>, Error> {
    let messages = client.simple_query(statement).await?;
    Ok(messages.into_iter().filter_map(row).collect())
}

fn row(message: SimpleQueryMessage) -> Option<SimpleQueryRow> {
    match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }
}

/// A text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// One line: the server's own words, or the reason at the bottom of the chain.
pub(super) fn problem(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{}: {}", db.severity(), db.message());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    text
}
