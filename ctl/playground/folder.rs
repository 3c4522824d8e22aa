//! The playground's folder: data and logs. Locked, so that no second playground uses it; one of our own making goes at
//! a clean end.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

pub struct Folder {
    path: PathBuf,
    keep: Keep,
    _lock: File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Always,
    AfterFailure,
}

impl Folder {
    /// The given folder, made when it is missing; without one a new one below the temp folder.
    pub fn open(given: Option<&Path>) -> anyhow::Result<Folder> {
        let (path, keep) = match given {
            Some(path) => {
                fs::create_dir_all(path).with_context(|| format!("--folder {}", path.display()))?;
                let path = path.canonicalize().with_context(|| format!("--folder {}", path.display()))?;
                (path, Keep::Always)
            }
            None => (create_temporary()?, Keep::AfterFailure),
        };
        let file = path.join("lock");
        let lock = File::create(&file).with_context(|| format!("folder {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another playground uses folder {}: choose another --folder", path.display());
        }
        let folder = Folder { path, keep, _lock: lock };
        fs::create_dir_all(folder.data()).with_context(|| format!("folder {}", folder.data().display()))?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the keepers' data directories are.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Removes what nobody asked to keep, or says where it is.
    pub fn close(self, clean: bool) {
        if clean && self.keep == Keep::AfterFailure {
            if let Err(error) = fs::remove_dir_all(&self.path) {
                println!("{} could not be removed: {error}", self.path.display());
            }
        } else {
            println!("logs and data stay in {}", self.path.display());
        }
    }
}

/// Made anew and open to be passed through: PostgreSQL runs as its own user when we are root.
fn create_temporary() -> anyhow::Result<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    let candidates = [env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    let parent = candidates.iter().find(|path| path.is_dir() && (!root || passable(path)));
    let parent = parent.context("no temp folder that every user can pass through: choose one by --folder")?;
    for number in 0.. {
        let path = parent.join(format!("stolon-playground-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => {
                // Whatever the umask is.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("folder {}", path.display())),
        }
    }
    bail!("no name for a folder below {} is free", parent.display())
}

/// Everybody may go through this folder and those above it.
fn passable(path: &Path) -> bool {
    let open = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    path.ancestors().all(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_playground_at_a_time_and_stays_when_it_was_given() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let first = Folder::open(Some(&path)).unwrap();
        let error = Folder::open(Some(&path)).err().unwrap().to_string();
        assert!(error.contains("another playground") && error.contains("--folder"), "{error}");
        first.close(true);
        assert!(path.join("data").is_dir());
        assert!(Folder::open(Some(&path)).is_ok());
    }

    #[test]
    fn a_folder_of_our_own_goes_at_a_clean_end_only() {
        for clean in [true, false] {
            let folder = Folder::open(None).unwrap();
            let path = folder.path().to_owned();
            folder.close(clean);
            assert_eq!(path.exists(), !clean);
            let _ = fs::remove_dir_all(&path);
        }
    }
}
