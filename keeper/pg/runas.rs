//! The OS user that PostgreSQL runs as. PostgreSQL refuses root, so a keeper that is root does everything that touches the
//! data directory as another user: on a thread that has taken that user's identity, whose children inherit it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// An OS user, with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAs {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: PathBuf,
}

impl RunAs {
    /// `None` when the keeper isn't root: PostgreSQL then runs as the keeper's own user.
    pub fn resolve(pg_os_user: Option<&str>) -> Result<Option<RunAs>, String> {
        if !rustix::process::geteuid().is_root() {
            return match pg_os_user {
                Some(name) => Err(format!("--pg-os-user {name}: only root can run PostgreSQL as another user")),
                None => Ok(None),
            };
        }
        let name = pg_os_user.unwrap_or("postgres");
        let entry = ask("getent", &["passwd", name]).map_err(|_| {
            format!("root can't run PostgreSQL, and there is no OS user {name:?}: create it, or set --pg-os-user")
        })?;
        let bad = || format!("OS user {name:?}: can't read its entry {:?}", entry.trim());
        let fields: Vec<&str> = entry.trim().split(':').collect();
        let [_, _, uid, gid, _, home, ..] = fields[..] else { return Err(bad()) };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else { return Err(bad()) };
        if uid == 0 {
            return Err(format!("OS user {name:?} is root, and PostgreSQL refuses to run as root: set --pg-os-user"));
        }
        let groups = ask("id", &["-G", name])?;
        let groups = groups.split_whitespace().filter_map(|group| group.parse().ok()).collect();
        Ok(Some(RunAs { name: name.to_owned(), uid, gid, groups, home: home.into() }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// Takes this identity on the calling thread for the rest of its life; children and files are then this user's.
    fn take(&self) -> rustix::io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }

    /// Checks that this user can come to a directory. The error is one line that names the folder that bars the way.
    pub fn check_traversable(&self, data_dir: &Path) -> Result<(), String> {
        let absolute = std::path::absolute(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
        let mut parents: Vec<PathBuf> = absolute.ancestors().skip(1).map(Path::to_owned).collect();
        parents.reverse();
        let barred = as_user(Some(self), move || {
            parents.into_iter().find(|parent| {
                let denied = std::fs::symlink_metadata(parent.join(".")).err();
                denied.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
            })
        });
        match barred.map_err(|error| format!("can't act as OS user {}: {error}", self.name))? {
            None => Ok(()),
            Some(parent) => Err(format!(
                "OS user {} (which runs PostgreSQL) can't enter {}, so not reach {}: chmod a+x that folder, or choose another --data-dir",
                self.name,
                parent.display(),
                data_dir.display()
            )),
        }
    }

    /// Makes the keeper's data directory, 0700 and this user's. One that exists must be empty or this user's already.
    pub fn prepare(&self, data_dir: &Path) -> Result<(), String> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
        let shown = data_dir.display();
        let failed = |error: std::io::Error| format!("data directory {shown}: {error}");
        if let Some(parent) = data_dir.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let owner = std::fs::metadata(data_dir).map_err(failed)?.uid();
        if owner != self.uid {
            if std::fs::read_dir(data_dir).map_err(failed)?.next().is_some() {
                return Err(format!("data directory {shown}: it is not empty, and not owned by OS user {}", self.name));
            }
            chown(data_dir, Some(self.uid), Some(self.gid)).map_err(failed)?;
        }
        self.check_traversable(data_dir)
    }
}

/// Runs `work` on a thread of its own with the user's identity (the caller's own for `None`) and waits for it.
pub(super) fn as_user<T: Send>(user: Option<&RunAs>, work: impl FnOnce() -> T + Send) -> rustix::io::Result<T> {
    let Some(user) = user else { return Ok(work()) };
    thread::scope(|scope| {
        let worker = scope.spawn(|| user.take().map(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {}: {}", arguments.join(" "), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn root_gets_the_users_identity_on_one_thread_only() {
        let Some(user) = RunAs::resolve(None).unwrap() else { return };
        let inside = as_user(Some(&user), || ask("id", &["-u"])).unwrap().unwrap();
        assert_eq!(inside.trim(), user.uid.to_string());
        assert!(rustix::process::geteuid().is_root());
    }

    #[test]
    fn the_folder_that_bars_the_way_is_named() {
        let Some(user) = RunAs::resolve(None).unwrap() else { return };
        let outer = tempfile::tempdir().unwrap();
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let error = user.check_traversable(&outer.path().join("inner/data")).unwrap_err();
        assert!(error.contains(&format!("enter {},", outer.path().display())), "{error}");
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(user.check_traversable(&outer.path().join("inner/data")), Ok(()));
    }
}
