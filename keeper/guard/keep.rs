//! The keeper's task that has a guard at any time, and tells it what the state says: armed while the server may acknowledge
//! commits or is about to, with the very deadline that the keeper's own task enforces.

use std::{path::PathBuf, time::Duration};

use stolon::model::{Epoch, LeaseId, Moment};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Armed, Found, Program,
    core::{Order, Verdict},
    link::Link,
};
use crate::{shared::Shared, state::State};

/// Between two attempts to start one.
const AGAIN: Duration = Duration::from_millis(500);
/// For a step that needs an armed guard: time to start one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the guard has acknowledged last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    /// The newest request to arm that was known when the order was made (`State::arms`).
    request: u64,
    armed: Option<Armed>,
}

/// See the module.
pub struct Keep {
    pub dir: PathBuf,
    /// OS user that PostgreSQL runs as, if not as the keeper.
    pub user: Option<String>,
    pub program: Program,
    found: Option<Found>,
    told: watch::Sender<Told>,
}

/// For those who need the guard armed. Cheap to clone.
#[derive(Clone)]
pub struct Watch(watch::Receiver<Told>);

impl Watch {
    /// Returns when the guard is armed for `epoch`, by an order made after this request.
    pub async fn armed(&self, epoch: Epoch, request: u64) -> Result<(), String> {
        let mut told = self.0.clone();
        let armed = |told: &Told| told.request >= request && told.armed.is_some_and(|armed| armed.epoch == epoch);
        match timeout(PATIENCE, told.wait_for(armed)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(
                "the guard process can't be armed, and without it PostgreSQL does not become primary (the log says \
                      why)"
                    .to_owned(),
            ),
        }
    }
}

impl Keep {
    pub fn new(dir: PathBuf, user: Option<String>, program: Program, found: Option<Found>) -> Keep {
        Keep { dir, user, program, found, told: watch::Sender::new(Told::default()) }
    }

    pub fn watch(&self) -> Watch {
        Watch(self.told.subscribe())
    }

    /// Never gives up: a keeper without a guard still keeps the deadline itself.
    async fn link(&mut self) -> (Link, Option<Armed>) {
        if let Some(Found { link, armed }) = self.found.take() {
            tracing::info!(pid = link.pid, ?armed, "took the former keeper's guard over");
            return (link, armed);
        }
        let mut complained = false;
        loop {
            match Link::start(&self.program, &self.dir, self.user.as_deref()).await {
                Ok(link) => {
                    tracing::info!(pid = link.pid, "the guard watches");
                    return (link, None);
                }
                Err(problem) if !complained => tracing::error!("the guard process can't be started: {problem}"),
                Err(_) => {}
            }
            complained = true;
            sleep(AGAIN).await;
        }
    }
}

/// Ends only with the keeper; the guard then holds the deadline that it was told last.
pub async fn keep(shared: Shared, mut keep: Keep) -> Result<(), String> {
    loop {
        let (mut link, armed) = keep.link().await;
        let problem = serve(&shared, &mut link, armed, &keep.told).await;
        // A frozen one would wake up with a deadline of the past.
        link.kill();
        keep.told.send_modify(|told| told.armed = None);
        tracing::warn!(pid = link.pid, "the guard is replaced: {problem}");
    }
}

/// Until the guard fails; says how.
async fn serve(shared: &Shared, link: &mut Link, mut armed: Option<Armed>, told: &watch::Sender<Told>) -> String {
    loop {
        let (request, order) = shared.look(|state, now| (state.arms, order(state, armed, now)));
        if let Some(order) = order {
            match link.tell(order).await {
                Err(problem) => return problem,
                Ok(answer) => {
                    let other = answer.armed != armed;
                    armed = answer.armed.filter(|_| answer.verdict != Verdict::TooLate);
                    match answer.verdict {
                        Verdict::Taken => {}
                        // It ended the server by itself, say: what it knows now needs another order.
                        Verdict::Refused if other => continue,
                        verdict => tracing::error!(?order, ?verdict, "the guard does not take an order"),
                    }
                }
            }
        }
        told.send_replace(Told { request, armed });
        tokio::select! {
            () = shared.guard() => {}
            () = link.ended() => return "it has ended".to_owned(),
        }
    }
}

/// What the guard has to be told, when it is armed like this.
pub(super) fn order(state: &State, armed: Option<Armed>, now: Moment) -> Option<Order> {
    let risky = state.run.phase.may_serve() || state.arming.is_some() || state.inherits(now);
    if !risky {
        // Gone, or a standby that was never asked to promote.
        return armed.map(|_| Order::Disarm);
    }
    // Without any right left the deadline that it knows is the right one.
    let deadline = state.deadline(now)?;
    let new = Armed {
        epoch: deadline.epoch,
        lease: deadline.lease.unwrap_or(LeaseId(0)),
        until: deadline.until,
        postmaster: state.run.id,
    };
    match (deadline.lease, armed) {
        (Some(_), Some(old)) if old == new => None,
        (Some(_), Some(old)) if (old.epoch, old.lease) == (new.epoch, new.lease) => Some(Order::Extend(new)),
        (Some(_), _) => Some(Order::Arm(new)),
        (None, Some(old)) if old.until <= new.until && old.postmaster == new.postmaster => None,
        (None, _) => Some(Order::Bound(new)),
    }
}
