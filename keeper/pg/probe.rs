//! R13's probe: whether the server really serves, seen by a new connection that writes (on a primary) or reads (on a
//! standby). A hung disk or a stopped postmaster must not look alive.

use std::time::Duration;

use stolon::model::Lsn;

use super::{Instance, PgError, sql};

impl Instance {
    /// Connects anew and writes or reads once, within `deadline`. On a primary returns the WAL position just after what it
    /// wrote, flushed locally (R18: a list of synchronous names counts when each has flushed beyond it); `None` on a standby.
    pub async fn probe(&self, deadline: Duration) -> Result<Option<Lsn>, PgError> {
        // CASE, so that a promotion in between can't send a write to a server in recovery. `transactional` false needs no
        // transaction id; flushing is asked for by a transactional one: the commit.
        const PROBE: &str = "SET synchronous_commit = local; \
            SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_logical_emit_message(true, 'stolon', '') END AS lsn";
        sql::session(sql::local(self), deadline, "probe", async |client| {
            let rows = sql::rows(&client, PROBE).await?;
            Ok(rows.first().and_then(|row| row.get("lsn")?.parse().ok()))
        })
        .await
    }
}
