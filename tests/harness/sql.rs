//! Connections to PostgreSQL, through a proxy or directly, each call with a bound.

use std::{process::Command, sync::OnceLock, time::Duration};

use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

const CALL: Duration = Duration::from_secs(10);

/// Name of the OS user that runs the tests: the superuser of clusters that are given no other.
pub fn os_user() -> &'static str {
    static USER: OnceLock<String> = OnceLock::new();
    USER.get_or_init(|| {
        let out = Command::new("id").arg("-un").output().expect("id can be run");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    })
}

/// Where, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
}

impl Target {
    pub fn loopback(port: u16) -> Target {
        Target { host: "127.0.0.1".into(), port, user: os_user().into(), password: None }
    }

    pub fn at(host: &str, port: u16) -> Target {
        Target { host: host.into(), ..Target::loopback(port) }
    }

    pub fn with_user(mut self, user: &str, password: &str) -> Target {
        (self.user, self.password) = (user.into(), Some(password.into()));
        self
    }

    /// For the database `postgres`.
    pub fn config(&self, bound: Duration) -> Config {
        let mut config = Config::new();
        config.host(&self.host).port(self.port).user(&self.user).dbname("postgres").connect_timeout(bound);
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }

    /// A connection to the database `postgres`.
    pub async fn connect(&self, bound: Duration) -> Result<Client, String> {
        let config = self.config(bound);
        let attempt = async {
            let (client, connection) = config.connect(NoTls).await.map_err(chain)?;
            tokio::spawn(connection);
            Ok(client)
        };
        tokio::time::timeout(bound, attempt).await.unwrap_or_else(|_| Err("no connection in time".into()))
    }

    /// Runs statements on a connection of their own; the rows of all, each as its columns' texts.
    pub async fn query(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let client = self.connect(CALL).await?;
        rows(&client, sql, CALL).await
    }

    /// The first column of the first row.
    pub async fn value(&self, sql: &str) -> Result<String, String> {
        let rows = self.query(sql).await?;
        rows.first().and_then(|row| row.first()).cloned().ok_or_else(|| format!("no row: {sql}"))
    }
}

pub async fn rows(client: &Client, sql: &str, bound: Duration) -> Result<Vec<Vec<String>>, String> {
    let answer = tokio::time::timeout(bound, client.simple_query(sql)).await;
    let messages = answer.map_err(|_| format!("no answer in {} s: {sql}", bound.as_secs()))?.map_err(chain)?;
    Ok(texts(&messages))
}

/// The rows of an answer, each as its columns' texts.
pub fn texts(messages: &[SimpleQueryMessage]) -> Vec<Vec<String>> {
    let text = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(text(row)),
            _ => None,
        })
        .collect()
}

/// An error with its causes in one line.
pub fn chain(error: tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
