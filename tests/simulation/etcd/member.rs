//! Watches: what one member tells a client of what it has applied, in order, coalesced as it goes, never ahead of itself.

use std::{cell::Cell, rc::Rc, sync::Arc};

use stolon::store::Mirror;

use super::Etcd;
use crate::{
    net::Class,
    runtime::{Signal, answer},
    world::{HostId, MS, SEC},
};

/// What a watch brings.
pub enum News {
    Mirror(Arc<Mirror>),
    /// Ended by the member, or the connection broke.
    Broken,
    /// What comes next has been forgotten, or the member has not even reached it: all must be read anew.
    Compacted,
}

/// An open watch, seen by its client: what it was told last.
pub struct Watch {
    from: Cell<i64>,
    pub member: HostId,
    /// How often the store had been replaced when this was opened.
    lives: u64,
}

impl Watch {
    pub fn new(member: HostId, from: i64, lives: u64) -> Watch {
        Watch { from: Cell::new(from), member, lives }
    }
}

impl Etcd {
    /// The next thing that a watch says to a client on a host. Ends with the caller.
    pub async fn watch(self: &Rc<Etcd>, client: HostId, watch: &Watch) -> News {
        let host = watch.member;
        let member = &self.members[host];
        let advanced: Signal = member.advanced.clone();
        let mut broken: u32 = 0;
        if self.runs(host) && member.applied.get() < watch.from.get() {
            self.world.rt.sleep(MS).await;
            return News::Compacted;
        }
        loop {
            let mut known = advanced.version();
            if !member.process.borrow().alive() || !self.world.hosts[host].powered.get() {
                // A host that is gone says nothing; its clients give up by themselves.
                let gone = !self.world.hosts[host].powered.get();
                self.world.rt.sleep(if gone { 2 * SEC } else { MS }).await;
                return News::Broken;
            }
            if self.leaderless(host) || self.lives.get() != watch.lives {
                return News::Broken;
            }
            let net = &self.world.net;
            let through = net.open(host, client, Class::Etcd) && net.open(client, host, Class::Etcd);
            if !through || !self.runs(host) {
                broken += 1;
                if broken > 12 {
                    return News::Broken;
                }
                self.world.rt.sleep(250 * MS).await;
                continue;
            }
            broken = 0;
            let applied = member.applied.get();
            if applied > watch.from.get() {
                if watch.from.get() < self.state.borrow().compacted {
                    return News::Compacted;
                }
                let mirror = self.state.borrow().at(applied.min(self.state.borrow().revision));
                let (question, answer) = answer();
                self.world.carry(host, client, Class::Etcd, move || question.answer(mirror));
                match answer.await {
                    Some(mirror) => {
                        watch.from.set(mirror.revision.0);
                        return News::Mirror(mirror);
                    }
                    None => return News::Broken,
                }
            }
            tokio::select! {
                biased;
                () = advanced.changed(&mut known) => {}
                () = self.world.rt.sleep(SEC) => {}
            }
        }
    }
}
