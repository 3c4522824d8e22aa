//! How servers begin and end: start, crash, fast stop, kill, promotion, rewind, base backup.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use stolon::model::{Epoch, Lsn};
use stolon_keeper::pg::ProcessId;

use super::{Data, Machine, Mode, Server};
use crate::{
    net::Class,
    runtime::Signal,
    world::{HostId, MS},
};

impl Machine {
    /// Starts a server on the data; the caller waits until it is ready. Nothing happens without data, or beside another.
    pub fn start(self: &Rc<Machine>, epoch: Epoch) -> Option<Rc<Server>> {
        if self.disk.borrow().data.as_ref().is_none_or(|data| data.incomplete)
            || self.server.borrow().as_ref().is_some_and(|server| server.process.alive())
        {
            return None;
        }
        self.starts.set(self.starts.get() + 1);
        let started = self.starts.get();
        let pid = u32::try_from(1000 + started).unwrap_or(1);
        let server = Rc::new(Server {
            id: ProcessId { pid, started },
            process: self.world.process(self.host, "postgres"),
            mode: Cell::new(Mode::Starting),
            epoch: Cell::new(epoch),
            headless: Cell::new(false),
            receiving: Cell::new(None),
            heard: Cell::new(0),
            followers: RefCell::default(),
            moved: Signal::default(),
            names: RefCell::new(self.with_data(|data| data.synchronous.clone()).unwrap_or_default()),
            published: Cell::new(false),
            reserved: Cell::new(self.with_data(|data| data.restricted).unwrap_or(false)),
            uncovered: Cell::new(0),
        });
        *self.server.borrow_mut() = Some(server.clone());
        self.world.rt.spawn(&server.process, self.clone().boot(server.clone()));
        server.publish_in(&self.world, self.world.within(MS, 60 * MS));
        self.changed.bump();
        Some(server)
    }

    async fn boot(self: Rc<Machine>, server: Rc<Server>) {
        let (standby, clean) = self.with_data(|data| (data.standby, data.clean)).unwrap_or((true, true));
        self.change_data(|data| data.clean = false);
        self.world.rt.sleep(self.world.within(30 * MS, if clean { 100 } else { 300 } * MS)).await;
        if standby {
            server.mode.set(Mode::Recovery);
            self.world.rt.spawn(&server.process, self.clone().receive(server.clone()));
        } else {
            // Crash recovery ends with a checkpoint.
            let record = self.world.audit.borrow_mut().record();
            server.uncovered.set(self.with_data(|data| data.wal.len()).unwrap_or(0));
            self.change_data(|data| {
                data.wal.push(record);
                data.checkpoint = data.wal.len() - 1;
            });
            server.mode.set(Mode::Primary);
        }
        self.changed.bump();
        server.moved.bump();
    }

    /// Waits until it has started, or ended.
    pub async fn started(&self, server: &Rc<Server>) -> bool {
        loop {
            let mut known = self.changed.version();
            if !server.process.alive() || server.headless.get() {
                return false;
            }
            if server.mode.get() != Mode::Starting {
                return true;
            }
            self.changed.changed(&mut known).await;
        }
    }

    /// SIGKILL to all of it, now.
    pub fn kill(&self) {
        let server = self.server.borrow_mut().take();
        if let Some(server) = server {
            self.world.rt.kill(&server.process);
            // The kernel ends the connections of its walsenders.
            for (host, follower) in std::mem::take(&mut *server.followers.borrow_mut()) {
                if let Some(there) = self.peer(host) {
                    self.world.carry(self.host, host, Class::Wal, move || there.cut(follower.session));
                }
            }
            server.moved.bump();
            self.changed.bump();
        }
    }

    /// SIGKILL to the postmaster alone: its sessions go on until they notice.
    pub fn behead(self: &Rc<Machine>) {
        let Some(server) = self.server.borrow().clone() else { return };
        server.headless.set(true);
        self.changed.bump();
        let (machine, life) = (self.clone(), self.world.within(2 * MS, 100 * MS));
        self.world.rt.call_in(life, move || {
            let same = machine.server.borrow().as_ref().is_some_and(|now| now.id == server.id);
            if same {
                machine.kill();
            }
        });
    }

    /// True when it ended in good order within the limit; killed else.
    pub async fn fast_stop(self: &Rc<Machine>, limit: Duration) -> bool {
        self.stop_for_handover(limit, limit).await
    }

