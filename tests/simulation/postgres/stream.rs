//! Streaming replication: a standby's walreceiver connects to where its settings say; the primary's walsender sends what is
//! flushed, and learns what the standby has flushed.

use std::{pin::pin, rc::Rc, time::Duration};

use super::{Follower, Machine, Mode, Rec, Server};
use crate::{
    net::Class,
    runtime::{Micros, Proc},
    world::{HostId, MS, SEC},
};

/// `wal_sender_timeout` and `wal_receiver_timeout`.
const SILENCE: Duration = Duration::from_secs(5);

/// A piece of WAL: the records from `from` on, and the timelines that they are on.
struct Piece {
    session: u64,
    from: usize,
    records: Vec<Rec>,
    timelines: Vec<(u32, usize)>,
    /// The record before `from`, as the source has it.
    before: Option<Rec>,
    source: HostId,
}

impl Machine {
    /// The walreceiver, and who starts it again.
    pub(super) async fn receive(self: Rc<Machine>, server: Rc<Server>) {
        let mut look = pin!(self.world.rt.sleep(2 * SEC));
        loop {
            let mut known = server.moved.version();
            let upstream = self.with_data(|data| data.upstream).flatten();
            match upstream {
                Some(upstream) if server.mode.get() == Mode::Recovery && server.receiving.get().is_none() => {
                    if let Some(session) = self.connect(&server, upstream).await {
                        let still = self.with_data(|data| data.upstream).flatten() == Some(upstream);
                        if still && server.mode.get() == Mode::Recovery {
                            server.receiving.set(Some(session));
                            server.heard.set(self.world.rt.now());
                            server.moved.bump();
                        }
                    } else {
                        self.world.rt.sleep(self.world.within(50 * MS, 200 * MS)).await;
                    }
                }
                _ => {
                    tokio::select! {
                        biased;
                        () = server.moved.changed(&mut known) => {}
                        () = &mut look => look.set(self.world.rt.sleep(2 * SEC)),
                    }
                    let silent = self.world.rt.now() - server.heard.get() > SILENCE.as_micros() as Micros;
                    if silent && server.receiving.take().is_some() {
                        server.moved.bump();
                    }
                }
            }
        }
    }

    /// The session's number when the primary there takes this standby on.
    async fn connect(self: &Rc<Machine>, server: &Rc<Server>, upstream: HostId) -> Option<u64> {
        let there = self.peer(upstream)?;
        let own = self.disk.borrow().data.clone()?;
        let (host, standby, ours) = (self.host, self.clone(), server.clone());
        let asked = self.world.ask(host, upstream, Class::Wal, move |reply| {
            let server = there.primary().filter(|server| server.process.runs() && !server.headless.get());
            let accepted = server.filter(|_| there.with_data(|data| data.serves(&own)).unwrap_or(false));
            reply.send(accepted.map(|sender| {
                let session = there.world.audit.borrow_mut().record();
                let from = own.wal.len();
                let name = own.name.as_str().into();
                sender.followers.borrow_mut().insert(host, Follower { session, name, flushed: from });
                sender.moved.bump();
                let job = there.clone().send(sender.clone(), standby, ours, session, from);
                there.world.rt.spawn(&sender.process, job);
                session
            }));
        });
        self.world.within_time(host, Duration::from_secs(2), asked).await.flatten().flatten()
    }

