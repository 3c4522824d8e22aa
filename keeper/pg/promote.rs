//! The promotion: asked for by a file and a signal, seen done in `pg_control`. No SQL, no program, no polling.

use std::{path::Path, time::Duration};

use rustix::process::Signal;
use stolon::model::Lsn;
use tokio::time::sleep;

use super::{PgError, PmStatus, Postmaster, control, files, history, pidfile::Watch};

/// The 5-second trap (protocol, section 7): a request that comes while the walreceiver ends is taken down and its file
/// removed; then the startup process sleeps for `wal_retrieve_retry_interval` before it acts. Asked again it wakes up. The
/// trap is in the first moments; later, in a long replay, asking less often will do.
const FIRST_NUDGE: Duration = Duration::from_millis(4);
const LAST_NUDGE: Duration = Duration::from_millis(64);

/// What a promotion led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promoted {
    pub timeline: u32,
    /// Where the new timeline left the old one.
    pub switch_lsn: Lsn,
}

impl Postmaster {
    /// Promotes a running standby and returns when it accepts writes; once asked for it can't be taken back, also when
    /// this is dropped. A server that is a primary already is an error. Waits without a bound of its own: a standby with
    /// WAL left to replay replays it first. To be called before `write_conf` makes it a primary (standby.signal must
    /// stand until then: a crash in between is one of a standby).
    pub async fn promote(&self) -> Result<Promoted, PgError> {
        let data = self.data_dir();
        if !self.instance().is_standby() {
            return Err(PgError::Refused(format!("{}: can't be promoted, it is no standby", data.display())));
        }
        // Asked earlier, it may be overheard.
        self.wait_status(&[PmStatus::Ready]).await?;
        let request = data.join("promote");
        let promoted = self.ask_until_promoted(&request).await;
        // The last time it was asked may have been one too many.
        self.instance().as_owner(|| files::remove(&request).map_err(PgError::io("remove", &request)))?;
        promoted?;
        let timeline = history::newest(&data).unwrap_or(1);
        let lineage = self.instance().lineage(timeline)?;
        let switch_lsn = lineage.last().map_or(Lsn(0), |switch| switch.lsn);
        Ok(Promoted { timeline, switch_lsn })
    }

    async fn ask_until_promoted(&self, request: &Path) -> Result<(), PgError> {
        let data = self.data_dir();
        let watch = Watch::on(&[&data.join("global")])?;
        let ask = || {
            self.instance().as_owner(|| std::fs::write(request, b"").map_err(PgError::io("write", request)))?;
            self.signal(Signal::USR1)
        };
        ask()?;
        let mut nudge = FIRST_NUDGE;
        // "In production" is written last, after which writes are accepted; postmaster.pid can't tell, because a server in
        // hot standby says "ready" as well.
        while !control::in_production(&data) {
            tokio::select! {
                () = watch.changed() => {}
                () = sleep(nudge) => {
                    ask()?;
                    nudge = (2 * nudge).min(LAST_NUDGE);
                }
                _ = self.exited() => return Err(PgError::Exited("it was being promoted".to_owned())),
            }
        }
        Ok(())
    }
}
