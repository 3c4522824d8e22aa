//! A transaction as a value: what must hold, and what is then written. Each that this program makes can be sent twice:
//! either it compares a revision that it changes itself, or writing the same again changes nothing that counts.

use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};

use crate::model::{LeaseId, Revision};

#[derive(Clone, Debug, Default)]
pub struct Txn {
    when: Vec<Compare>,
    then: Vec<TxnOp>,
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
        self.when.push(Compare::mod_revision(key, CompareOp::Equal, revision.0));
        self
    }

    /// The key was created at this revision; `Revision(0)`: there is no such key.
    pub fn when_created(mut self, key: impl Into<Vec<u8>>, revision: Revision) -> Txn {
        self.when.push(Compare::create_revision(key, CompareOp::Equal, revision.0));
        self
    }

    /// The key hangs on this lease.
    pub fn when_lease(mut self, key: impl Into<Vec<u8>>, lease: LeaseId) -> Txn {
        self.when.push(Compare::lease(key, CompareOp::Equal, lease.0));
        self
    }

    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Txn {
        self.then.push(TxnOp::put(key, value, None));
        self
    }

    /// Puts a key that goes with the lease.
    pub fn put_on(mut self, lease: LeaseId, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Txn {
        self.then.push(TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease.0))));
        self
    }

    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Txn {
        self.then.push(TxnOp::delete(key, None));
        self
    }

    pub(super) fn request(&self) -> etcd_client::Txn {
        etcd_client::Txn::new().when(self.when.clone()).and_then(self.then.clone())
    }
}
