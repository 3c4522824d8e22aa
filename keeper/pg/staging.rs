//! New data is made beside the old and takes its place by a rename when it is complete; the old is kept until the new
//! has run (R11). A directory `postgres.new` is always unfinished, one `postgres.old-<n>` is never looked at again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Instance, PgError, PmStatus, Postmaster, files};

/// Old data that nobody needs any more: a complete copy has taken its place and runs.
#[derive(Debug)]
pub struct Expendable {
    instance: Instance,
    folders: Vec<PathBuf>,
}

impl Expendable {
    /// What a running, ready server has made expendable; `None` when there is nothing, or the server isn't ready.
    pub fn of(postmaster: &Postmaster) -> Option<Expendable> {
        let instance = postmaster.instance().clone();
        let folders = old_folders(&instance);
        let ready = postmaster.status() == Some(PmStatus::Ready) && !postmaster.has_exited();
        (ready && !folders.is_empty()).then_some(Expendable { instance, folders })
    }

    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Removes them; blocks a thread of its own, not the caller's.
    pub async fn remove(self) -> Result<(), PgError> {
        blocking(move || {
            self.instance.as_owner(|| {
                self.folders
                    .iter()
                    .try_for_each(|folder| files::remove_folder(folder).map_err(PgError::io("remove", folder)))
            })
        })
        .await
    }
}

/// The place for new data, emptied of what an earlier try left there.
pub(super) async fn begin(instance: &Instance) -> Result<PathBuf, PgError> {
    let (instance, place) = (instance.clone(), instance.keeper_dir().join("postgres.new"));
    blocking(move || {
        instance.as_owner(|| files::remove_folder(&place).map_err(PgError::io("remove", &place)))?;
        Ok(place)
    })
    .await
}

/// Puts complete new data in its place. At no moment, not even by a power cut, is the only copy of anything gone: the new
/// data first gets the name under which the old will be kept, then the two names are exchanged in one step.
pub(super) async fn complete(instance: &Instance, new: PathBuf) -> Result<(), PgError> {
    let instance = instance.clone();
    blocking(move || {
        let (data, marker) = (instance.data_dir(), instance.rewind_marker());
        let kept = unused_name(&instance);
        instance.as_owner(|| {
            swap(&new, &data, &kept).map_err(PgError::io("put the new copy in place of", &data))?;
            // It spoke of the data that is out of the way now.
            files::remove(&marker).map_err(PgError::io("remove", &marker))?;
            files::sync_parent(&data).map_err(PgError::io("sync the folder of", &data))
        })
    })
    .await
}

fn swap(new: &Path, data: &Path, kept: &Path) -> io::Result<()> {
    if fs::symlink_metadata(data).is_err() {
        fs::rename(new, data)?;
        return files::sync_parent(data);
    }
    fs::rename(new, kept)?;
    match renameat_with(CWD, kept, CWD, data, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // A file system without the exchange: two steps, with the old data under its kept name in between.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            fs::rename(kept, new)?;
            fs::rename(data, kept)?;
            fs::rename(new, data)?;
        }
        Err(error) => return Err(error.into()),
    }
    files::sync_parent(data)
}

fn old_folders(instance: &Instance) -> Vec<PathBuf> {
    let entries = fs::read_dir(instance.keeper_dir()).into_iter().flatten().flatten();
    let is_old = |name: &str| name.strip_prefix("postgres.old-").is_some_and(|n| n.parse::<u64>().is_ok());
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_old)).map(|entry| entry.path()).collect()
}

fn unused_name(instance: &Instance) -> PathBuf {
    let number = |path: &PathBuf| path.to_string_lossy().rsplit_once('-').and_then(|(_, n)| n.parse::<u64>().ok());
    let last = old_folders(instance).iter().filter_map(number).max().unwrap_or(0);
    instance.keeper_dir().join(format!("postgres.old-{}", last + 1))
}

/// File work that may take long, on a thread that identity can be taken on.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PgError> + Send + 'static,
) -> Result<T, PgError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(PgError::Refused(format!("task failed: {error}"))))
}

/// Refuses to touch data that a server runs on.
pub(super) fn refuse_running(instance: &Instance) -> Result<(), PgError> {
    match Postmaster::adopt(instance)? {
        None => Ok(()),
        Some(running) => {
            let (data, pid) = (instance.data_dir(), running.id().pid);
            Err(PgError::Refused(format!("{}: postgres runs (pid {pid}); it must be stopped first", data.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_swap_the_new_data_is_in_place_and_the_old_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["new", "data"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("who"), name).unwrap();
        }
        swap(&at("new"), &at("data"), &at("kept")).unwrap();
        assert_eq!(fs::read(at("data").join("who")).unwrap(), b"new");
        assert_eq!(fs::read(at("kept").join("who")).unwrap(), b"data");
        assert!(!at("new").exists());
    }
}