    /// A walsender.
    async fn send(
        self: Rc<Machine>,
        sender: Rc<Server>,
        to: Rc<Machine>,
        receiver: Rc<Server>,
        session: u64,
        from: usize,
    ) {
        let mut sent = from;
        let mut keepalive = pin!(self.world.rt.sleep(2 * SEC));
        loop {
            let mut known = sender.moved.version();
            let current = sender.followers.borrow().get(&to.host).is_some_and(|follower| follower.session == session);
            if !current || !matches!(sender.mode.get(), Mode::Primary | Mode::Stopping) {
                return self.hang_up(&sender, &to, session);
            }
            let piece = self.with_data(|data| Piece {
                session,
                from: sent,
                records: data.wal.get(sent..).unwrap_or_default().to_vec(),
                timelines: data.timelines.clone(),
                before: data.wal.get(sent.wrapping_sub(1)).copied(),
                source: self.host,
            });
            let Some(piece) = piece else { return };
            let news = !piece.records.is_empty();
            if !news {
                tokio::select! {
                    biased;
                    () = sender.moved.changed(&mut known) => continue,
                    // A keepalive, to see whether the other end is there.
                    () = &mut keepalive => keepalive.set(self.world.rt.sleep(2 * SEC)),
                }
            }
            let end = piece.from + piece.records.len();
            let (there, owner) = (to.clone(), receiver.clone());
            let carried = self.world.ask(self.host, to.host, Class::Wal, move |reply| {
                let process = owner.process.clone();
                let world = there.world.clone();
                world.rt.spawn(&process, async move {
                    let flushed = there.take(&owner, piece).await;
                    reply.send(flushed);
                });
            });
            match self.world.within_time(self.host, SILENCE, carried).await.flatten().flatten() {
                Some(flushed) => {
                    sent = end;
                    if let Some(follower) = sender.followers.borrow_mut().get_mut(&to.host)
                        && follower.session == session
                    {
                        follower.flushed = flushed;
                    }
                    if news {
                        sender.moved.bump();
                    }
                }
                None => return self.hang_up(&sender, &to, session),
            }
        }
    }

    fn hang_up(&self, sender: &Server, to: &Rc<Machine>, session: u64) {
        let ours = sender.followers.borrow().get(&to.host).is_some_and(|follower| follower.session == session);
        if ours {
            sender.followers.borrow_mut().remove(&to.host);
            sender.moved.bump();
        }
        let there = to.clone();
        self.world.carry(self.host, to.host, Class::Wal, move || there.cut(session));
    }

    /// The end of a stream has arrived.
    pub(super) fn cut(&self, session: u64) {
        if let Some(server) = &*self.server.borrow()
            && server.receiving.get() == Some(session)
        {
            server.receiving.set(None);
            server.moved.bump();
        }
    }

    /// A piece arrives: flushed, then acknowledged. `None` when this stream is over.
    async fn take(self: &Rc<Machine>, server: &Rc<Server>, piece: Piece) -> Option<usize> {
        // It may come before the walreceiver knows that it was taken on.
        for _ in 0..20 {
            if server.receiving.get().is_some() {
                break;
            }
            self.world.rt.sleep(MS / 2).await;
        }
        if server.receiving.get() != Some(piece.session) || server.mode.get() != Mode::Recovery {
            return None;
        }
        server.heard.set(self.world.rt.now());
        let own = self.with_data(|data| data.wal.len())?;
        if own < piece.from {
            return None;
        }
        let fresh = piece.records.get(own - piece.from..).unwrap_or_default();
        if !fresh.is_empty() {
            let timelines = piece.timelines.iter().filter(|(_, start)| *start <= own + fresh.len()).copied().collect();
            self.change_data(|data| {
                data.wal.extend_from_slice(fresh);
                data.timelines = timelines;
            });
            self.look_for_mixture(&piece);
        }
        let flushed = own.max(piece.from + piece.records.len());
        self.world.pass(50, 500).await;
        // A walreceiver that was ended meanwhile answers no more.
        (server.receiving.get() == Some(piece.session)).then_some(flushed)
    }

    /// R11: what is followed must go on where this history stands.
    fn look_for_mixture(&self, piece: &Piece) {
        let own = self.with_data(|data| data.wal.get(piece.from.wrapping_sub(1)).copied()).flatten();
        if own != piece.before {
            let (host, source, from) = (self.host, piece.source, piece.from);
            let what = format!("h{host} follows h{source}, but their histories differ before record {from}");
            self.world.say(host, || format!("FOUND: {what}"));
            self.world.audit.borrow_mut().found(self.world.rt.now(), "histories", what);
        }
    }
}

impl Server {
    /// Every connected standby has everything.
    pub(super) async fn drained(&self, machine: &Machine) {
        loop {
            let mut known = self.moved.version();
            let end = machine.with_data(|data| data.wal.len()).unwrap_or(0);
            if self.followers.borrow().values().all(|follower| follower.flushed >= end) {
                return;
            }
            self.moved.changed(&mut known).await;
        }
    }

    pub fn owner(&self) -> &Proc {
        &self.process
    }
}
