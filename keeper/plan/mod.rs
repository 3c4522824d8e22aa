//! What a keeper does next: one step, a pure function of what it sees. The loop runs the step, looks again, and asks
//! again; a step that is no longer the answer is dropped half-way. Knows no process, file, store or clock.

mod branch;
mod fence;
mod interrupt;
mod leave;
mod primary;
mod standby;
#[cfg(test)]
mod tests;

pub use branch::{Fit, fit};
pub use interrupt::interrupts;

use std::time::Duration;

use stolon::model::{
    DbUid, Epoch, Generation, KeeperUid, Moment, WalPosition,
    registration::ReadyKey,
    spec::NewConfig,
    view::{Assignment, InitMode, KeeperView, Role, Upstream},
};

use crate::journal::{DbState, Journal};

/// R17: how long a crashed primary waits to be asked before it starts again in place.
pub const RESTART_GRACE: Duration = Duration::from_millis(300);

/// Everything that the plan depends on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub now: Moment,
    pub me: &'a KeeperUid,
    /// Newest view; `None` before the first.
    pub view: Option<&'a KeeperView>,
    pub data: Data,
    pub process: Process,
    pub db: &'a DbState,
    pub journal: &'a Journal,
    /// Epoch in which the keeper holds authority now (R3).
    pub grant: Option<Epoch>,
    /// A server that runs as primary may go on without it, for a moment.
    pub tolerated: bool,
    pub claim: Claim,
    /// The key `ready`, whoever wrote it.
    pub ready: Option<&'a ReadyKey>,
    /// That key is ours: on our present lease.
    pub ready_is_mine: bool,
    /// Last sampled position of the running server.
    pub position: Option<WalPosition>,
    /// Whom the server's settings make it follow; `None` for nobody.
    pub following: Option<&'a Upstream>,
    /// Settings (parameters, access, slots) in force are those of this db and generation.
    pub applied: Option<(&'a DbUid, Generation)>,
    /// Only internal users are admitted (R20).
    pub restricted: bool,
    /// All standbys that commits wait for have what was there when they were named (R18, R20).
    pub caught_up: bool,
    /// Epoch for whose handover a checkpoint was written.
    pub prepared: Epoch,
    pub leaving: Leaving,
}

/// What the directory `postgres` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Absent,
    /// A creation, copy or rewind was begun and not finished; never to be started.
    Incomplete,
    /// The last run, or the copy, was a primary's.
    Primary,
    /// Made to start as a standby.
    Standby,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Not running. `crashed`: it ended unasked, then.
    Stopped {
        crashed: Option<Crash>,
    },
    Starting,
    Standby,
    Primary,
}

/// An end that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    pub at: Moment,
    /// How many in a row, from 1: the damping of crash loops (R17).
    pub count: u32,
}

/// How the keeper stands to the key `primary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing to claim, or unknown yet.
    None,
    /// The key is gone, and our registration is valid: it may be put back (R3).
    KeyGone,
    /// The server runs under an authority that was there a moment ago, and whether it still is isn't known yet.
    Inheriting,
}

/// The end of the keeper itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    No,
    /// Asked to end; a successor for the primary role is awaited until then.
    HandOver {
        until: Moment,
    },
}

/// One step. Each may be run again from its beginning after having been dropped half-way.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Wait,
    /// SIGKILL to all of Postgres, now (R4).
    Kill,
    /// Fast stop.
    Stop,
    /// Stop for good in `epoch`: kill (planned: fast stop), then the promise on disk (R2 i).
    GiveUp {
        epoch: Epoch,
        planned: bool,
    },
    /// Leave the primary of `epoch`, replay to the end, promise, report (R8).
    Recruit {
        epoch: Epoch,
    },
    /// Create the first database.
    Create {
        db: DbUid,
        config: NewConfig,
    },
    /// Take the present directory as that of `db`.
    TakeOver {
        db: DbUid,
    },
    /// Start as a primary under authority for `epoch`.
    StartPrimary {
        epoch: Epoch,
    },
    /// Start in recovery, following `upstream` or nobody.
    StartStandby {
        upstream: Option<Upstream>,
    },
    Promote {
        epoch: Epoch,
    },
    /// Record that the running primary is one of `epoch`.
    AdoptEpoch {
        epoch: Epoch,
    },
    /// Write `ready` (R10).
    Announce {
        epoch: Epoch,
    },
    /// Put the lost key `primary` back, in the same epoch (R3).
    PutBack {
        epoch: Epoch,
    },
    /// Turn a running standby to another upstream.
    Follow {
        upstream: Upstream,
    },
    /// Become a copy of `upstream`: follow, else rewind, else a base backup (R11).
    Resync {
        db: DbUid,
        upstream: Upstream,
        method: Method,
    },
    /// Bring parameters, access and slots to the assignment's generation.
    Apply {
        db: DbUid,
        generation: Generation,
    },
    /// Write a checkpoint while clients still work, before the epoch is handed over (R8).
    Prepare {
        epoch: Epoch,
    },
    /// Admit everybody: as many standbys as the list demands have caught up (R20).
    Admit,
    /// Nothing is left to do: revoke and end.
    Exit,
}

