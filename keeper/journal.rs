//! What a keeper must remember over its own death, each change on disk before it is acted on (R8, R11, R25): its names
//! (`keeperstate` and `dbstate`, in stolon's format) and its promises, epochs and lease (`journal`, ours).

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stolon::model::{ClusterUid, DbUid, Epoch, Generation, KeeperUid, LeaseId, registration::Recruit};

/// Why a file of the data directory can't be used: one line with its path.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not what a keeper wrote ({source}): restore it, or give the keeper an empty data directory")]
    Garbage { path: PathBuf, source: serde_json::Error },
}

/// `keeperstate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperState {
    #[serde(rename = "UID")]
    pub uid: Option<KeeperUid>,
    #[serde(rename = "ClusterUID", default, with = "empty_text")]
    pub cluster_uid: Option<ClusterUid>,
}

/// `dbstate`: which db object the directory `postgres` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DbState {
    #[serde(rename = "UID", with = "empty_text")]
    pub uid: Option<DbUid>,
    /// Generation of that object which is fully applied.
    #[serde(rename = "Generation")]
    pub generation: Generation,
    /// A creation or copy was begun and not finished: the directory must not be started.
    #[serde(rename = "Initializing")]
    pub initializing: bool,
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// `journal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Journal {
    /// Never primary in an epoch up to this, never following a primary of one.
    pub promised: Epoch,
    /// The final position given with that promise.
    pub recruit: Option<Recruit>,
    /// The epoch in which this data was last started or promoted as primary; persisted before it is.
    pub primary_epoch: Epoch,
    /// The directory that this was written in then; in a copy of it nobody is primary (execution 21).
    pub primary_place: Option<Folder>,
    /// The promotion whose branch of history this data lies on.
    pub branch: Option<Branch>,
    /// Who wrote this: see `Writer`.
    pub writer: Option<Writer>,
}

impl Journal {
    /// The branch that this data lies on, for data that last ran as a primary on `timeline`. The epoch is on disk before a
    /// promotion, its timeline only afterwards; a promotion whose outcome isn't recorded counts as one.
    pub fn branch_of_primary(&self, timeline: u32) -> Option<Branch> {
        match self.branch {
            Some(branch) if branch.epoch >= self.primary_epoch => Some(branch),
            _ if !self.primary_epoch.is_none() => Some(Branch { epoch: self.primary_epoch, timeline }),
            known => known,
        }
    }

    /// A promotion was begun on this data, and what became of it isn't known.
    pub fn half_promoted(&self) -> bool {
        self.primary_epoch > self.branch.map_or(Epoch::NONE, |branch| branch.epoch)
    }
}

/// One promotion, as a name of the branch that it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    pub epoch: Epoch,
    pub timeline: u32,
}

/// A directory, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    pub device: u64,
    pub inode: u64,
}

/// The keeper process that wrote the journal: a successor may use its lease only in the same boot, on the same directory
/// (not a copy of it, execution 21), with the same postmaster (R1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    pub boot: String,
    pub device: u64,
    pub inode: u64,
    pub lease: LeaseId,
    pub postmaster: Option<PostmasterId>,
}

/// A process, by its id and its start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostmasterId {
    pub pid: u32,
    pub started: u64,
}

/// The keeper's files in its data directory.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn new(dir: &Path) -> Files {
        Files { dir: dir.to_owned() }
    }

    pub fn keeper_state(&self) -> Result<KeeperState, JournalError> {
        self.load("keeperstate")
    }

    pub fn db_state(&self) -> Result<DbState, JournalError> {
        self.load("dbstate")
    }

    pub fn journal(&self) -> Result<Journal, JournalError> {
        self.load("journal")
    }

    pub fn save_keeper_state(&self, state: &KeeperState) -> Result<(), JournalError> {
        self.save("keeperstate", state)
    }

    pub fn save_db_state(&self, state: &DbState) -> Result<(), JournalError> {
        self.save("dbstate", state)
    }

    pub fn save_journal(&self, journal: &Journal) -> Result<(), JournalError> {
        self.save("journal", journal)
    }

    fn load<T: Default + DeserializeOwned>(&self, name: &str) -> Result<T, JournalError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| JournalError::Garbage { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
            Err(source) => Err(JournalError::Io { path, source }),
        }
    }

    /// Replaces the file as a whole; on disk, with its name, when this returns.
    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), JournalError> {
        let path = self.dir.join(name);
        self.replace(name, value).map_err(|source| JournalError::Io { path, source })
    }

    fn replace<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let next = self.dir.join(format!("{name}.next"));
        let mut file = File::create(&next)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&next, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// stolon writes "" for none.
mod empty_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: ToString, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.as_ref().map(T::to_string).unwrap_or_default())
    }

    pub fn deserialize<'de, T: TryFrom<String>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error>
    where
        T::Error: std::fmt::Display,
    {
        match String::deserialize(from)? {
            text if text.is_empty() => Ok(None),
            text => T::try_from(text).map(Some).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_files_are_read_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"UID":"ab8aab47","Generation":4,"Initializing":false,"InitPGParameters":{"port":"15432"}}"#;
        fs::write(dir.path().join("dbstate"), text).unwrap();
        fs::write(dir.path().join("keeperstate"), r#"{"UID":"keeper0","ClusterUID":""}"#).unwrap();
        let files = Files::new(dir.path());
        let state = files.db_state().unwrap();
        assert_eq!(state.generation, Generation(4));
        files.save_db_state(&state).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("dbstate")).unwrap(), text);
        assert_eq!(files.keeper_state().unwrap().cluster_uid, None);
    }

    #[test]
    fn a_missing_file_is_a_fresh_start_and_garbage_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        assert_eq!(files.journal().unwrap(), Journal::default());
        fs::write(dir.path().join("journal"), "{").unwrap();
        assert!(files.journal().unwrap_err().to_string().contains("journal is not what a keeper wrote"));
    }

    #[test]
    fn a_promise_is_read_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal { promised: Epoch(7), ..Journal::default() };
        Files::new(dir.path()).save_journal(&journal).unwrap();
        assert_eq!(Files::new(dir.path()).journal().unwrap(), journal, "execution 7");
    }
}
