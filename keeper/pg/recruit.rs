//! R8: a standby leaves its primary for good and replays what it has. How it is known that nothing is left to replay:
//! see `Postmaster::recruit`.

use std::time::Duration;

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stolon::model::{Lsn, WalPosition};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Error};

use super::{PgError, PmStatus, Postmaster, proc, replication, sql};

/// Between two looks. The server has no event for "replayed to the end"; a look costs it well under a millisecond.
const LOOK: Duration = Duration::from_millis(2);
const DOING: &str = "replay to the end of WAL";

/// One look at the recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    in_recovery: bool,
    startup: u32,
    /// The startup process has tried every place where WAL could be, found no more, and sleeps before it tries again.
    exhausted: bool,
    walreceiver: bool,
    replayed: Lsn,
    received: Lsn,
}

impl Postmaster {
    /// To be called after `write_conf` has emptied `primary_conninfo`; reloads the server, and returns its final position
    /// when (1) no walreceiver is there nor will be, and (2) everything on disk is replayed. Errors when `deadline` passes,
    /// the server ends, or it is no standby. A standby whose postmaster is down is first started with nobody to follow.
    ///
    /// After the reload the startup process stops the walreceiver (which flushes what it has received), looks for more
    /// WAL in pg_wal, and finding none sleeps for `wal_retrieve_retry_interval`, visible as its wait event. One such sleep
    /// proves little: it may have begun before the walreceiver's last bytes were flushed, or before the reload was seen.
    /// So once that sleep is seen without a walreceiver, the startup process is woken (SIGHUP), which makes it read its
    /// settings and go round once more; when it has slept again (its count of voluntary switches grew, and the same wait
    /// event shows, with no walreceiver and an unmoved position) it has looked at the end of WAL after everything was there.
    /// Comparing received and replayed positions would not do: what was received may end inside a record, which then is
    /// never replayed, and was never acknowledged as a whole.
    pub async fn recruit(&self, deadline: Duration) -> Result<WalPosition, PgError> {
        let work = async {
            self.reload().await?;
            self.wait_status(&[PmStatus::Ready]).await?;
            replication::local_session(self.instance(), DOING, async |client| replay_to_end(&client).await).await
        };
        let found = tokio::select! {
            found = timeout(deadline, work) => found.map_err(|_| PgError::TimedOut { doing: DOING, after: deadline })??,
            _ = self.exited() => return Err(PgError::Exited("it replayed its WAL".to_owned())),
        };
        found.ok_or_else(|| PgError::Sql { doing: DOING, problem: "the server is not in recovery".into() })
    }
}

async fn replay_to_end(client: &Client) -> Result<Option<WalPosition>, Error> {
    loop {
        let Some(first) = exhausted(client).await? else { return Ok(None) };
        let Some(before) = proc::sleeps(first.startup) else { continue };
        wake(first.startup);
        while proc::sleeps(first.startup).is_some_and(|now| now == before) {
            sleep(LOOK).await;
        }
        let Some(second) = exhausted(client).await? else { return Ok(None) };
        if second != first {
            continue;
        }
        let Some(identity) = replication::identify(client).await? else { return Ok(None) };
        let position = WalPosition { lsn: second.replayed, ..identity.position };
        return Ok(Some(position));
    }
}

/// Looks until the recovery has nothing left to read and no walreceiver; `None` when this is no recovery.
async fn exhausted(client: &Client) -> Result<Option<Look>, Error> {
    loop {
        match look(client).await? {
            Some(look) if look.exhausted && !look.walreceiver => return Ok(Some(look)),
            Some(look) if look.in_recovery => sleep(LOOK).await,
            _ => return Ok(None),
        }
    }
}

/// Also ends a pause, whoever asked for it. (A standby that paused because its settings are too small for the primary's
/// ends by that, and is started again with larger ones.)
async fn look(client: &Client) -> Result<Option<Look>, Error> {
    const LOOK: &str = "SELECT pg_is_in_recovery() AS recovery, pg_last_wal_replay_lsn() AS replayed, \
        pg_last_wal_receive_lsn() AS received, max(pid) FILTER (WHERE backend_type = 'startup') AS pid, \
        bool_or(backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval') AS exhausted, \
        bool_or(backend_type = 'walreceiver') AS walreceiver, \
        CASE WHEN pg_is_in_recovery() AND pg_is_wal_replay_paused() THEN pg_wal_replay_resume() END \
        FROM pg_stat_get_activity(NULL)";
    let rows = sql::rows(client, LOOK).await?;
    let read = || {
        let row = rows.first()?;
        let yes = |name: &str| row.get(name) == Some("t");
        let lsn = |name: &str| row.get(name).and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
        Some(Look {
            in_recovery: yes("recovery"),
            startup: row.get("pid").and_then(|pid| pid.parse().ok()).unwrap_or(0),
            exhausted: yes("exhausted"),
            walreceiver: yes("walreceiver"),
            replayed: lsn("replayed"),
            received: lsn("received"),
        })
    };
    Ok(read())
}

fn wake(startup: u32) {
    if let Some(fd) = proc::raw(startup).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        let _ = pidfd_send_signal(fd, Signal::HUP);
    }
}
