//! The keeper was asked to end: a primary hands over when somebody takes it, and everybody stops in good order.

use stolon::model::{Epoch, Moment};

use super::{Data, Plan, Process, Situation, Step};

pub fn plan(s: &Situation, until: Moment) -> Plan {
    let mark = s.view.and_then(|view| view.fencing.as_ref()).filter(|_| is_primary(s));
    if let Some(mark) = mark
        && (s.journal.promised < mark.epoch || s.process.runs())
    {
        return Plan::new(Step::GiveUp { epoch: mark.epoch, planned: mark.planned }, "handing over");
    }
    if mark.is_some() && s.now < until {
        return Plan::wait_until(until, "stopped; waiting for the successor to be chosen");
    }
    match s.process {
        Process::Stopped { .. } => Plan::new(Step::Exit, "stopped"),
        Process::Primary if must_prepare(s) => {
            Plan::new(Step::Prepare { epoch: s.view.map_or(Epoch::NONE, |view| view.epoch) }, "about to hand over")
        }
        Process::Primary if has_followers(s) && s.now < until && s.data == Data::Primary => {
            Plan::wait_until(until, "waiting for a successor")
        }
        _ => Plan::new(Step::Stop, "the keeper ends"),
    }
}

fn must_prepare(s: &Situation) -> bool {
    s.view.is_some_and(|view| view.handover && s.prepared != view.epoch) && is_primary(s)
}

fn is_primary(s: &Situation) -> bool {
    s.view.is_some_and(|view| view.names_primary(s.me) && view.epoch > Epoch::NONE)
}

fn has_followers(s: &Situation) -> bool {
    let role = s.view.filter(|_| is_primary(s)).and_then(|view| view.assignment.as_ref()).map(|a| &a.role);
    matches!(role, Some(stolon::model::view::Role::Primary { followers, .. }) if !followers.is_empty())
}
