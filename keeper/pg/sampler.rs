//! A steady look at the running server: position, role, who follows it. One connection of its own, so that a hung server
//! makes the samples old and nothing else slow.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use stolon::{
    model::{Lsn, Moment, WalPosition},
    task::{Shutdown, clock},
};
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_postgres::Client;

use super::{Instance, PgError, replication, sql};

/// A sample that takes longer is given up, and the connection with it.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the server said at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked, on the local clock.
    pub at: Moment,
    pub system_id: u64,
    pub in_recovery: bool,
    /// Flushed (primary), or received or replayed, whichever is further (standby).
    pub position: WalPosition,
    /// Grows with each sample whose position has moved; for the life of the sampler.
    pub advances: u64,
    /// A standby's walreceiver is connected and streaming.
    pub streaming: bool,
    /// `synchronous_standby_names` in force.
    pub synchronous_standby_names: String,
    /// Those that stream from this server, by application name.
    pub followers: BTreeMap<String, Follower>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// `pg_stat_replication` says sync or quorum (R18: that alone proves nothing yet).
    pub in_sync: bool,
    pub flushed: Lsn,
}

/// See the module. A cheap handle; `run` is the task.
#[derive(Clone, Debug)]
pub struct Sampler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Instance,
    every: Duration,
    sample: watch::Sender<Option<Sample>>,
    /// Last position and `advances`: they outlive `forget`.
    progress: Mutex<(WalPosition, u64)>,
    wanted: Notify,
}

impl Sampler {
    pub fn new(instance: Instance, every: Duration) -> Sampler {
        let (sample, wanted) = (watch::Sender::new(None), Notify::new());
        Sampler(Arc::new(Inner { instance, every, sample, progress: Mutex::default(), wanted }))
    }

    /// The last sample, however old (`Sample::at`); `None` before the first, and since the last `forget`.
    pub fn watch(&self) -> watch::Receiver<Option<Sample>> {
        self.0.sample.subscribe()
    }

    /// Asks for a sample now, and not at the next turn.
    pub fn hurry(&self) {
        self.0.wanted.notify_one();
    }

    /// Drops the last sample: it is of a server that is no more.
    pub fn forget(&self) {
        self.0.sample.send_replace(None);
    }

    /// Samples until the shutdown; connects, and connects again, by itself.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), String> {
        let mut said = String::new();
        loop {
            let ended = tokio::select! {
                () = shutdown.requested() => return Ok(()),
                ended = replication::local_session(&self.0.instance, "sample", async |client| self.watch_server(&client).await) => ended,
            };
            // A server that is down is nobody's news here; a refusal is, once.
            match ended {
                Err(PgError::Sql { problem, .. }) if problem != said => {
                    tracing::debug!(problem, "can't sample PostgreSQL");
                    said = problem;
                }
                _ => {}
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(self.0.every) => {}
                () = self.0.wanted.notified() => {}
            }
        }
    }

    /// Samples over one connection until it fails or hangs.
    async fn watch_server(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let mut turn = interval(self.0.every);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = turn.tick() => {}
                () = self.0.wanted.notified() => {}
            }
            match timeout(DEADLINE, sample(client)).await {
                Err(_) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(None)) => {}
                Ok(Ok(Some(sample))) => self.publish(sample),
            }
        }
    }

    fn publish(&self, mut sample: Sample) {
        let mut progress = self.0.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, advances) = *progress;
        let began = last == WalPosition::default();
        *progress = (sample.position, advances + u64::from(!began && last != sample.position));
        sample.advances = progress.1;
        self.0.sample.send_replace(Some(sample));
    }
}

async fn sample(client: &Client) -> Result<Option<Sample>, tokio_postgres::Error> {
    // One row per follower, and one if there is none. The functions beneath pg_stat_replication, without its joins: a third
    // less work for the server.
    const STATE: &str = "SELECT pg_is_in_recovery() AS recovery, current_setting('synchronous_standby_names') AS names, \
        (SELECT status = 'streaming' FROM pg_stat_get_wal_receiver()) AS streaming, \
        application_name, sync_state IN ('sync', 'quorum') AS in_sync, flush_lsn \
        FROM (VALUES (1)) one LEFT JOIN (SELECT application_name, sync_state, flush_lsn \
        FROM pg_stat_get_wal_senders() sender, pg_stat_get_activity(sender.pid) WHERE sender.state = 'streaming') f ON true";
    let at = clock::now();
    // Sent together, answered one after the other. The role comes first: a promotion in between must not give a primary on
    // the timeline of before.
    let (state, identity) = tokio::try_join!(sql::rows(client, STATE), replication::identify(client))?;
    let (Some(identity), Some(first)) = (identity, state.first()) else { return Ok(None) };
    let follower = |row: &tokio_postgres::SimpleQueryRow| {
        let flushed = row.get("flush_lsn").and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
        Some((row.get("application_name")?.to_owned(), Follower { in_sync: row.get("in_sync")? == "t", flushed }))
    };
    Ok(Some(Sample {
        at,
        system_id: identity.system_id,
        in_recovery: first.get("recovery") == Some("t"),
        position: identity.position,
        advances: 0,
        streaming: first.get("streaming") == Some("t"),
        synchronous_standby_names: first.get("names").unwrap_or_default().to_owned(),
        followers: state.iter().filter_map(follower).collect(),
    }))
}
