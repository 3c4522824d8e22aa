//! Bringing diverged data back onto another server's history, by pg_rewind.

use std::time::Duration;

use super::{DataState, Instance, PgError, Server, conf::set_signal, conninfo, files, program::Program, staging};

/// The source may have much to write.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(120);

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
    /// copied anew. Afterwards the data would start as a standby. Refused while a server runs here.
    pub async fn rewind(&self, server: &Server) -> Result<Rewound, PgError> {
        staging::refuse_running(self)?;
        let data = self.data_dir();
        match self.data_state() {
            DataState::Primary | DataState::Standby => {}
            DataState::Incomplete => {
                return Err(PgError::Refused(format!(
                    "{}: an earlier rewind was not finished; copy it anew",
                    data.display()
                )));
            }
            DataState::Absent => return Err(PgError::Refused(format!("{}: no data to rewind", data.display()))),
        }
        let source = self.ask(server).await?;
        let control = self.control().await?;
        if control.system_id != source.system_id {
            let (mine, other) = (control.system_id, source.system_id);
            return Err(PgError::Refused(format!(
                "{}: system id {mine}, upstream's {other}: another database",
                data.display()
            )));
        }
        if !control.can_be_rewound() {
            return Err(PgError::Refused(format!("{}: has neither wal_log_hints nor checksums", data.display())));
        }
        if source.checkpoint_timeline < source.position.timeline {
            self.checkpoint_of(server, CHECKPOINT_DEADLINE).await?;
        }
        if !control.state.is_clean() {
            self.recover().await?;
        }
        self.run_rewind(server).await
    }

    /// Crash recovery by a server for one user, which ends with a shutdown checkpoint.
    async fn recover(&self) -> Result<(), PgError> {
        let data = self.data_dir();
        let signal = data.join("standby.signal");
        // Such a server refuses to be a standby. Once recovered this way the data must not start by itself: a crash right
        // here leaves what looks like a primary, which only the keeper's authority could start, and it has none now.
        let was_standby = self.as_owner(|| set_signal(&signal, false))?;
        let program = Program::new(self, "postgres").args(["--single", "-D"]).arg(&data).arg("template1");
        let recovered = program.run().await;
        if was_standby {
            self.as_owner(|| set_signal(&signal, true))?;
        }
        recovered.map(drop)
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
