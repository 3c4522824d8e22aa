//! The sentinel's mind: what to do next, why, and when to ask again, as a function of the mirror, the observations and
//! the time. Knows no tokio, no gRPC, no etcd client, no clock and no randomness: new uids come in as an argument.

mod case;
pub mod check;
mod choose;
mod elect;
mod fence;
mod handover;
mod init;
mod members;
mod silence;
mod specs;
mod standbys;
mod status;
mod suspect;
mod synchronous;
#[cfg(test)]
mod tests;

use std::time::Duration;

use stolon::{
    model::{
        ClusterData, DbUid, Epoch, KeeperUid, LeaseId, Moment, ProxyUid, Revision, cluster::Fencing,
        registration::PrimaryKey, spec::StoredSpec,
    },
    store::Mirror,
};

use crate::observe::Observations;

pub use case::{Case, Facts};
pub use handover::Wish;

/// Field of `cluster.status`: proxies whose leases a leader revoked under the present mark, with the granted TTL in
/// milliseconds that every leader has to wait out after the registration is gone (R7).
pub const REVOKED: &str = "revokedProxies";

/// Everything that a decision depends on beside the time.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub mirror: &'a Mirror,
    /// Settled for this mirror (`Observations::settle`).
    pub seen: &'a Observations,
    /// `--initial-cluster-spec`.
    pub initial: Option<&'a StoredSpec>,
    /// A handover that is asked for, and was neither granted nor refused yet.
    pub wish: Option<&'a Wish>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub actions: Vec<Action>,
    /// For people: what is in the way, what is waited for. One line each.
    pub reasons: Vec<String>,
    /// The cluster can't be tended until a person corrects what is stored.
    pub stuck: bool,
    /// Ask again then, though nothing happened.
    pub revisit: Option<Moment>,
    /// Something speaks against the primary, and nothing is done about it yet, or can be.
    pub watching: bool,
    /// The wish is granted (with the commit among the actions), or refused for this reason.
    pub wish: Option<Result<(), String>>,
}

/// An effect, as data.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Commit(Box<Commit>),
    /// Let every observer, and the leader itself, knock at a keeper's PostgreSQL (R15).
    AskWitnesses {
        target: KeeperUid,
        host: String,
        port: u16,
    },
    /// Dial a keeper whose stream ended (R14).
    Redial {
        keeper: KeeperUid,
        address: String,
    },
    KnockPostgres {
        keeper: KeeperUid,
        host: String,
        port: u16,
    },
    /// Ask etcd for the granted TTL of a proxy's lease.
    MeasureLease {
        proxy: ProxyUid,
        lease: LeaseId,
    },
    RevokeLease {
        proxy: ProxyUid,
        lease: LeaseId,
    },
    /// Give the leadership up (R5).
    Resign,
}

/// One transaction of the leader (R2). `next` has no change times and no trace context yet: the shell fills them in.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    pub step: Step,
    pub next: ClusterData,
    /// Revision of the cluster data that it was decided from; 0 for absent.
    pub from: Revision,
    pub change: Option<PrimaryChange>,
}

/// What a commit does, for logs and spans.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Initialise,
    Members,
    /// A handover was granted; the primary prepares.
    Handover,
    CallOff {
        why: String,
    },
    Mark,
    Stage,
    /// The record of a lease that is about to be revoked.
    Lapse,
    Elect {
        db: DbUid,
        keeper: KeeperUid,
        why: String,
    },
}

/// The other half of a change of primary: the `primary` and `epoch` keys.
#[derive(Clone, Debug, PartialEq)]
pub struct PrimaryChange {
    pub key: PrimaryKey,
    /// The winner's lease, with the create revision of the registration that it carries.
    pub lease: LeaseId,
    pub registered: Revision,
    pub holder: Holder,
    /// Revision of the key with the highest epoch; 0 for absent.
    pub epoch_at: Revision,
    pub proof: Proof,
}

