//! The synchronous list in PostgreSQL (R18 to R21), as `keeper/steps/synchronous.rs` and `keeper/senses.rs` tell and prove it.

use std::{rc::Rc, time::Duration};

use stolon::model::{
    cluster::BLOCKING_NAME,
    view::{Assignment, Role, Upstream},
};
use stolon_keeper::{
    state::{Phase, State},
    synchronous::{Synchronous, blocked},
};

use super::{
    Keeper,
    converge::{Done, Problem},
};
use crate::{
    postgres::{Machine, Server},
    rules::Rule,
    world::MS,
};

const PROOF: Duration = Duration::from_secs(5);
const AGAIN: u64 = 20 * MS;
const COMMIT: Duration = Duration::from_secs(5);
const SOON: u32 = 10;

impl Keeper {
    /// What commits are to wait for in this role.
    pub(super) fn wanted(&self, assignment: &Assignment, standby: bool) -> Vec<String> {
        let mut names = match (&assignment.role, standby) {
            (Role::Primary { synchronous_names, .. }, false) => synchronous_names.clone(),
            _ if assignment.synchronous && !self.world.lacks(Rule::FirstWait) => vec![BLOCKING_NAME.to_owned()],
            _ => Vec::new(),
        };
        if self.world.lacks(Rule::Block) && !standby {
            names.retain(|name| name != BLOCKING_NAME);
        }
        names
    }

    /// The list to start a primary with, and whether only internal users are admitted.
    pub(super) fn restart_list(&self) -> Result<Synchronous, Problem> {
        let names = self.wanted(&self.assignment()?, false);
        let list = if names.is_empty() { names.clone() } else { blocked(&names) };
        Ok(Synchronous::started(list, !names.is_empty() && !self.world.lacks(Rule::Admit)))
    }

    /// True when the server has to read its settings anew.
    pub(super) fn write_conf(&self, standby: bool, upstream: Option<&Upstream>) -> Result<bool, Problem> {
        let names = self.wanted(&self.assignment()?, standby);
        self.write_names(standby, upstream, &names)
    }

    pub(super) fn write_names(
        &self,
        standby: bool,
        upstream: Option<&Upstream>,
        names: &[String],
    ) -> Result<bool, Problem> {
        let assignment = self.assignment()?;
        let restricted = self.look(|state, _| state.synchronous.restricted) && !standby;
        let host = upstream.and_then(|upstream| upstream.address.as_ref()).and_then(|(host, _)| Machine::host_of(host));
        let mut news = false;
        self.machine.change_data(|data| {
            news = data.synchronous != names || data.restricted != restricted || data.upstream != host;
            (data.standby, data.upstream) = (standby, host);
            (data.synchronous, data.restricted) = (names.to_vec(), restricted);
            data.name = assignment.db.slot();
        });
        // Before the server reads it: a name that goes is confirmed no longer.
        self.note(|state, _| state.synchronous.told(names.to_vec()));
        Ok(news)
    }

    /// A list that begins goes by way of the blocking name.
    pub(super) async fn settings(&self, server: &Rc<Server>, standby: bool, upstream: Option<&Upstream>) -> Done {
        let names = self.wanted(&self.assignment()?, standby);
        let waits = self.look(|state, _| state.synchronous.waits());
        if !standby && !names.is_empty() && !waits && !self.world.lacks(Rule::Grow) {
            self.tell_server(server, standby, upstream, &blocked(&names)).await?;
            self.prove_waiting(server).await?;
        }
        self.tell_server(server, standby, upstream, &names).await
    }

    async fn tell_server(
        &self,
        server: &Rc<Server>,
        standby: bool,
        upstream: Option<&Upstream>,
        names: &[String],
    ) -> Done {
        let news = self.write_names(standby, upstream, names)?;
        let adopted = self.look(|state, _| state.applied.is_none());
        self.world.pass(2 * MS, 20 * MS).await;
        if news || adopted {
            server.reload(&self.machine);
        }
        self.change(|_, _| ());
        Ok(())
    }

    /// Execution 19: no client is sent to a promoted standby before its commits were seen to wait.
    pub(super) async fn first_commits_wait(&self) -> Done {
        let unproven = self.look(|state, _| {
            let list = &state.synchronous;
            !list.waits() && list.names().iter().any(|name| name == BLOCKING_NAME)
        });
        match self.server() {
            Some(server) if unproven => self.prove_waiting(&server).await,
            _ => Ok(()),
        }
    }

    async fn prove_waiting(&self, server: &Rc<Server>) -> Done {
        let all = async {
            loop {
                match self.machine.commits_wait(server).await {
                    Some(true) => return Ok(()),
                    Some(false) => self.world.count("proofs that commits wait that came too early"),
                    None => return Err(Problem::Failed("it ended, or is not a primary".into())),
                }
                self.world.rt.sleep(AGAIN).await;
            }
        };
        match self.world.within_time(self.host, PROOF, all).await {
            Some(proven) => proven?,
            None => return Err(Problem::NotNow("commits don't wait for the synchronous list yet")),
        }
        self.world.count("proofs that commits wait");
        self.change(|state, _| state.synchronous.seen_waiting());
        Ok(())
    }

    /// R20: the standbys have caught up, everybody may come in.
    pub(super) async fn admit(&self) -> Done {
        let server = self.server().ok_or(Problem::NotNow("PostgreSQL does not run"))?;
        self.note(|state, _| state.synchronous.restricted = false);
        if self.write_conf(false, None)? {
            self.world.pass(MS, 10 * MS).await;
            server.reload(&self.machine);
        }
        self.change(|_, _| ());
        self.world.count("everybody admitted after a restart");
        self.world.say(self.host, || "keeper: everybody is admitted".into());
        Ok(())
    }

    /// R18: a commit under each new list, then looks at who has flushed it.
    pub(super) async fn prove_list(self: Rc<Keeper>) {
        loop {
            let mut known = self.turn.version();
            let probe = self.look(|state: &State, _| {
                let list = &state.synchronous;
                (state.run.phase == Phase::Primary && list.needs_probe()).then(|| list.names().to_vec())
            });
            let (Some(names), Some(server)) = (probe, self.server()) else {
                self.turn.changed(&mut known).await;
                continue;
            };
            let commit = self.world.within_time(self.host, COMMIT, self.machine.commit_once(&server)).await;
            if let Some(Some((told, end))) = commit
                && (told == names || self.world.lacks(Rule::Shrink))
            {
                self.note(|state, _| state.synchronous.probed(&names, end));
                self.world.count("commits that prove a list");
                for _ in 0..SOON {
                    self.sample_now();
                    self.world.rt.sleep(5 * MS).await;
                    if self.look(|state, _| !state.synchronous.awaits_followers()) {
                        break;
                    }
                }
                continue;
            }
            self.world.rt.sleep(50 * MS).await;
        }
    }

    /// Rules taken out: what this keeper believes or does instead.
    pub(super) fn misbehave(&self, server: &Rc<Server>) {
        if self.world.lacks(Rule::Grow) {
            self.note(|state, _| {
                let names = state.synchronous.names().to_vec();
                state.synchronous.seen_waiting();
                state.synchronous.probed(&names, stolon::model::Lsn(0));
            });
        }
        if self.world.lacks(Rule::Shrink) {
            let connected = |name: &String| server.followers.borrow().values().any(|f| *f.name == **name);
            let before = server.names.borrow().clone();
            let after: Vec<String> = before.iter().filter(|name| connected(name)).cloned().collect();
            if after != before && !after.is_empty() {
                *server.names.borrow_mut() = after;
                server.moved.bump();
            }
        }
    }
}