/// How far a resynchronisation may spare the present data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Following or rewinding is tried first.
    KeepIfPossible,
    /// Only a new base backup will do.
    CopyAnew,
}

/// The answer: the step, the reason for people, and when to ask again though nothing has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub step: Step,
    pub why: String,
    pub revisit: Option<Moment>,
    /// The reason is a fault that an operator must know of.
    pub fault: bool,
}

impl Plan {
    fn new(step: Step, why: impl Into<String>) -> Plan {
        Plan { step, why: why.into(), revisit: None, fault: false }
    }

    fn wait(why: impl Into<String>) -> Plan {
        Plan::new(Step::Wait, why)
    }

    fn wait_until(moment: Moment, why: impl Into<String>) -> Plan {
        Plan { revisit: Some(moment), ..Plan::wait(why) }
    }

    fn fault(step: Step, why: impl Into<String>) -> Plan {
        Plan { fault: true, ..Plan::new(step, why) }
    }
}

/// The next step. Authority comes before all else: a primary without it is killed, whatever the view says (R4).
pub fn plan(s: &Situation) -> Plan {
    if let Some(plan) = self_fence(s) {
        return plan;
    }
    if let Leaving::HandOver { until } = s.leaving {
        return leave::plan(s, until);
    }
    let Some(view) = s.view else { return Plan::wait("waiting for cluster data") };
    if let Some(mark) = &view.fencing
        && let Some(plan) = fence::plan(s, view, mark)
    {
        return plan;
    }
    match &view.assignment {
        None if s.process.runs() => Plan::new(Step::Stop, "no db is assigned to this keeper"),
        None => Plan::wait("no db is assigned to this keeper"),
        Some(assignment) => assigned(s, view, assignment),
    }
}

fn self_fence(s: &Situation) -> Option<Plan> {
    let may_serve = s.process == Process::Primary || s.process == Process::Starting && s.data == Data::Primary;
    if !may_serve || s.grant.is_some() || s.tolerated {
        return None;
    }
    Some(Plan::new(Step::Kill, "this keeper has no authority: its primary must not accept commits"))
}

fn assigned(s: &Situation, view: &KeeperView, assignment: &Assignment) -> Plan {
    if let Some(refusal) = wrong_data(s, assignment).or_else(|| outdated(s, assignment)) {
        return refusal;
    }
    match &assignment.role {
        Role::Primary { .. } if view.names_primary(s.me) => primary::plan(s, view, assignment),
        Role::Primary { .. } => superseded(s),
        Role::Standby(upstream) => standby::plan(s, view, assignment, upstream),
    }
}

/// The data directory is not what the assignment presupposes (a lost or foreign volume must never be filled or used).
fn wrong_data(s: &Situation, assignment: &Assignment) -> Option<Plan> {
    if assignment.init != InitMode::None || s.db.uid.as_ref() == Some(&assignment.db) && s.data != Data::Absent {
        return None;
    }
    let step = if s.process.runs() { Step::Stop } else { Step::Wait };
    let found = match (&s.db.uid, s.data) {
        (_, Data::Absent) => "it is empty".to_owned(),
        (Some(uid), _) => format!("it holds db {uid}"),
        (None, _) => "it holds a database of unknown origin".to_owned(),
    };
    let db = &assignment.db;
    Some(Plan::fault(
        step,
        format!(
            "the data directory should hold db {db}, but {found}: restore the volume, or remove this keeper from the cluster"
        ),
    ))
}

/// A reading from before what was applied here. Its synchronous list may be shorter than what others rely on (R18).
fn outdated(s: &Situation, assignment: &Assignment) -> Option<Plan> {
    let older = s.db.uid.as_ref() == Some(&assignment.db) && assignment.generation < s.db.generation;
    older
        .then(|| Plan::wait(format!("generation {} was applied here: waiting for newer cluster data", s.db.generation)))
}

/// An old primary, before its db is replaced by a standby's.
fn superseded(s: &Situation) -> Plan {
    match s.process.runs() {
        true => Plan::new(Step::Kill, "another keeper is primary"),
        false => Plan::wait("another keeper is primary; waiting to be given a standby's role"),
    }
}

impl Process {
    pub fn runs(self) -> bool {
        !matches!(self, Process::Stopped { .. })
    }
}

impl Crash {
    /// When to start again: after the grace, twice as long each time, 10 s at most.
    fn restart_at(self) -> Moment {
        let factor = 1 << self.count.saturating_sub(1).min(6);
        self.at + (RESTART_GRACE * factor).min(Duration::from_secs(10))
    }
}
