//! A client's commit: one record, flushed, then kept waiting until the synchronous standbys have it, then acknowledged.

use std::rc::Rc;

use stolon::model::Epoch;

use super::{Machine, Mode, Rec, Server};
use crate::{
    audit::Shown,
    runtime::Micros,
    world::{HostId, MS, Reply, SEC, W},
};

/// A commit that is acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub record: Rec,
    /// Of the server that acknowledged it.
    pub host: HostId,
    pub epoch: Epoch,
    /// Every name of a list had flushed it.
    pub waited: bool,
    /// When it was acknowledged there.
    pub at: Micros,
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
        self.shows(&server);
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
        let waited = self.wait_for_standbys(server, end).await?;
        let epoch = server.epoch.get();
        crate::invariants::enough::released(&self.world, self, end - 1, record);
        Some(Commit { record, host: self.host, epoch, waited, at: self.world.rt.now() })
    }

    /// A client is let in: what the start of the server uncovered, it may have read.
    fn shows(&self, server: &Server) {
        let records = server.uncovered.take();
        if let Some(last) = records.checked_sub(1)
            && let Some(record) = self.with_data(|data| data.wal.get(last).copied()).flatten()
        {
            let at = self.world.rt.now();
            self.world.audit.borrow_mut().shown.push(Shown { at, host: self.host, epoch: server.epoch.get(), record });
        }
    }

    /// Until every name of the list has flushed this far; names that nobody has wait for ever. False when it ended without:
    /// backends did not wait, or were told not to any more.
    async fn wait_for_standbys(&self, server: &Rc<Server>, end: usize) -> Option<bool> {
        loop {
            let mut known = server.moved.version();
            if server.mode.get() != Mode::Primary {
                return None;
            }
            if !server.published.get() {
                return Some(false);
            }
            if server.releases(end) {
                return Some(true);
            }
            server.moved.changed(&mut known).await;
        }
    }
}

impl Server {
    /// SIGHUP: walsenders and new sessions read the settings at once, the checkpointer publishes them a little later (L5).
    pub fn reload(self: &Rc<Server>, machine: &Rc<Machine>) {
        let (names, restricted) =
            machine.with_data(|data| (data.synchronous.clone(), data.restricted)).unwrap_or_default();
        *self.names.borrow_mut() = names;
        self.reserved.set(restricted);
        self.moved.bump();
        // It may be busy with the last file of a checkpoint.
        let busy = machine.world.percent(15);
        let delay = if busy { machine.world.within(300 * MS, 3 * SEC) } else { machine.world.within(MS, 300 * MS) };
        self.publish_in(&machine.world, delay);
    }

    /// The checkpointer reads the settings then.
    pub(super) fn publish_in(self: &Rc<Server>, world: &W, delay: Micros) {
        let (server, there) = (self.clone(), world.clone());
        world.rt.call_in(delay, move || {
            if server.process.alive() {
                server.published.set(!server.names.borrow().is_empty());
                if server.published.get() && server.mode.get() == Mode::Primary {
                    let now = there.rt.now();
                    there.audit.borrow_mut().first_list.get_or_insert(now);
                }
                server.moved.bump();
            }
        });
    }

    /// All names of the list in force have flushed this far. A list without names releases nobody: the checkpointer does.
    fn releases(&self, end: usize) -> bool {
        let (names, followers) = (self.names.borrow(), self.followers.borrow());
        let flushed = |name: &String| followers.values().any(|f| *f.name == **name && f.flushed >= end);
        !names.is_empty() && names.iter().all(flushed)
    }
}
