//! The election: one key on the registration's lease, created whenever it is missing; the oldest key of all leads.
//! Leadership is local too (R5): it ends with the lease's deadline on the local clock, whatever etcd may still show.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{Moment, Revision, SentinelUid},
    store::{LeaseState, Mirror, Outcome, Registration, Store, StoreError, Txn},
    task::{Shutdown, clock, timer::Timer},
};
use tokio::sync::watch;

/// How long a sentinel that resigned leaves the election to others.
const ABSTAIN: Duration = Duration::from_secs(3);
/// Between attempts that etcd did not answer, and looks at a key that the mirror does not show yet.
const AGAIN: Duration = Duration::from_millis(300);

/// The right to act as the leader, until the deadline. Only the election makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    key: String,
    created: Revision,
    deadline: Moment,
}

impl Leadership {
    /// Full name of the own key of the election.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its create revision: what every write of the leader compares (R2).
    pub fn created(&self) -> Revision {
        self.created
    }

    /// What is left of it.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.deadline.since(now)
    }

    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// True when both are the same term of office.
    pub fn continues(&self, before: &Leadership) -> bool {
        (&self.key, self.created) == (&before.key, before.created)
    }
}

/// This sentinel's part in the election. Cheap to clone; `run` is the task.
#[derive(Clone)]
pub struct Election {
    store: Store,
    uid: SentinelUid,
    lease: watch::Receiver<Option<LeaseState>>,
    /// Set while it abstains, until then.
    abstains: Arc<watch::Sender<Option<Moment>>>,
}

impl Election {
    pub fn new(store: &Store, uid: &SentinelUid, registration: &Registration) -> Election {
        let abstains = Arc::new(watch::Sender::new(None));
        Election { store: store.clone(), uid: uid.clone(), lease: registration.lease(), abstains }
    }

    /// The leadership of this moment, by a mirror; `None` when this sentinel does not lead.
    pub fn leadership(&self, now: Moment, mirror: &Mirror) -> Option<Leadership> {
        if self.abstains.borrow().is_some() {
            return None;
        }
        leadership(now, mirror, self.lease.borrow().as_ref(), &self.uid)
    }

    pub fn uid(&self) -> &SentinelUid {
        &self.uid
    }

    /// Lets another lead.
    pub fn resign(&self) {
        self.abstains.send_replace(Some(clock::now() + ABSTAIN));
    }

    /// For waiting until the leadership may have changed.
    pub fn changes(&self) -> Changes {
        Changes { lease: self.lease.clone(), abstains: self.abstains.subscribe() }
    }

    pub async fn run(self, shutdown: Shutdown) -> Result<(), String> {
        let timer = Timer::new().map_err(|error| format!("no timer: {error}"))?;
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.stand(timer) => {}
        }
        Ok(())
    }

    async fn stand(mut self, mut timer: Timer) {
        let (mut mirror, mut abstains) = (self.store.mirror(), self.abstains.subscribe());
        // The keepalives of a lease wake nobody here.
        let mut known = None;
        loop {
            abstains.mark_unchanged();
            let seen = mirror.borrow_and_update().clone();
            let again = match seen {
                Some(seen) => self.step(&seen).await,
                None => None,
            };
            let other_lease = self.lease.wait_for(|lease| id(lease.as_ref()) != known);
            tokio::select! {
                _ = mirror.changed() => {}
                _ = abstains.changed() => {}
                lease = other_lease => known = lease.ok().and_then(|lease| id(lease.as_ref())),
                () = timer.until_some(again) => {}
            }
        }
    }

    /// Puts or deletes the own key as it should be; returns when to look again.
    async fn step(&self, mirror: &Mirror) -> Option<Moment> {
        let lease = self.lease.borrow().clone()?;
        if mirror.revision < lease.registered_at {
            return None;
        }
        let key = self.store.keys().candidate(lease.id);
        let standing = mirror.candidates.iter().find(|candidate| candidate.key == key);
        let until = *self.abstains.borrow();
        let txn = Txn::new();
        let txn = match (until, standing) {
            (None, Some(_)) => return None,
            (Some(until), None) if clock::now() < until => return Some(until),
            (Some(_), Some(own)) => txn.when_created(key.as_str(), own.created).delete(key.as_str()),
            (until, None) => {
                if until.is_some() {
                    self.abstains.send_replace(None);
                }
                txn.when_created(key.as_str(), Revision(0)).put_on(lease.id, key.as_str(), self.uid.as_str())
            }
        };
        match self.store.transact(&txn).await {
            Ok(Outcome::Done(_) | Outcome::Conflict) => {}
            // The lease has ended meanwhile, say.
            Err(error) => tracing::debug!(%error, "the election's key could not be changed"),
        }
        if matches!(self.store.read().await, Err(StoreError::Refused(_))) {
            return None;
        }
        Some(clock::now() + AGAIN)
    }
}

