//! Bringing diverged data back onto another server's history, by pg_rewind.

use std::time::Duration;

use stolon::model::WalPosition;

use super::{
    Control, DataState, Instance, PgError, Postmaster, Server, ServerState, conf::set_signal, conninfo, files, history,
    program::Program, staging,
};

/// The source may have much to write.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(120);
/// Replaying all since the last checkpoint, and writing what that has changed.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(3600);

/// How a rewind ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewound {
    /// Blocks were copied.
    Changed,
    /// The data already lies on the source's history.
    NotNeeded,
}

impl Instance {
    /// Rewinds the local data to `server`, a primary: crash recovery first if the last run did not end in good order, and
    /// a CHECKPOINT on the source if its control file is of an older timeline. From the first change until the end a marker
    /// stands, under which the data is never started: after an error or a drop look at `data_state()`; `Incomplete` must be
    /// copied anew. Afterwards the data would start as a standby. Refused while a server runs here. Data on the source's
    /// own timeline is left alone (pg_rewind is blind to two promotions with one number, R11: the caller knows by itself).
    pub async fn rewind(&self, server: &Server) -> Result<Rewound, PgError> {
        staging::refuse_running(self)?;
        let source = self.ask(server).await?;
        let control = self.rewindable(&source).await?;
        let timeline = source.position.timeline;
        if control.known_position().timeline == timeline {
            return self.would_follow();
        }
        if !control.state.is_clean() {
            let end = self.recover().await?;
            if end.timeline == timeline || history::follows(end, timeline, &source.lineage) {
                return self.would_follow();
            }
        }
        if source.checkpoint_timeline < timeline {
            self.checkpoint_of(server, CHECKPOINT_DEADLINE).await?;
        }
        self.run_rewind(server).await
    }

    async fn rewindable(&self, source: &ServerState) -> Result<Control, PgError> {
        let data = self.data_dir();
        let refused = |why: String| Err(PgError::Refused(format!("{}: {why}", data.display())));
        match self.data_state() {
            DataState::Primary | DataState::Standby => {}
            DataState::Incomplete => return refused("an earlier rewind was not finished; copy it anew".into()),
            DataState::Absent => return refused("no data to rewind".into()),
        }
        let control = self.control().await?;
        if control.system_id != source.system_id {
            let (mine, other) = (control.system_id, source.system_id);
            return refused(format!("system id {mine}, upstream's {other}: another database"));
        }
        if !control.can_be_rewound() {
            return refused("has neither wal_log_hints nor checksums".into());
        }
        Ok(control)
    }

    fn would_follow(&self) -> Result<Rewound, PgError> {
        self.as_owner(|| set_signal(&self.data_dir().join("standby.signal"), true))?;
        Ok(Rewound::NotNeeded)
    }

    /// Crash recovery by a standby that follows nobody, to the end of its WAL, and a stop in good order; gives that end.
    /// A server for one user, which pg_rewind would use, writes a checkpoint into the old timeline: data that only lagged
    /// behind would then be off the source's history without lying past the switch, and pg_rewind would not see it.
    async fn recover(&self) -> Result<WalPosition, PgError> {
        self.would_follow()?;
        let server = Alone(Postmaster::spawn_with(self, &["primary_conninfo=", "listen_addresses="])?);
        let end = server.0.recruit(RECOVERY_DEADLINE).await?;
        if server.0.fast_stop(RECOVERY_DEADLINE).await {
            return Ok(end);
        }
        Err(PgError::TimedOut { doing: "stop after the crash recovery", after: RECOVERY_DEADLINE })
    }

    async fn run_rewind(&self, server: &Server) -> Result<Rewound, PgError> {
        conninfo::write_passfile(self)?;
        let (data, marker) = (self.data_dir(), self.rewind_marker());
        let login = &self.credentials().superuser;
        let more = [("dbname", "postgres"), ("options", "-c synchronous_commit=off")];
        let source = conninfo::to_server(self, &server.host, server.port, login, &more);
        self.as_owner(|| {
            let (link, mark) = (data.join("postgresql.auto.conf"), PgError::io("write", &marker));
            files::write(&marker, b"pg_rewind has not finished: this data must be copied anew\n").map_err(mark)?;
            // A link here and a file there would make pg_rewind refuse.
            files::remove(&link).map(drop).map_err(PgError::io("remove", &link))
        })?;
        let program = Program::new(self, "pg_rewind").arg("-D").arg(&data).arg("--source-server").arg(source);
        // What it says is on its standard error and in the server's words; that nothing was to do, only the data tells.
        let before = self.control().await?;
        program.arg("--no-ensure-shutdown").run().await?;
        let after = self.control().await?;
        let signal = data.join("standby.signal");
        self.as_owner(|| {
            set_signal(&signal, true)?;
            files::remove(&marker).map_err(PgError::io("remove", &marker))?;
            files::sync_parent(&marker).map_err(PgError::io("sync the folder of", &marker))
        })?;
        Ok(if before == after { Rewound::NotNeeded } else { Rewound::Changed })
    }
}

/// A server for the time of an operation; when that is dropped, it goes.
struct Alone(Postmaster);

impl Drop for Alone {
    fn drop(&mut self) {
        if !self.0.has_exited() {
            self.0.kill_now();
        }
    }
}
