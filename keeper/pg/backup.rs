//! A copy of another server, by pg_basebackup.

use super::{Instance, PgError, Server, conf::set_signal, conninfo, program::Program, staging};

impl Instance {
    /// Copies `server` into a directory of its own, which becomes `postgres` when it is complete: old data is whole until
    /// then, and kept as `postgres.old-<n>` afterwards (`Expendable`). The copy would start as a standby. WAL is held back
    /// by the slot if it exists there. Refused while a server runs here. Follow with `write_conf`.
    pub async fn base_backup(&self, server: &Server, slot: &str) -> Result<(), PgError> {
        staging::refuse_running(self)?;
        conninfo::write_passfile(self)?;
        let new = staging::begin(self).await?;
        let login = &self.credentials().replication;
        // Its stream tells what it has flushed: under the standby's own name commits would wait for an unfinished copy.
        let name = copy_name(slot);
        let source = conninfo::to_server(self, &server.host, server.port, login, &[("application_name", &name)]);
        let mut program = Program::new(self, "pg_basebackup").arg("-D").arg(&new).arg("-d").arg(source);
        program = program.args(["-X", "stream", "-c", "fast", "--no-password"]);
        if self.has_free_slot(server, slot).await {
            program = program.arg("-S").arg(slot);
        }
        program.run().await?;
        let signal = new.join("standby.signal");
        self.as_owner(|| set_signal(&signal, true))?;
        staging::complete(self, new).await
    }
}

/// What `pg_stat_replication` shows of a copy in progress: never the name of a synchronous standby (R18).
pub(super) fn copy_name(slot: &str) -> String {
    format!("copy_of_{slot}")
}
