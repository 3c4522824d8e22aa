//! Another server: the one to follow, to copy, or to rewind to.

use std::time::Duration;

use stolon::model::WalPosition;

use super::{Instance, PgError, history, replication, sql};

const DEADLINE: Duration = Duration::from_secs(5);

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
}

/// What it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    pub system_id: u64,
    pub in_recovery: bool,
    pub position: WalPosition,
    /// The switches that led to its timeline (`history::follows`).
    pub lineage: Vec<history::Switch>,
    /// Timeline of its last checkpoint: pg_rewind reads this one, and is misled while it is old.
    pub checkpoint_timeline: u32,
}

impl Instance {
    /// Asks another server of the cluster, as superuser, within 5 s.
    pub async fn ask(&self, server: &Server) -> Result<ServerState, PgError> {
        const STATE: &str =
            "SELECT pg_is_in_recovery() AS recovery, timeline_id AS checkpoint FROM pg_control_checkpoint()";
        const DOING: &str = "ask the upstream";
        let strange =
            |what: &str| PgError::Sql { doing: DOING, problem: format!("its answer is not understood: {what}") };
        let address = (server.host.as_str(), server.port);
        let answer = replication::remote_session(self, address, DEADLINE, DOING, async |client| {
            let identity = replication::identify(&client).await?;
            let state = sql::rows(&client, STATE).await?;
            let timeline = identity.map_or(1, |identity| identity.position.timeline);
            let history = if timeline > 1 {
                sql::rows(&client, &format!("TIMELINE_HISTORY {timeline}")).await?
            } else {
                Vec::new()
            };
            Ok((identity, state, history))
        });
        let (identity, state, history) = answer.await?;
        let identity = identity.ok_or_else(|| strange("IDENTIFY_SYSTEM"))?;
        let state = state.first().ok_or_else(|| strange("no state"))?;
        let text = history.first().and_then(|row| row.get(1)).unwrap_or_default();
        Ok(ServerState {
            system_id: identity.system_id,
            in_recovery: state.get("recovery") == Some("t"),
            position: identity.position,
            lineage: history::parse(text).map_err(|problem| strange(&problem))?,
            checkpoint_timeline: state.get("checkpoint").and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }

    /// Whether a physical slot of that name exists there and nobody uses it.
    pub(super) async fn has_free_slot(&self, server: &Server, slot: &str) -> bool {
        let query = format!(
            "SELECT FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active AND slot_name = {}",
            sql::literal(slot)
        );
        let mut config = sql::login(&self.credentials().superuser);
        config.host(&server.host).port(server.port);
        let found =
            sql::session(config, DEADLINE, "look for the slot", async |client| sql::rows(&client, &query).await);
        found.await.is_ok_and(|rows| !rows.is_empty())
    }

    /// Writes a checkpoint there, so that its control file is of its present timeline.
    pub(super) async fn checkpoint_of(&self, server: &Server, deadline: Duration) -> Result<(), PgError> {
        let mut config = sql::login(&self.credentials().superuser);
        config.host(&server.host).port(server.port);
        sql::session(config, deadline, "checkpoint of the upstream", async |client| {
            client.simple_query("CHECKPOINT").await.map(drop)
        })
        .await
    }
}
