//! A transaction as a value: what must hold, and what is then written. Each that this program makes can be sent twice:
//! either it compares a revision that it changes itself, or writing the same again changes nothing that counts.

use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};

use crate::model::{LeaseId, Revision};

#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// All must hold.
    pub when: Vec<Condition>,
    /// What is written then, all at one revision.
    pub then: Vec<Change>,
}

/// What must hold of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub key: Vec<u8>,
    pub is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Changed last at this revision; 0: there is no such key.
    Modified(Revision),
    /// Created at this revision; 0: there is no such key.
    Created(Revision),
    On(LeaseId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Without a lease when that is none.
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        lease: LeaseId,
    },
    Delete {
        key: Vec<u8>,
    },
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, at this revision.
    Done(Revision),
    /// What had to hold did not; nothing was written.
    Conflict,
}

impl Txn {
    pub fn new() -> Txn {
        Txn::default()
    }

    /// The key's last change is this one; `Revision(0)`: there is no such key.
    pub fn when_revision(mut self, key: impl Into<Vec<u8>>, revision: Revision) -> Txn {
        self.when.push(Condition { key: key.into(), is: Is::Modified(revision) });
        self
    }

    /// The key was created at this revision; `Revision(0)`: there is no such key.
    pub fn when_created(mut self, key: impl Into<Vec<u8>>, revision: Revision) -> Txn {
        self.when.push(Condition { key: key.into(), is: Is::Created(revision) });
        self
    }

    /// The key hangs on this lease.
    pub fn when_lease(mut self, key: impl Into<Vec<u8>>, lease: LeaseId) -> Txn {
        self.when.push(Condition { key: key.into(), is: Is::On(lease) });
        self
    }

    pub fn put(self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Txn {
        self.put_on(LeaseId::NONE, key, value)
    }

    /// Puts a key that goes with the lease.
    pub fn put_on(mut self, lease: LeaseId, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Txn {
        self.then.push(Change::Put { key: key.into(), value: value.into(), lease });
        self
    }

    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Txn {
        self.then.push(Change::Delete { key: key.into() });
        self
    }

    pub(super) fn request(&self) -> etcd_client::Txn {
        let when: Vec<Compare> = self.when.iter().map(Condition::compare).collect();
        let then: Vec<TxnOp> = self.then.iter().map(Change::operation).collect();
        etcd_client::Txn::new().when(when).and_then(then)
    }

    /// Puts a registration that is not there.
    pub fn register(lease: LeaseId, key: &str, value: impl Into<Vec<u8>>) -> Txn {
        Txn::new().when_created(key, Revision(0)).put_on(lease, key, value)
    }

    /// Writes a registration anew that hangs on this lease.
    pub fn rewrite(lease: LeaseId, key: &str, value: impl Into<Vec<u8>>) -> Txn {
        Txn::new().when_lease(key, lease).put_on(lease, key, value)
    }
}

impl Condition {
    fn compare(&self) -> Compare {
        let key = self.key.as_slice();
        match self.is {
            Is::Modified(revision) => Compare::mod_revision(key, CompareOp::Equal, revision.0),
            Is::Created(revision) => Compare::create_revision(key, CompareOp::Equal, revision.0),
            Is::On(lease) => Compare::lease(key, CompareOp::Equal, lease.0),
        }
    }
}

impl Change {
    fn operation(&self) -> TxnOp {
        match self {
            Change::Put { key, value, lease } => {
                let on = Some(PutOptions::new().with_lease(lease.0)).filter(|_| !lease.is_none());
                TxnOp::put(key.as_slice(), value.as_slice(), on)
            }
            Change::Delete { key } => TxnOp::delete(key.as_slice(), None),
        }
    }
}
