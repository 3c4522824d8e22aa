//! The primary of now, and its PostgreSQL's processes.

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use rustix::process::Pid;

use crate::playground::{plan::Plan, proc, ready};

pub struct Victim {
    pub keeper: String,
    /// PostgreSQL's port.
    pub port: u16,
    pub epoch: u64,
    folder: PathBuf,
    postmaster: Pid,
}

impl Victim {
    /// As the key in etcd names it, with the process that its data directory names.
    pub async fn find(plan: &Plan) -> anyhow::Result<Victim> {
        let mirror = ready::store(plan)?.read().await.map_err(|error| anyhow!("{error}"))?;
        let ready = &mirror.ready.as_ref().context("no primary serves")?.value;
        let folder = plan.keeper_folder(ready.keeper.as_str()).join("postgres");
        let file = folder.join("postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).unwrap_or(0);
        if !proc::is_postgres(pid) || !proc::works_in(pid, &folder) {
            bail!("{} names process {pid}, which is no PostgreSQL of this folder", file.display());
        }
        let postmaster = Pid::from_raw(pid).context("process 0")?;
        Ok(Victim { keeper: ready.keeper.to_string(), port: ready.port, epoch: ready.epoch.0, folder, postmaster })
    }

    /// The postmaster first, then what works for it: as when a host dies or its memory ran out. (Of the postmaster alone,
    /// a session would finish, and acknowledge, what nobody is left to send to a standby.)
    pub fn processes(&self) -> Vec<Pid> {
        let rest = proc::postgres_within(&self.folder).into_iter().filter(|pid| *pid != self.postmaster);
        std::iter::once(self.postmaster).chain(rest).collect()
    }
}