/// What the `primary` key must be when the transaction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Absent,
    /// Exactly this revision, whose holder is proven fenced.
    Fenced(Revision),
}

/// Why the old epoch is over (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// There was no primary before.
    First,
    /// R2 (i): promised on disk by the old primary's keeper.
    Promised,
    /// The key expired, or its holder gave it back.
    KeyGone,
    /// R2 (ii): a recruit blocks every synchronous list in force.
    ListBlocked,
    /// R2 (iv): every proxy acknowledged.
    ProxiesFenced,
}

/// Decides. `fresh` makes a new uid: 8 lower-case hexadecimal digits.
pub fn decide(now: Moment, world: &World<'_>, fresh: &mut dyn FnMut() -> String) -> Decision {
    let mut plan = Decision::default();
    let Some(stored) = &world.mirror.cluster else {
        init::create(world, &mut plan, fresh);
        return plan;
    };
    let data = match &stored.data {
        Ok(data) => data,
        Err(problem) => {
            plan.stuck = true;
            plan.because(format!("{problem}; nothing is changed until it can be read"));
            return plan;
        }
    };
    match Case::new(now, world.mirror, world.seen, data) {
        Ok(case) => known(&case, world.wish, &mut plan, fresh),
        Err(bad) => {
            plan.stuck = true;
            plan.because(format!("{bad}; nothing is changed until it is corrected"));
        }
    }
    plan
}

fn known(case: &Case<'_>, wish: Option<&Wish>, plan: &mut Decision, fresh: &mut dyn FnMut() -> String) {
    if let Err(problem) = check::sound(case.data, case.mirror) {
        plan.stuck = true;
        plan.because(format!("cluster data are in an impossible state: {problem}; nothing is changed"));
        return;
    }
    if let Some(mark) = case.data.fencing() {
        if wish.is_some() {
            plan.wish = Some(Err(format!("the primary is being changed already: {}", mark.reason)));
        }
        fence::advance(case, mark, plan, fresh);
        return;
    }
    let suspicion = suspect::suspect(case, plan);
    if plan.actions.contains(&Action::Resign) {
        return;
    }
    let begun = match suspicion {
        Some(suspicion) if suspicion.planned => handover::leave(case, suspicion, plan),
        Some(suspicion) => fence::mark(case, suspicion, plan),
        None => handover::tend(case, wish, plan),
    };
    if plan.wish.is_none() && wish.is_some() {
        plan.wish = Some(Err("the primary is suspected right now, or is about to be handed over already".into()));
    }
    if begun {
        return;
    }
    plan.watching = !plan.reasons.is_empty();
    members::tend(case, plan, fresh);
}

impl Decision {
    fn because(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    fn again(&mut self, at: Moment) {
        self.revisit = Some(self.revisit.map_or(at, |known| known.min(at)));
    }

    /// Asks again when `since + wait` comes; true when it is past.
    fn waited(&mut self, now: Moment, since: Moment, wait: Duration) -> bool {
        if now >= since + wait {
            return true;
        }
        self.again(since + wait);
        false
    }

    fn commit(&mut self, case: &Case<'_>, step: Step, next: ClusterData, change: Option<PrimaryChange>) {
        let commit = Commit { step, next, from: case.revision, change };
        match check::allowed(&commit, case.data, case.mirror, case.seen) {
            Ok(()) => self.actions.push(Action::Commit(Box::new(commit))),
            Err(problem) => {
                self.stuck = true;
                self.because(format!("refused by the own check: {problem}"));
            }
        }
    }

    /// The commit among the actions, if any.
    pub fn committed(&self) -> Option<&Commit> {
        self.actions.iter().find_map(|action| match action {
            Action::Commit(commit) => Some(&**commit),
            _ => None,
        })
    }
}

/// The epoch that follows a mark's.
fn next_epoch(mark: &Fencing) -> Epoch {
    mark.epoch.next()
}
