//! The view names this keeper primary, and no mark stands: get authority, serve under it, and say so.

use stolon::model::{
    Epoch,
    view::{Assignment, InitMode, KeeperView},
};

use super::{Claim, Data, Plan, Process, Situation, Step};

pub fn plan(s: &Situation, view: &KeeperView, assignment: &Assignment) -> Plan {
    let epoch = view.epoch;
    if s.journal.promised >= epoch {
        return Plan::wait(format!("epoch {epoch} was given up here; waiting for the next"));
    }
    if s.grant != Some(epoch) {
        return without_authority(s, epoch);
    }
    if s.data == Data::Incomplete && matches!(assignment.init, InitMode::None) {
        return Plan::fault(
            Step::Wait,
            "the data directory is incomplete (a copy or rewind broke off): restore it, or remove this keeper",
        );
    }
    match s.process {
        Process::Stopped { .. } => stopped(s, epoch, assignment),
        Process::Starting => Plan::wait("starting"),
        Process::Standby => Plan::new(Step::Promote { epoch }, format!("chosen for epoch {epoch}")),
        Process::Primary => running(s, view, assignment),
    }
}

fn without_authority(s: &Situation, epoch: Epoch) -> Plan {
    match s.claim {
        Claim::KeyGone => Plan::new(
            Step::PutBack { epoch },
            format!("the key `primary` of epoch {epoch} is gone and nobody else is primary"),
        ),
        Claim::Inheriting => Plan::wait("waiting to learn whether the authority is still there"),
        Claim::None => Plan::wait(format!("waiting for authority in epoch {epoch}")),
    }
}

fn stopped(s: &Situation, epoch: Epoch, assignment: &Assignment) -> Plan {
    let made = s.db.uid.as_ref() == Some(&assignment.db) && !matches!(s.data, Data::Absent | Data::Incomplete);
    if !made {
        return create(s, assignment);
    }
    if let Process::Stopped { crashed: Some(crash) } = s.process
        && s.now < crash.restart_at()
    {
        return Plan::wait_until(
            crash.restart_at(),
            "Postgres died; waiting to be asked for the epoch before it is started again",
        );
    }
    match s.data {
        Data::Standby => Plan::new(Step::StartStandby { upstream: None }, format!("chosen for epoch {epoch}")),
        _ => Plan::new(Step::StartPrimary { epoch }, format!("primary in epoch {epoch}")),
    }
}

fn create(s: &Situation, assignment: &Assignment) -> Plan {
    let db = assignment.db.clone();
    match (&assignment.init, s.data) {
        (InitMode::New(config), Data::Absent | Data::Incomplete) => {
            Plan::new(Step::Create { db, config: config.clone() }, "first primary of the cluster")
        }
        (InitMode::New(_), _) => {
            Plan::fault(Step::Wait, "the data directory already holds a database: a new one is not created over it")
        }
        (InitMode::Existing, Data::Primary | Data::Standby) => {
            Plan::new(Step::TakeOver { db }, "the cluster starts from this data")
        }
        _ => Plan::fault(Step::Wait, "there is no complete database in the data directory to start from"),
    }
}

fn running(s: &Situation, view: &KeeperView, assignment: &Assignment) -> Plan {
    let epoch = view.epoch;
    if s.journal.primary_epoch != epoch {
        return Plan::new(Step::AdoptEpoch { epoch }, format!("primary in epoch {epoch}, without having stopped"));
    }
    if s.ready.is_none_or(|ready| ready.epoch != epoch || ready.db != assignment.db) || !s.ready_is_mine {
        return Plan::new(Step::Announce { epoch }, "serving");
    }
    if view.handover && s.prepared != epoch {
        return Plan::new(Step::Prepare { epoch }, format!("epoch {epoch} is about to be handed over"));
    }
    let plan = super::standby::settle(s, assignment);
    match plan.step {
        Step::Wait if s.restricted && s.caught_up => Plan::new(Step::Admit, "the synchronous standbys have caught up"),
        Step::Wait if s.restricted => Plan::wait(
            "started again: only internal users are admitted until the synchronous standbys have caught up (R20)",
        ),
        _ => plan,
    }
}
