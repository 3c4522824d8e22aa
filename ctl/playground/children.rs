//! All children: who runs, who has ended, and who is to be started again.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::bail;
use rustix::process::Signal;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    child::{self, Handle},
    plan::{Kind, Program},
};

/// What the death of a child means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The cluster can't come up.
    Fatal,
    /// It is started again, as a machine's supervisor would.
    Restart,
}

/// A child that died is started again after this long; doubled each time it dies soon again.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A child that lived this long did not die of its start.
const STEADY: Duration = Duration::from_secs(10);

pub struct Children {
    folder: PathBuf,
    running: Vec<Running>,
    ends: JoinSet<(u32, ExitStatus)>,
    due: Vec<(Instant, Program, Duration)>,
}

struct Running {
    handle: Handle,
    since: Instant,
    /// How long its next restart waits when it dies soon.
    pause: Duration,
}

impl Children {
    pub fn new(folder: &Path) -> Children {
        Children { folder: folder.to_owned(), running: Vec::new(), ends: JoinSet::new(), due: Vec::new() }
    }

    pub fn start<'a>(&mut self, programs: impl Iterator<Item = &'a Program>) -> anyhow::Result<()> {
        programs.into_iter().try_for_each(|program| self.launch(program, PAUSE))
    }

    /// Does the work while children are watched. Ends with the work, or with a death that is fatal.
    pub async fn during<T>(
        &mut self,
        death: Death,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            outcome = work => outcome,
            fatal = self.watch(death) => Err(fatal),
        }
    }

    /// Sends a signal to all children of these kinds.
    pub fn signal(&self, kinds: &[Kind], signal: Signal) {
        let chosen = self.running.iter().filter(|running| kinds.contains(&running.handle.program.kind));
        chosen.for_each(|running| running.handle.signal(signal));
    }

    /// Waits until no child of these kinds runs.
    pub async fn gone(&mut self, kinds: &[Kind]) {
        while self.running.iter().any(|running| kinds.contains(&running.handle.program.kind)) {
            self.next_end().await;
        }
    }

    /// Names of those that run.
    pub fn names(&self) -> Vec<&str> {
        self.running.iter().map(|running| running.handle.program.name.as_str()).collect()
    }

    async fn watch(&mut self, death: Death) -> anyhow::Error {
        loop {
            let due = self.due.iter().map(|(at, ..)| *at).min();
            tokio::select! {
                Some((ended, status)) = self.next_end() => {
                    if let Err(fatal) = self.died(ended, &status, death) {
                        return fatal;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Err(error) = self.revive() {
                        return error;
                    }
                }
                else => return anyhow::anyhow!("no child is left"),
            }
        }
    }

    fn died(&mut self, ended: Running, status: &ExitStatus, death: Death) -> anyhow::Result<()> {
        let program = ended.handle.program;
        eprintln!("{}", child::obituary(&self.folder, &program.name, status));
        if death == Death::Fatal {
            bail!("{} has ended before the cluster was up ({status})", program.name);
        }
        let pause = if ended.since.elapsed() > STEADY { PAUSE } else { ended.pause };
        println!("{} will be started again in {} s", program.name, pause.as_secs());
        self.due.push((Instant::now() + pause, program, (pause * 2).min(LONGEST_PAUSE)));
        Ok(())
    }

    fn revive(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let (ready, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, ..)| *at <= now);
        self.due = later;
        let ready: Vec<(Instant, Program, Duration)> = ready;
        for (_, program, pause) in ready {
            self.launch(&program, pause)?;
            println!("{} is started again", program.name);
        }
        Ok(())
    }

    fn launch(&mut self, program: &Program, pause: Duration) -> anyhow::Result<()> {
        let (handle, mut process) = child::start(program, &self.folder)?;
        let pid = handle.pid;
        self.ends.spawn(async move { (pid, process.wait().await.unwrap_or_default()) });
        self.running.push(Running { handle, since: Instant::now(), pause });
        Ok(())
    }

    /// The next child that ends; `None` when none runs.
    async fn next_end(&mut self) -> Option<(Running, ExitStatus)> {
        while let Some(ended) = self.ends.join_next().await {
            let Ok((pid, status)) = ended else { continue };
            if let Some(at) = self.running.iter().position(|running| running.handle.pid == pid) {
                return Some((self.running.swap_remove(at), status));
            }
        }
        None
    }
}
