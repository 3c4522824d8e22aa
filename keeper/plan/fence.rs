//! Under a fencing mark: the old primary gives its epoch up, standbys are recruited, everybody else holds still (R6, R8).

use stolon::model::{
    cluster::{Fencing, Stage},
    view::{KeeperView, Role},
};

use super::{Data, Plan, Process, Situation, Step};

/// `None` when the mark asks nothing of this keeper.
pub fn plan(s: &Situation, view: &KeeperView, mark: &Fencing) -> Option<Plan> {
    if view.names_primary(s.me) {
        return Some(incumbent(s, mark));
    }
    let assignment = view.assignment.as_ref()?;
    let ours = s.db.uid.as_ref() == Some(&assignment.db);
    match assignment.role {
        Role::Standby(_) if ours && s.data == Data::Standby => Some(standby(s, mark)),
        // A primary of before, whose successor may never have served: it can return only when it has promised, too.
        Role::Primary { .. } if ours && s.journal.promised < mark.epoch => {
            let step = Step::GiveUp { epoch: mark.epoch, planned: false };
            Some(Plan::new(step, format!("epoch {} ends, which was not served here", mark.epoch)))
        }
        // A copy in progress may go on: it follows nobody yet. Nothing new is begun: sets and members are frozen.
        _ => Some(Plan::wait(format!("epoch {} is being ended", mark.epoch))),
    }
}

fn incumbent(s: &Situation, mark: &Fencing) -> Plan {
    if s.journal.promised >= mark.epoch && !s.process.runs() {
        return Plan::wait(format!("gave epoch {} up", mark.epoch));
    }
    let step = Step::GiveUp { epoch: mark.epoch, planned: mark.planned };
    Plan::new(step, format!("epoch {} ends: {}", mark.epoch, mark.reason))
}

fn standby(s: &Situation, mark: &Fencing) -> Plan {
    if mark.stage == Stage::Fence && s.journal.promised < mark.epoch {
        return match s.process {
            Process::Stopped { crashed } => super::standby::start_again(s, crashed, s.following.cloned()),
            _ => Plan::wait(format!("epoch {} ends; still receiving", mark.epoch)),
        };
    }
    let recruited =
        s.journal.promised >= mark.epoch && s.journal.recruit.is_some_and(|recruit| recruit.epoch == mark.epoch.next());
    match s.process {
        Process::Stopped { crashed } => super::standby::start_again(s, crashed, None),
        Process::Starting => Plan::wait("starting"),
        _ if recruited => Plan::wait(format!("recruited for epoch {}", mark.epoch.next())),
        _ => Plan::new(Step::Recruit { epoch: mark.epoch }, format!("epoch {} ends: {}", mark.epoch, mark.reason)),
    }
}
