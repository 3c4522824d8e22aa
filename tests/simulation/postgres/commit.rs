//! A client's commit: one record, flushed, then kept waiting until the synchronous standbys have it, then acknowledged.

use std::rc::Rc;

use stolon::model::Epoch;

use super::{Machine, Mode, Rec, Server};
use crate::world::{HostId, MS, Reply};

/// A commit that is acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub record: Rec,
    /// Of the server that acknowledged it.
    pub host: HostId,
    pub epoch: Epoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing listens, or the server is starting.
    Refused,
    ReadOnly,
}

impl Machine {
    /// A request of a session arrives; one of an earlier server finds its connection closed.
    pub fn session(self: &Rc<Machine>, number: u64, reply: Reply<Result<Commit, Refusal>>) {
        let same = self.server.borrow().as_ref().is_some_and(|server| server.id.started == number);
        match same {
            true => self.arrive(reply),
            false => reply.send(Err(Refusal::Refused)),
        }
    }

    /// A client's request arrives.
    pub fn arrive(self: &Rc<Machine>, reply: Reply<Result<Commit, Refusal>>) {
        let Some(server) = self.server.borrow().clone().filter(|server| server.process.alive()) else {
            return reply.send(Err(Refusal::Refused));
        };
        if server.mode.get() == Mode::Recovery || server.mode.get() == Mode::Promoting {
            return reply.send(Err(Refusal::ReadOnly));
        }
        if server.mode.get() != Mode::Primary || server.reserved.get() {
            return reply.send(Err(Refusal::Refused));
        }
        let machine = self.clone();
        self.world.rt.spawn(&server.process.clone(), async move {
            // A session that does not come to its end says nothing.
            if let Some(commit) = machine.commit(&server).await {
                reply.send(Ok(commit));
            }
        });
    }

    async fn commit(self: &Rc<Machine>, server: &Rc<Server>) -> Option<Commit> {
        self.world.rt.sleep(self.world.within(MS / 5, 2 * MS)).await;
        if server.mode.get() != Mode::Primary {
            return None;
        }
        let record = self.world.audit.borrow_mut().record();
        let mut end = 0;
        self.change_data(|data| {
            data.wal.push(record);
            end = data.wal.len();
        });
        self.wait_for_standbys(server, end).await?;
        let epoch = server.epoch.get();
        Some(Commit { record, host: self.host, epoch })
    }

    /// Until every name that was published has flushed this far; names that nobody has wait for ever.
    async fn wait_for_standbys(&self, server: &Rc<Server>, end: usize) -> Option<()> {
        // A backend looks once whether it has to wait at all (L5).
        if server.published.borrow().is_empty() {
            return Some(());
        }
        loop {
            let mut known = server.moved.version();
            if server.mode.get() != Mode::Primary {
                return None;
            }
            let names = self.with_data(|data| data.synchronous.clone()).unwrap_or_default();
            let flushed = |name: &String| {
                server.followers.borrow().iter().any(|(host, follower)| {
                    let named = self.peer(*host).and_then(|peer| peer.with_data(|data| data.name == *name));
                    named.unwrap_or(false) && follower.flushed >= end
                })
            };
            if names.iter().all(flushed) {
                return Some(());
            }
            server.moved.changed(&mut known).await;
        }
    }
}

impl Server {
    /// SIGHUP: walsenders and backends read the names at once, the checkpointer publishes them a little later (L5).
    pub fn reload(self: &Rc<Server>, machine: &Rc<Machine>) {
        self.moved.bump();
        let (server, there) = (self.clone(), machine.clone());
        let delay = machine.world.within(MS, 300 * MS);
        machine.world.rt.call_in(delay, move || {
            if server.process.alive() {
                *server.published.borrow_mut() = there.with_data(|data| data.synchronous.clone()).unwrap_or_default();
                server.moved.bump();
            }
        });
    }
}
