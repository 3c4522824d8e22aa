//! Where the programs are: ours beside this one, etcd in PATH.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

pub struct Programs {
    pub etcd: PathBuf,
    pub keeper: PathBuf,
    pub sentinel: PathBuf,
    pub proxy: PathBuf,
}

/// Finds all of them, or names the first that is missing and where to get it.
pub fn find() -> anyhow::Result<Programs> {
    let own = env::current_exe().context("path of this program")?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    Ok(Programs {
        etcd: in_path("etcd")?,
        keeper: beside(folder, "stolon-keeper")?,
        sentinel: beside(folder, "stolon-sentinel")?,
        proxy: beside(folder, "stolon-proxy")?,
    })
}

fn beside(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: the four programs belong in one folder (make build puts them into ./bin)",
            path.display()
        );
    }
    Ok(path)
}

fn in_path(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is not in PATH: install it (Debian and Ubuntu: apt-get install etcd-server)"))
}

/// Name of the invoking OS user: the superuser of a cluster that is given no other.
pub fn os_user() -> anyhow::Result<String> {
    let answer = std::process::Command::new("id").arg("-un").output().context("id -un")?;
    let name = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    if !answer.status.success() || name.is_empty() {
        return Err(io::Error::other("id -un gives no name of the OS user").into());
    }
    Ok(name)
}
