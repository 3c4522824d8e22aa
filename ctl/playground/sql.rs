//! A connection to the cluster, through the proxy, as any client makes one.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::plan::Plan;

/// For one statement: longer than any failover, so that a client that is not cut is seen to hang.
const STATEMENT: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);

pub struct Session {
    client: Client,
    /// Carries the connection; ends with this session.
    _connection: JoinSet<()>,
}

impl Session {
    pub async fn connect(plan: &Plan) -> anyhow::Result<Session> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(plan.port).user(&plan.user).dbname("postgres").connect_timeout(CONNECT);
        let connected = timeout(CONNECT, config.connect(NoTls)).await.map_err(|_| anyhow!("no connection in time"))?;
        let (client, connection) = connected?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // What it ends of, the next statement tells.
            let _ = connection.await;
        });
        Ok(Session { client, _connection: task })
    }

    /// Runs a statement; the first column of each row.
    pub async fn column(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        let answer = timeout(STATEMENT, self.client.simple_query(sql)).await;
        let messages = answer.map_err(|_| anyhow!("no answer within {} s", STATEMENT.as_secs()))??;
        let first = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(messages.iter().filter_map(first).collect())
    }

    /// The first column of the first row.
    pub async fn value(&self, sql: &str) -> anyhow::Result<String> {
        self.column(sql).await?.into_iter().next().with_context(|| format!("no row: {sql}"))
    }
}

/// The same on a connection of its own.
pub async fn value(plan: &Plan, sql: &str) -> anyhow::Result<String> {
    Session::connect(plan).await?.value(sql).await
}
