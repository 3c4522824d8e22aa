//! Statements that converge a running server: slots, checkpoints, and what it says of its own settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Instance, PgError, conf::is_managed, sql};

const DEADLINE: Duration = Duration::from_secs(10);
/// A checkpoint writes all that is dirty.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(600);

impl Instance {
    /// Makes a physical slot for each wanted name (`DbUid::slot`, and additional ones as `stolon_<name>`), and drops every
    /// other one that starts with `stolon_`. One still in use is dropped at a later call. On a primary or a standby.
    pub async fn refresh_slots(&self, wanted: &BTreeSet<String>) -> Result<(), PgError> {
        sql::session(sql::local(self), DEADLINE, "refresh the replication slots", async |client| {
            let present = "SELECT slot_name, active FROM pg_replication_slots WHERE slot_type = 'physical'";
            let mut missing = wanted.clone();
            for row in sql::rows(&client, present).await? {
                let (Some(name), Some(active)) = (row.get("slot_name"), row.get("active")) else { continue };
                let kept = missing.remove(name) || !name.starts_with("stolon_");
                if !kept && active == "f" {
                    let drop = format!("SELECT pg_drop_replication_slot({})", sql::literal(name));
                    // Taken into use meanwhile: next time.
                    let _ = client.simple_query(&drop).await;
                }
            }
            for name in missing {
                // Reserved at once, so that WAL is kept from now on and not from the follower's first visit.
                let create = format!("SELECT pg_create_physical_replication_slot({}, true)", sql::literal(&name));
                client.simple_query(&create).await?;
            }
            Ok(())
        })
        .await
    }

    /// Writes a checkpoint now. On a standby: a restartpoint.
    pub async fn checkpoint(&self) -> Result<(), PgError> {
        sql::session(sql::local(self), CHECKPOINT_DEADLINE, "checkpoint", async |client| {
            client.simple_query("CHECKPOINT").await.map(drop)
        })
        .await
    }

    /// The settings that the running server has from its files, without what is managed (`mergePgParameters`).
    pub async fn parameters(&self) -> Result<BTreeMap<String, String>, PgError> {
        const STATEMENT: &str = "SELECT name, setting FROM pg_file_settings WHERE applied AND setting IS NOT NULL";
        let mut all = self.pairs("read the settings", STATEMENT).await?;
        all.retain(|name, _| !is_managed(name));
        Ok(all)
    }

    /// Names of the settings that wait for a restart.
    pub async fn pending_restart(&self) -> Result<BTreeSet<String>, PgError> {
        const STATEMENT: &str = "SELECT name, '' AS setting FROM pg_settings WHERE pending_restart";
        Ok(self.pairs("read the settings", STATEMENT).await?.into_keys().collect())
    }

    async fn pairs(&self, doing: &'static str, statement: &str) -> Result<BTreeMap<String, String>, PgError> {
        sql::session(sql::local(self), DEADLINE, doing, async |client| {
            let rows = sql::rows(&client, statement).await?;
            let pair = |row: &tokio_postgres::SimpleQueryRow| Some((row.get(0)?.to_owned(), row.get(1)?.to_owned()));
            Ok(rows.iter().filter_map(pair).collect())
        })
        .await
    }
}