    /// As `fast_stop`; standbys that have not fetched the shutdown checkpoint within `grace` are waited for no longer.
    pub async fn stop_for_handover(self: &Rc<Machine>, limit: Duration, grace: Duration) -> bool {
        let Some(server) = self.running() else { return false };
        let primary = server.mode.get() == Mode::Primary;
        let promoting = matches!(server.mode.get(), Mode::Promoting | Mode::Starting);
        server.mode.set(Mode::Stopping);
        server.receiving.set(None);
        self.changed.bump();
        server.moved.bump();
        let work = async {
            self.world.pass(10 * MS, 40 * MS).await;
            if !server.process.runs() || promoting {
                return false;
            }
            if primary {
                let record = self.world.audit.borrow_mut().record();
                self.change_data(|data| {
                    data.wal.push(record);
                    data.checkpoint = data.wal.len() - 1;
                    data.clean = true;
                });
                let _late = self.world.within_time(self.host, grace, server.drained(self)).await;
            }
            true
        };
        let clean = self.world.within_time(self.host, limit, work).await.unwrap_or(false);
        let ours = self.server.borrow().as_ref().is_some_and(|now| now.id == server.id);
        if ours {
            self.change_data(|data| data.clean |= clean);
            self.kill();
        }
        clean
    }

    /// Asks for a promotion, which can't be taken back. The timeline and where it left its parent, when it is done.
    pub async fn promote(self: &Rc<Machine>, server: &Rc<Server>) -> Option<(u32, Lsn)> {
        server.mode.set(Mode::Promoting);
        server.receiving.set(None);
        server.moved.bump();
        self.world.rt.spawn(&server.process, self.clone().become_primary(server.clone()));
        loop {
            let mut known = self.changed.version();
            if !server.process.alive() || server.headless.get() {
                return None;
            }
            if server.mode.get() == Mode::Primary {
                return self.with_data(|data| (data.timeline(), data.switch()));
            }
            self.changed.changed(&mut known).await;
        }
    }

    async fn become_primary(self: Rc<Machine>, server: Rc<Server>) {
        self.world.pass(30 * MS, 120 * MS).await;
        if server.mode.get() != Mode::Promoting {
            return;
        }
        let record = self.world.audit.borrow_mut().record();
        self.change_data(|data| {
            let next = data.timelines.iter().map(|(timeline, _)| *timeline).max().unwrap_or(1) + 1;
            data.timelines.push((next, data.wal.len()));
            data.wal.push(record);
            data.checkpoint = data.wal.len() - 1;
            data.standby = false;
        });
        server.mode.set(Mode::Primary);
        self.changed.bump();
        server.moved.bump();
    }

    /// A copy of the source's data, taken from a running primary; what was here is replaced when it is complete.
    pub async fn base_backup(self: &Rc<Machine>, from: HostId) -> bool {
        let began = self.world.rt.now();
        let length = self.world.within(200 * MS, 1500 * MS);
        while self.world.rt.now() - began < length {
            if self.source(from).await.is_none() {
                return false;
            }
            self.world.rt.sleep(100 * MS).await;
        }
        let Some(mut copy) = self.source(from).await else { return false };
        (copy.standby, copy.clean, copy.incomplete) = (true, false, false);
        (copy.upstream, copy.synchronous, copy.restricted) = (None, Vec::new(), false);
        self.disk.borrow_mut().data = Some(copy);
        true
    }

    /// What a primary on that host holds now, as somebody sees it who asks over the network.
    pub async fn source(self: &Rc<Machine>, from: HostId) -> Option<Data> {
        let there = self.peer(from)?;
        let read = self.world.ask(self.host, from, Class::Wal, move |reply| {
            let serves = there.primary().filter(|server| server.process.runs()).is_some();
            reply.send(there.disk.borrow().data.clone().filter(|_| serves));
        });
        self.world.within_time(self.host, Duration::from_secs(2), read).await.flatten().flatten()
    }

    /// Throws away what the source never had. `None`: it failed, and the data may be unusable.
    pub async fn rewind(self: &Rc<Machine>, from: HostId) -> Option<()> {
        let source = self.source(from).await?;
        // Looks at timelines by number: blind to two promotions that made the same one.
        let own = self.with_data(Data::timeline)?;
        if own == source.timeline() {
            self.change_data(|data| (data.standby, data.upstream) = (true, None));
            return Some(());
        }
        self.world.pass(50 * MS, 300 * MS).await;
        self.change_data(|data| data.incomplete = true);
        self.world.pass(50 * MS, 400 * MS).await;
        let mut copy = self.source(from).await?;
        (copy.standby, copy.clean, copy.incomplete, copy.upstream) = (true, false, false, None);
        (copy.synchronous, copy.restricted) = (Vec::new(), false);
        self.disk.borrow_mut().data = Some(copy);
        Some(())
    }
}
