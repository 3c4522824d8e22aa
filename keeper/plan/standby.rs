//! The view names this keeper a standby: have the data, be on the upstream's branch, follow it.

use stolon::model::{
    registration::ReadyKey,
    view::{Assignment, InitMode, KeeperView, Upstream},
};

use crate::journal::Branch;

use super::{Crash, Data, Fit, Method, Plan, Process, Situation, Step, fit};

pub fn plan(s: &Situation, view: &KeeperView, assignment: &Assignment, upstream: &Upstream) -> Plan {
    if s.journal.promised >= view.epoch {
        return Plan::wait(format!("promised not to follow a primary of epoch {} or before", s.journal.promised));
    }
    // A server that ran, or starts, as a primary is never turned in place.
    if s.process == Process::Primary {
        return Plan::new(Step::Kill, "this db is a standby's");
    }
    let Some(ready) = s.ready.filter(|ready| ready.epoch == view.epoch && ready.db == upstream.db) else {
        return upstream_not_ready(s, assignment, upstream);
    };
    if !holds(s, assignment) || s.data != Data::Standby {
        return copy(s, assignment, upstream, Method::KeepIfPossible, "not a copy of this primary yet");
    }
    on_data(s, view, assignment, upstream, ready)
}

/// Where the directory stands against the upstream decides: follow, rewind or copy anew.
fn on_data(s: &Situation, view: &KeeperView, assignment: &Assignment, upstream: &Upstream, ready: &ReadyKey) -> Plan {
    // A promotion that was begun here, with an unknown outcome, is nobody's lineage.
    let half = s.journal.half_promoted().then_some(Branch { epoch: s.journal.primary_epoch, timeline: 0 });
    // A recruit has got nothing since it left: what counts is where it ended. The last sample may be older, or further: WAL
    // that broke off inside a record was received and is never replayed.
    let recruited = s.journal.recruit.map(|recruit| recruit.position);
    match fit(half.or(s.journal.branch), recruited.or(s.position), &view.lineage, ready) {
        Fit::Follows => follow(s, assignment, upstream),
        Fit::Ahead => copy(
            s,
            assignment,
            upstream,
            Method::KeepIfPossible,
            "this standby received WAL that the new primary never had",
        ),
        Fit::OtherLineage => copy(
            s,
            assignment,
            upstream,
            Method::CopyAnew,
            "this data comes from a promotion that is no part of the cluster's history",
        ),
        Fit::Unknown => match s.process {
            Process::Stopped { crashed } => start_again(s, crashed, None),
            _ => Plan::wait("waiting to know this standby's own position"),
        },
    }
}

fn follow(s: &Situation, assignment: &Assignment, upstream: &Upstream) -> Plan {
    match s.process {
        Process::Stopped { crashed } => start_again(s, crashed, Some(upstream.clone())),
        Process::Starting => Plan::wait("starting"),
        _ if upstream.address.is_none() => Plan::wait("the primary's address is not known yet"),
        _ if s.following != Some(upstream) => {
            Plan::new(Step::Follow { upstream: upstream.clone() }, format!("following db {}", upstream.db))
        }
        _ => settle(s, assignment),
    }
}

/// The primary of this epoch does not serve yet: keep what runs as it is, start what is stopped.
fn upstream_not_ready(s: &Situation, assignment: &Assignment, upstream: &Upstream) -> Plan {
    match s.process {
        Process::Stopped { crashed } if s.data == Data::Standby && holds(s, assignment) => {
            start_again(s, crashed, None)
        }
        _ => Plan::wait(format!("waiting for db {} to serve as primary", upstream.db)),
    }
}

fn copy(s: &Situation, assignment: &Assignment, upstream: &Upstream, method: Method, why: &str) -> Plan {
    if upstream.address.is_none() {
        return Plan::wait("the primary's address is not known yet");
    }
    let method = if s.data == Data::Incomplete || s.data == Data::Absent { Method::CopyAnew } else { method };
    Plan::new(Step::Resync { db: assignment.db.clone(), upstream: upstream.clone(), method }, why)
}

fn holds(s: &Situation, assignment: &Assignment) -> bool {
    s.db.uid.as_ref() == Some(&assignment.db)
        && !s.db.initializing
        && matches!(assignment.init, InitMode::None | InitMode::Resync)
}

/// Starts a stopped standby, damped when it crashed.
pub fn start_again(s: &Situation, crashed: Option<Crash>, upstream: Option<Upstream>) -> Plan {
    match crashed {
        // The first end is repaired at once: a standby has nobody to ask.
        Some(crash) if crash.count > 1 && s.now < crash.restart_at() => {
            Plan::wait_until(crash.restart_at(), "Postgres keeps dying; waiting before the next start")
        }
        _ => Plan::new(Step::StartStandby { upstream }, "standby"),
    }
}

/// Runs as it should: bring the rest of the settings to the wanted generation.
pub fn settle(s: &Situation, assignment: &Assignment) -> Plan {
    match s.applied {
        Some((db, generation)) if db == &assignment.db && generation == assignment.generation => {
            Plan::wait("converged")
        }
        _ => Plan::new(
            Step::Apply { db: assignment.db.clone(), generation: assignment.generation },
            format!("generation {} of db {}", assignment.generation, assignment.db),
        ),
    }
}
