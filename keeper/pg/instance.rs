//! Where one PostgreSQL instance lives and how it is reached: the values that every operation shares.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use stolon::model::{Lsn, WalPosition};

use super::{
    Binaries, Credentials, PgError, RunAs, check_exposure,
    control::{self, Control},
    files, history,
    runas::as_user,
};

/// What an instance is made of.
#[derive(Clone, Debug)]
pub struct InstanceConfig {
    /// The keeper's data directory: it holds `postgres`, `pgpass`, and copies in the making. It exists, and belongs to
    /// the user that runs PostgreSQL (`RunAs::prepare`).
    pub keeper_dir: PathBuf,
    pub binaries: Binaries,
    pub run_as: Option<RunAs>,
    pub credentials: Credentials,
    /// PostgreSQL's `listen_addresses`.
    pub listen_address: String,
    pub port: u16,
    /// Folder of the unix socket; `/tmp`, as stolon has it.
    pub socket_dir: PathBuf,
}

/// A cheap handle.
#[derive(Clone, Debug)]
pub struct Instance(Arc<InstanceConfig>);

/// What the directory `postgres` holds, by its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    Absent,
    /// A rewind was begun and not finished: it must be copied anew, and is never started.
    Incomplete,
    /// Without `standby.signal`: would start as a primary.
    Primary,
    Standby,
}

impl Instance {
    /// Refuses what must never run: an exposed server without passwords, broken credentials. One line for people.
    pub fn new(mut config: InstanceConfig) -> Result<Instance, String> {
        config.credentials.check()?;
        check_exposure(&config.listen_address, &config.credentials)?;
        let shown = config.keeper_dir.display();
        config.keeper_dir =
            config.keeper_dir.canonicalize().map_err(|error| format!("data directory {shown}: {error}"))?;
        Ok(Instance(Arc::new(config)))
    }

    pub fn config(&self) -> &InstanceConfig {
        &self.0
    }

    pub fn keeper_dir(&self) -> &Path {
        &self.0.keeper_dir
    }

    /// PostgreSQL's own data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.0.keeper_dir.join("postgres")
    }

    pub fn binaries(&self) -> &Binaries {
        &self.0.binaries
    }

    pub fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    pub fn run_as(&self) -> Option<&RunAs> {
        self.0.run_as.as_ref()
    }

    /// The unix socket that the server listens on.
    pub fn socket(&self) -> PathBuf {
        self.0.socket_dir.join(format!(".s.PGSQL.{}", self.0.port))
    }

    pub(super) fn socket_lock(&self) -> PathBuf {
        self.0.socket_dir.join(format!(".s.PGSQL.{}.lock", self.0.port))
    }

    /// The password file that libpq reads, so that no password is in an argument or in `primary_conninfo`.
    pub fn passfile(&self) -> PathBuf {
        self.0.keeper_dir.join("pgpass")
    }

    /// Stands while a rewind is incomplete.
    pub(super) fn rewind_marker(&self) -> PathBuf {
        self.0.keeper_dir.join("postgres.rewinding")
    }

    /// Whether there is a complete database, whatever its role.
    pub fn is_initialized(&self) -> bool {
        matches!(self.data_state(), DataState::Primary | DataState::Standby)
    }

    pub fn is_standby(&self) -> bool {
        self.data_state() == DataState::Standby
    }

    pub fn data_state(&self) -> DataState {
        let data = self.data_dir();
        if !data.join("PG_VERSION").exists() || !data.join("global/pg_control").exists() {
            DataState::Absent
        } else if self.rewind_marker().exists() {
            DataState::Incomplete
        } else if data.join("standby.signal").exists() {
            DataState::Standby
        } else {
            DataState::Primary
        }
    }

    /// Reads `pg_control` by pg_controldata (a few ms). Also right for a running server, as of its last checkpoint.
    /// What a successor has at least, when it lacks nothing of a primary that was shut down in good order: just beyond the
    /// start of its last record. `None` when it was not shut down so. Reads one file.
    pub fn shut_down_at(&self) -> Option<WalPosition> {
        let last = self.as_owner(|| Ok(control::shut_down_at(&self.data_dir()))).ok().flatten()?;
        Some(WalPosition { lsn: Lsn(last.lsn.0 + 1), ..last })
    }

    pub async fn control(&self) -> Result<Control, PgError> {
        control::read(self, &self.data_dir()).await
    }

    /// True when `pg_control` says "in production": a primary that runs, or whose last run was not ended in good order. One
    /// small read, no program.
    pub fn in_production(&self) -> bool {
        control::in_production(&self.data_dir())
    }

    /// The switches that led to `timeline`, from the local history file, oldest first; empty for timeline 1.
    pub fn lineage(&self, timeline: u32) -> Result<Vec<history::Switch>, PgError> {
        history::read(&self.data_dir(), timeline)
    }

    /// Runs file operations as the user that owns the data directory.
    pub(super) fn as_owner<T: Send>(&self, work: impl FnOnce() -> Result<T, PgError> + Send) -> Result<T, PgError> {
        as_user(self.run_as(), work).map_err(PgError::system("act as the OS user of PostgreSQL"))?
    }

    /// Writes a whole file (0600) that belongs to the user that runs PostgreSQL. Returns true when it was changed.
    pub(super) fn write_owned(&self, path: &Path, contents: &[u8]) -> Result<bool, PgError> {
        self.as_owner(|| files::write(path, contents).map_err(PgError::io("write", path)))
    }
}
