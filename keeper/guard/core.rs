//! What a guard knows and decides. Pure: orders, ends and the time come in; what to do comes out. It can't ask etcd, so it
//! believes no more than this: a deadline may come nearer at any word of the keeper, be moved away only for the lease and
//! epoch it was armed with or by a reading of etcd, and once it is over nothing moves it (R3).

use stolon::model::{Epoch, LeaseId, Moment};

use crate::pg::ProcessId;

/// A server that may acknowledge commits, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    pub epoch: Epoch,
    /// The lease that carries the key `primary`; 0 while a keeper that adopted the server has not read it.
    pub lease: LeaseId,
    pub until: Moment,
    /// `None` before the server is started.
    pub postmaster: Option<ProcessId>,
}

/// A keeper's word to its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Say what you know.
    Ask,
    /// A linearizable reading has shown this authority (R3).
    Arm(Armed),
    /// A keepalive of the very lease was answered.
    Extend(Armed),
    /// No later than this, for want of a reading.
    Bound(Armed),
    /// No server runs that could acknowledge a commit, and none was asked to.
    Disarm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    /// It would move a deadline that the keeper has no right to move.
    Refused,
    /// The deadline was over when the order was read.
    TooLate,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Wait,
    /// Kill what runs in the data directory; then `killed`.
    Kill,
    /// Nobody is left to guard for, and nothing to guard.
    Exit,
}

#[derive(Debug, Default)]
pub struct Guard {
    armed: Option<Armed>,
    /// A keeper is connected.
    keeper: bool,
    /// The armed server's postmaster has ended, and its keeper was there to see to the rest.
    ended: bool,
}

impl Guard {
    pub fn armed(&self) -> Option<Armed> {
        self.armed
    }

    pub fn keeper_came(&mut self) {
        self.keeper = true;
    }

    /// A keeper that died, or left PostgreSQL to the next one: the deadline stands (R16).
    pub fn keeper_gone(&mut self) {
        self.keeper = false;
    }

    /// To be followed by `next`, whatever the verdict.
    pub fn told(&mut self, order: Order, now: Moment) -> Verdict {
        if self.expired(now) {
            return Verdict::TooLate;
        }
        match (order, self.armed) {
            (Order::Ask, _) => Verdict::Taken,
            (Order::Disarm, _) => self.take(None),
            (Order::Arm(new), Some(old)) if new.epoch < old.epoch => Verdict::Refused,
            (Order::Arm(new), _) => self.take(Some(new)),
            (Order::Extend(new), Some(old)) if (new.epoch, new.lease) == (old.epoch, old.lease) => self.take(Some(new)),
            (Order::Extend(_), _) => Verdict::Refused,
            (Order::Bound(new), Some(old)) => {
                let until = old.until.min(new.until);
                self.take(Some(Armed { until, postmaster: new.postmaster.or(old.postmaster), ..old }))
            }
            (Order::Bound(new), None) => self.take(Some(new)),
        }
    }

    fn take(&mut self, armed: Option<Armed>) -> Verdict {
        self.armed = armed;
        self.ended &= armed.is_some_and(|armed| armed.postmaster.is_none());
        Verdict::Taken
    }

    /// The postmaster has ended. Its sessions may outlive it by moments: with a keeper they are that one's to end, and the
    /// deadline stands until it says that all are gone. Without one they are killed now.
    pub fn postgres_ended(&mut self, id: ProcessId) -> Next {
        match &mut self.armed {
            Some(armed) if armed.postmaster == Some(id) && self.keeper => {
                armed.postmaster = None;
                self.ended = true;
                Next::Wait
            }
            Some(armed) if armed.postmaster == Some(id) => Next::Kill,
            _ => Next::Wait,
        }
    }

    pub fn killed(&mut self) {
        (self.armed, self.ended) = (None, false);
    }

    pub fn next(&self, now: Moment) -> Next {
        if self.expired(now) || self.ended && !self.keeper {
            Next::Kill
        } else if self.armed.is_none() && !self.keeper {
            Next::Exit
        } else {
            Next::Wait
        }
    }

    fn expired(&self, now: Moment) -> bool {
        self.armed.is_some_and(|armed| now >= armed.until)
    }
}
