//! The planned handover, for who asks for it: handed to the leader's loop, then followed in etcd to its end. Decides nothing.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use stolon::{
    model::{ClusterData, Epoch, KeeperUid, Moment},
    store::Mirror,
    task::clock,
    wire::{
        millis,
        v1::{self, switchover_response::Event as Said},
    },
};
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use super::Admin;
use crate::{decide::Wish, hub::Verdict};

pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// From the question to the leader's decision.
const DECISION: Duration = Duration::from_secs(5);
/// From there to the end: a checkpoint, the change, and what a failed step costs.
const END: Duration = Duration::from_secs(120);

/// How a handover ended, as etcd shows it.
enum Outcome {
    Done {
        keeper: String,
        epoch: Epoch,
    },
    /// The old primary serves, in this epoch.
    Back(Epoch),
    CalledOff(String),
}

/// A handover on its way to its end.
struct Begun {
    admin: Admin,
    at: Moment,
    from: String,
    epoch: Epoch,
}

type Event = Result<v1::SwitchoverResponse, Status>;

impl Admin {
    /// Two events, or one and an error. Lives as long as somebody listens; a granted handover goes on without.
    pub(super) async fn switch_over(&self, to: &str) -> Result<BoxStream<Event>, Status> {
        let wish = Wish { to: parse(to)? };
        let (at, from) = (clock::now(), self.old_primary()?);
        let verdict = self.hub.lock().wishes.ask(wish).map_err(Status::failed_precondition)?;
        self.hub.wake();
        let begun = Begun { admin: self.clone(), at, from, epoch: self.granted(verdict).await? };
        let granted = v1::SwitchoverGranted { from: begun.from.clone(), epoch: begun.epoch.0 };
        let end = stream::once(async move { begun.end().await });
        Ok(Box::pin(stream::iter([Ok(event(Said::Granted(granted)))]).chain(end)))
    }

    async fn granted(&self, verdict: oneshot::Receiver<Verdict>) -> Result<Epoch, Status> {
        match timeout(DECISION, verdict).await {
            Ok(Ok(Ok(epoch))) => Ok(epoch),
            Ok(Ok(Err(refusal))) => Err(Status::failed_precondition(refusal)),
            Ok(Err(_)) => Err(Status::unavailable("the question was lost: ask again")),
            Err(_) => {
                let problem =
                    format!("sentinel {} has not decided within {DECISION:?}: see its reasons in the status", self.uid);
                Err(Status::deadline_exceeded(problem))
            }
        }
    }

    /// The keeper to be relieved. Only the leader can decide.
    fn old_primary(&self) -> Result<String, Status> {
        let mirror = self.mirror().ok_or_else(|| Status::unavailable("this sentinel has not read etcd yet"))?;
        if !self.leads(Some(&mirror)) {
            let leader = mirror.leader().map_or("none leads now".to_owned(), |leader| format!("{} does", leader.uid));
            return Err(Status::failed_precondition(format!("sentinel {} does not lead: {leader}", self.uid)));
        }
        let primary = mirror.data().and_then(|(data, _)| data.primary()).map(|(_, db)| db.spec.keeper_uid.to_string());
        primary.ok_or_else(|| Status::failed_precondition("there is no primary"))
    }
}

impl Begun {
    async fn end(self) -> Event {
        let Begun { admin, at, from, epoch } = self;
        match timeout(END, admin.follow(epoch, &from)).await {
            Ok(Outcome::Done { keeper, epoch }) => {
                let took_ms = millis(clock::now().since(at));
                Ok(event(Said::Done(v1::SwitchoverDone { keeper, epoch: epoch.0, took_ms })))
            }
            Ok(Outcome::Back(epoch)) => {
                Err(Status::aborted(format!("it failed: keeper {from} carries on as primary, in epoch {epoch}")))
            }
            Ok(Outcome::CalledOff(why)) => {
                Err(Status::aborted(format!("{why}; keeper {from} is the primary as before")))
            }
            Err(_) => {
                Err(Status::deadline_exceeded(format!("it was begun and has not ended within {END:?}: see the status")))
            }
        }
    }
}

fn event(said: Said) -> v1::SwitchoverResponse {
    v1::SwitchoverResponse { event: Some(said) }
}

impl Admin {
    /// Waits until etcd shows the end.
    async fn follow(&self, epoch: Epoch, before: &str) -> Outcome {
        let mut mirror = self.store.mirror();
        loop {
            let seen = mirror.borrow_and_update().clone();
            if let Some(outcome) = seen.as_ref().and_then(|seen| self.outcome(seen, epoch, before)) {
                return outcome;
            }
            if mirror.changed().await.is_err() {
                return Outcome::CalledOff("this sentinel ends".into());
            }
        }
    }

    fn outcome(&self, mirror: &Arc<Mirror>, epoch: Epoch, before: &str) -> Option<Outcome> {
        let (data, _) = mirror.data()?;
        if data.epoch() == epoch {
            return self.hub.lock().wishes.called_off(epoch).filter(|_| idle(data)).map(Outcome::CalledOff);
        }
        let served = mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch == data.epoch());
        let keeper = data.primary().map(|(_, db)| db.spec.keeper_uid.to_string()).filter(|_| served)?;
        Some(if keeper == before { Outcome::Back(data.epoch()) } else { Outcome::Done { keeper, epoch: data.epoch() } })
    }
}

fn idle(data: &ClusterData) -> bool {
    data.fencing().is_none() && data.cluster.status.handover.is_none()
}

fn parse(to: &str) -> Result<Option<KeeperUid>, Status> {
    if to.is_empty() {
        return Ok(None);
    }
    let problem = |error| Status::invalid_argument(format!("{to:?} is no keeper's uid: {error}"));
    KeeperUid::parse(to).map(Some).map_err(problem)
}