/// Changes of the own lease and of the will to lead.
pub struct Changes {
    lease: watch::Receiver<Option<LeaseState>>,
    abstains: watch::Receiver<Option<Moment>>,
}

impl Changes {
    /// What has changed so far is known.
    pub fn seen(&mut self) {
        self.lease.mark_unchanged();
        self.abstains.mark_unchanged();
    }

    /// Returns at the next one.
    pub async fn next(&mut self) {
        // Their senders live as long as the registration and the election, in `run`.
        tokio::select! {
            Ok(()) = self.lease.changed() => {}
            Ok(()) = self.abstains.changed() => {}
            else => std::future::pending().await,
        }
    }
}

fn id(lease: Option<&LeaseState>) -> Option<stolon::model::LeaseId> {
    lease.map(|lease| lease.id)
}

/// R5, as a function of what is known.
pub fn leadership(now: Moment, mirror: &Mirror, lease: Option<&LeaseState>, uid: &SentinelUid) -> Option<Leadership> {
    let lease = lease.filter(|lease| now < lease.deadline)?;
    let first = mirror.leader().filter(|first| first.lease == lease.id && &first.uid == uid)?;
    Some(Leadership { key: first.key.clone(), created: first.created, deadline: lease.deadline })
}

#[cfg(test)]
mod tests {
    use stolon::{
        model::LeaseId,
        store::{Candidate, Keys},
    };

    use super::*;

    fn moment(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(seconds))
    }

    fn candidate(uid: &str, lease: i64, created: i64) -> Candidate {
        let key = Keys::new("p", &"c".parse().unwrap()).candidate(LeaseId(lease));
        Candidate { uid: SentinelUid::parse(uid).unwrap(), key, lease: LeaseId(lease), created: Revision(created) }
    }

    fn lease(id: i64, deadline: u64) -> LeaseState {
        let granted = Duration::from_secs(5);
        LeaseState { id: LeaseId(id), deadline: moment(deadline), granted, registered_at: Revision(1) }
    }

    fn leads(now: u64, candidates: Vec<Candidate>, lease: &LeaseState) -> Option<Leadership> {
        let mirror = Mirror { candidates, ..Mirror::default() };
        leadership(moment(now), &mirror, Some(lease), &SentinelUid::parse("a").unwrap())
    }

    #[test]
    fn only_the_oldest_key_leads_and_only_on_the_own_lease() {
        let own = lease(7, 20);
        assert!(leads(10, vec![candidate("a", 7, 3), candidate("b", 8, 4)], &own).is_some());
        assert_eq!(leads(10, vec![candidate("b", 8, 2), candidate("a", 7, 3)], &own), None);
        assert_eq!(leads(10, vec![candidate("a", 9, 3)], &own), None, "a key of a former lease");
        assert_eq!(leads(10, Vec::new(), &own), None);
    }

    #[test]
    fn leadership_ends_with_the_local_deadline_whatever_etcd_shows() {
        let candidates = || vec![candidate("a", 7, 3)];
        assert!(leads(19, candidates(), &lease(7, 20)).is_some());
        assert_eq!(leads(20, candidates(), &lease(7, 20)), None);
    }

    #[test]
    fn a_key_that_was_created_again_is_another_term() {
        let of = |created| leads(1, vec![candidate("a", 7, created)], &lease(7, 20)).unwrap();
        assert!(of(3).continues(&of(3)) && !of(5).continues(&of(3)));
    }
}
