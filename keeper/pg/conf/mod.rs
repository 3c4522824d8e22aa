//! The instance's settings as files: postgresql.conf, pg_hba.conf, standby.signal. Written whole or not at all, and only
//! when something changes; telling the server is the caller's part.

mod exposure;
mod hba;
mod parameters;

use std::{collections::BTreeMap, fs, io, path::Path};

use stolon::model::{DbUid, view::Settings};

pub use exposure::check_exposure;
pub(super) use parameters::{initial, is_managed, numbers};

use super::{Instance, PgError, conninfo, files};

/// Everything that shapes the files, besides the instance itself.
#[derive(Clone, Debug)]
pub struct ConfInput<'a> {
    /// The own db: its slot name is the `application_name` towards the upstream.
    pub db: &'a DbUid,
    pub settings: &'a Settings,
    pub role: ConfRole,
    /// The text of `synchronous_standby_names`; empty for asynchronous. A synchronous standby has the blocking name (R21).
    pub synchronous_standby_names: String,
    pub admit: Admit,
}

/// Whether the server starts as a standby, and whom it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfRole {
    Primary,
    Standby {
        /// `None`: nobody (a recruit, R8, or an upstream without an address yet).
        upstream: Option<(String, u16)>,
    },
}

/// Whom pg_hba.conf admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    Everybody,
    /// Only the superuser and the replication user (R20).
    InternalOnly,
}

/// What `write_conf` changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// Names of the parameters whose text changed, came or went.
    pub parameters: Vec<String>,
    pub hba: bool,
    /// standby.signal came or went: counts at the next start.
    pub role: bool,
}

impl ConfChange {
    /// A running server must be told (`Postmaster::reload`).
    pub fn needs_reload(&self) -> bool {
        !self.parameters.is_empty() || self.hba
    }

    /// Of the managed parameters, those that count only from the next start. Of the user's, the server itself knows:
    /// `Instance::pending_restart` after the reload.
    pub fn restart_candidates(&self) -> Vec<&str> {
        self.parameters.iter().map(String::as_str).filter(|name| parameters::counts_from_start(name)).collect()
    }
}

impl Instance {
    /// Writes the files, and the password file. Equal contents are left alone.
    pub fn write_conf(&self, input: &ConfInput<'_>) -> Result<ConfChange, PgError> {
        if !self.is_initialized() {
            return Err(PgError::Refused(format!("{}: no complete database to configure", self.data_dir().display())));
        }
        conninfo::write_passfile(self)?;
        let wanted = parameters::all(self, input);
        let hba = hba::render(self.credentials(), &input.settings.access, input.settings.hba.as_deref(), input.admit);
        let data = self.data_dir();
        self.as_owner(|| {
            let at = |name: &str| data.join(name);
            let before = parameters::read_file(&at("postgresql.conf")).unwrap_or_default();
            let text = parameters::render(&wanted);
            write(&at("postgresql.conf"), text.as_bytes())?;
            let hba = write(&at("pg_hba.conf"), hba.as_bytes())?;
            discard_alter_system(&at("postgresql.auto.conf"))?;
            let role = set_signal(&at("standby.signal"), matches!(input.role, ConfRole::Standby { .. }))?;
            files::remove(&at("recovery.signal")).map_err(PgError::io("remove", &at("recovery.signal")))?;
            Ok(ConfChange { parameters: differing(&before, &wanted), hba, role })
        })
    }

    /// The access that was written last is that of a restarted primary (R20).
    pub fn admits_internal_only(&self) -> bool {
        fs::read_to_string(self.data_dir().join("pg_hba.conf")).is_ok_and(|text| text.starts_with(hba::INTERNAL_ONLY))
    }

    /// The settings of a database that was given as it is (`existing`): its postgresql.conf, without what is managed.
    pub fn file_parameters(&self) -> Result<BTreeMap<String, String>, PgError> {
        initial(&self.data_dir())
    }
}

fn write(path: &Path, contents: &[u8]) -> Result<bool, PgError> {
    files::write(path, contents).map_err(PgError::io("write", path))
}

fn differing(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// ALTER SYSTEM fails: one node's setting would be lost, or would surprise, at the next change of primary.
fn discard_alter_system(path: &Path) -> Result<(), PgError> {
    if fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null")) {
        return Ok(());
    }
    files::remove(path).map_err(PgError::io("remove", path))?;
    std::os::unix::fs::symlink("/dev/null", path).map_err(PgError::io("link", path))
}

/// Makes or removes an empty file, for good. Returns true when something changed.
pub(super) fn set_signal(path: &Path, wanted: bool) -> Result<bool, PgError> {
    let changed = if wanted {
        files::write(path, b"").map_err(PgError::io("write", path))?
    } else {
        files::remove(path).map_err(PgError::io("remove", path))?
    };
    let sync = || -> io::Result<()> { if changed { files::sync_parent(path) } else { Ok(()) } };
    sync().map_err(PgError::io("sync the folder of", path))?;
    Ok(changed)
}
