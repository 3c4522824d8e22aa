//! What can be proven of synchronous replication from outside (R18): a commit that hangs in the wait, and the end of a
//! commit that was made under a list in force. Each over new connections: an old one may not have read the settings yet.

use std::{pin::pin, time::Duration};

use stolon::model::Lsn;
use tokio_postgres::{Client, Error};

use super::{Instance, PgError, sql};

/// Between two looks at a commit in progress: PostgreSQL tells of a wait by no event.
const LOOK: Duration = Duration::from_millis(1);

/// A commit that did not wait for standbys itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// `synchronous_standby_names` as the new connection had it.
    pub names: String,
    /// Flushed here up to this.
    pub end: Option<Lsn>,
}

impl Instance {
    /// Commits once over a new connection, without waiting for standbys. Whoever has flushed beyond its end has also got all
    /// that was acknowledged under a former list. Fails on a standby.
    pub async fn commit_once(&self, deadline: Duration) -> Result<Commit, PgError> {
        const COMMIT: &str = "SET synchronous_commit = local; SELECT current_setting('synchronous_standby_names') AS names, \
            pg_logical_emit_message(true, 'stolon', '') AS lsn";
        // Apart: a text of several statements commits at its end.
        const END: &str = "SELECT pg_current_wal_flush_lsn() AS flushed";
        sql::session(sql::local(self), deadline, "commit for the synchronous list", async |client| {
            let rows = sql::rows(&client, COMMIT).await?;
            let names = rows.first().and_then(|row| row.get("names")).unwrap_or_default().to_owned();
            let flushed = sql::rows(&client, END).await?;
            let end = flushed.first().and_then(|row| row.get("flushed")?.parse().ok());
            Ok(Commit { names, end })
        })
        .await
    }

    /// Makes a commit that has to wait, with a list in force that holds a name nobody has. True when it was seen to hang in
    /// that wait; false when it ended: backends don't wait yet (they begin when the checkpointer has read the list).
    pub async fn commits_wait(&self, deadline: Duration) -> Result<bool, PgError> {
        let doing = "look whether commits wait";
        sql::session(sql::local(self), deadline, doing, async |watcher| {
            let (committer, connection) = sql::local(self).connect(tokio_postgres::NoTls).await?;
            let hung = tokio::select! {
                hung = hangs(&committer, &watcher) => hung?,
                ended = connection => return ended.map(|()| false),
            };
            if let Some(pid) = &hung {
                // Nobody would ever release it; its client was this process.
                sql::rows(&watcher, &format!("SELECT pg_terminate_backend({pid})")).await?;
            }
            Ok(hung.is_some())
        })
        .await
    }
}

/// The backend whose commit hangs; `None` when the commit ended.
async fn hangs(committer: &Client, watcher: &Client) -> Result<Option<String>, Error> {
    const COMMIT: &str = "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'stolon', '')";
    let rows = sql::rows(committer, "SELECT pg_backend_pid() AS pid").await?;
    let Some(pid) = rows.first().and_then(|row| row.get("pid")).map(str::to_owned) else { return Ok(None) };
    let mut commit = pin!(sql::rows(committer, COMMIT));
    loop {
        tokio::select! {
            ended = &mut commit => return ended.map(|_| None),
            waits = waits(watcher, &pid) => if waits? {
                return Ok(Some(pid));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn waits(watcher: &Client, pid: &str) -> Result<bool, Error> {
    let rows = sql::rows(watcher, &format!("SELECT wait_event AS event FROM pg_stat_get_activity({pid})")).await?;
    Ok(rows.first().and_then(|row| row.get("event")) == Some("SyncRep"))
}
