//! A keeper's process: the real plan, authority, state and reports, in a shell that does what `keeper/*.rs` does, step by
//! step and in the same order. Between any two awaits the process may be killed, paused, or come late.

mod claims;
mod converge;
mod copies;
mod senses;
mod steps;
mod synchronous;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stolon::{
    model::{ClusterData, KeeperUid, LeaseId, Lsn, Moment, Revision, WalPosition, view::KeeperView},
    store::Begin,
};
use stolon_keeper::{
    journal::Folder,
    pg::ProcessId,
    plan::{Data, Leaving},
    report::{self, Fixed},
    state::{Phase, Run, State},
    synchronous::Synchronous,
};

use crate::{
    etcd::Etcd,
    guard::Guard,
    postgres::{Machine, Mode, Server},
    registration::Registration,
    runtime::{Proc, Signal},
    store::Store,
    streams::{Peer, Report},
    world::{HostId, MS, W},
};

const INHERIT: Duration = Duration::from_secs(2);
const REVOKE: Duration = Duration::from_secs(1);
const HAND_OVER: Duration = Duration::from_secs(5);
const DEVICE: u64 = 1;

pub struct Keeper {
    pub world: W,
    pub host: HostId,
    pub uid: KeeperUid,
    pub process: Proc,
    pub machine: Rc<Machine>,
    pub guard: Rc<Guard>,
    pub store: Store,
    pub registration: RefCell<Option<Registration>>,
    pub state: RefCell<State>,
    pub fixed: Fixed,
    turn: Signal,
    fence: Signal,
    authority: Signal,
    /// A heartbeat is wanted at once.
    pub urge: Signal,
    /// What a dead postmaster left behind is being killed.
    remains: Cell<bool>,
    advances: Cell<(usize, u64)>,
}

pub fn uid(host: HostId) -> KeeperUid {
    KeeperUid::parse(format!("k{host}")).expect("a valid name")
}

/// The host of a keeper, by its name.
pub fn host_of(uid: &KeeperUid) -> HostId {
    uid.as_str()[1..].parse().unwrap_or(0)
}

impl Keeper {
    /// Starts the process; what it does first takes its time.
    pub fn start(etcd: &Rc<Etcd>, machine: &Rc<Machine>, guard: &Rc<Guard>) -> Rc<Keeper> {
        let (world, host) = (machine.world.clone(), machine.host);
        let process = world.process(host, "keeper");
        let store = Store::open(etcd, host, &process);
        let boot = world.rng.borrow_mut().next();
        let fixed = Fixed {
            boot_uuid: format!("{boot:016x}"),
            version: Default::default(),
            can_be_master: true,
            can_be_synchronous_replica: true,
            pg_address: (Machine::address(host), 5432),
            grpc_address: format!("{}:5431", Machine::address(host)),
            open_to_all: false,
        };
        let disk = machine.disk.borrow();
        let now = world.clock(host);
        let mut state = State::new(uid(host), disk.keeper.clone(), disk.db.clone(), disk.journal.clone(), now);
        state.folder = Some(Folder { device: DEVICE, inode: disk.inode });
        drop(disk);
        let keeper = Rc::new(Keeper {
            uid: uid(host),
            machine: machine.clone(),
            guard: guard.clone(),
            store,
            registration: RefCell::default(),
            state: RefCell::new(state),
            fixed,
            turn: Signal::default(),
            fence: Signal::default(),
            authority: Signal::default(),
            urge: Signal::default(),
            remains: Cell::new(false),
            advances: Cell::default(),
            world: world.clone(),
            host,
            process: process.clone(),
        });
        world.rt.spawn(&process, keeper.clone().begin());
        keeper
    }

    /// The lease of its registration; none while there is none.
    pub fn registration_lease(&self) -> LeaseId {
        let registration = self.registration.borrow();
        registration.as_ref().and_then(Registration::lease).map_or(LeaseId::NONE, |lease| lease.id)
    }

    pub fn now(&self) -> Moment {
        self.world.clock(self.host)
    }

    /// As the shell's `Shared::look`.
    pub fn look<T>(&self, read: impl FnOnce(&State, Moment) -> T) -> T {
        read(&self.state.borrow(), self.now())
    }

    /// As `Shared::change`.
    pub fn change<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let outcome = self.note(change);
        self.turn.bump();
        self.fence.bump();
        self.authority.bump();
        outcome
    }

    /// As `Shared::note`.
    pub fn note<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let now = self.now();
        let mut state = self.state.borrow_mut();
        let State { authority, lease, .. } = &mut *state;
        authority.lapse(now, lease.as_ref());
        let held = state.grant(now).map(|grant| grant.epoch);
        let outcome = change(&mut state, now);
        if state.grant(now).map(|grant| grant.epoch) != held {
            state.authority_since = now;
        }
        outcome
    }

    /// The server that runs, as far as this keeper has seen it through.
    pub(crate) fn server(&self) -> Option<Rc<Server>> {
        let id = self.look(|state, _| state.run.id)?;
        self.machine.server.borrow().clone().filter(|server| server.id == id && server.process.alive())
    }

    async fn begin(self: Rc<Keeper>) {
        self.world.pass(5 * MS, 40 * MS).await;
        let begin = self.inherit().await;
        self.look_at_control();
        let value = self.look(|state, _| serde_json::to_vec(&report::info(state, &self.fixed)).unwrap_or_default());
        let key = self.store.keys().keeper(&self.uid);
        let registration = Registration::start(&self.world, self.host, &self.process, &self.store, key, value, begin);
        *self.registration.borrow_mut() = Some(registration.clone());
        let rt = &self.world.rt;
        rt.spawn(&self.process, self.clone().feel_mirror());
        rt.spawn(&self.process, self.clone().feel_lease(registration.clone()));
        rt.spawn(&self.process, self.clone().feel_exits());
        rt.spawn(&self.process, self.clone().feel_adopted());
        rt.spawn(&self.process, self.clone().keep_deadline());
        rt.spawn(&self.process, self.clone().read_authority());
        rt.spawn(&self.process, self.clone().sample());
        rt.spawn(&self.process, self.clone().probe());
        rt.spawn(&self.process, self.clone().prove_list());
        self.clone().converge(registration).await;
    }

    /// What runs on this directory already (R1).
    async fn inherit(&self) -> Begin {
        let writer = self.look(|state, _| state.journal.writer.clone());
        let (boot, inode) = (self.boot(), self.machine.disk.borrow().inode);
        let writer = writer.filter(|writer| writer.boot == boot && writer.inode == inode);
        let Some(server) = self.machine.running() else {
            self.machine.kill();
            if let Some(writer) = writer {
                let _ = self.world.within_time(self.host, REVOKE, self.store.revoke(writer.lease)).await;
            }
            return Begin::Anew;
        };
        let phase = self.adopted_phase(&server);
        let id = server.id;
        self.world.say(self.host, || format!("keeper: adopts the running server as {phase:?}"));
        self.world.count("servers adopted");
        let same = |of: stolon_keeper::journal::PostmasterId| (of.pid, of.started) == (id.pid, id.started);
        let lease = writer.filter(|writer| writer.postmaster.is_some_and(same)).map(|writer| writer.lease);
        let restricted = self.machine.with_data(|data| data.restricted).unwrap_or(false);
        self.change(|state, now| {
            if phase.may_serve() {
                state.inherits_until = Some(now + INHERIT);
            }
            state.run = Run { phase, id: Some(id), since: now, asked: false, crash: None };
            state.synchronous = Synchronous::started(Vec::new(), restricted);
        });
        lease.map_or(Begin::Anew, Begin::Adopt)
    }

    fn adopted_phase(&self, server: &Server) -> Phase {
        let standby = self.machine.with_data(|data| data.standby).unwrap_or(false);
        match (server.mode.get(), standby) {
            (Mode::Starting, false) => Phase::StartingPrimary,
            (Mode::Starting, true) => Phase::StartingStandby,
            (Mode::Recovery | Mode::Promoting, _) => Phase::Standby,
            (Mode::Primary | Mode::Stopping, _) => Phase::Primary,
        }
    }

    fn boot(&self) -> String {
        self.world.hosts[self.host].boot.get().to_string()
    }

    /// What the directory holds now, by its files.
    fn look_at_data(&self) {
        let found = {
            let disk = self.machine.disk.borrow();
            match &disk.data {
                None => Data::Absent,
                Some(_) if self.look(|state, _| state.db.initializing) => Data::Incomplete,
                Some(data) if data.incomplete => Data::Incomplete,
                Some(data) if data.standby => Data::Standby,
                Some(_) => Data::Primary,
            }
        };
        self.note(|state, _| state.data = found);
    }

    fn look_at_control(&self) {
        self.look_at_data();
        if let Some((system, position)) = self.machine.with_data(|data| (data.system_id, data.known_position())) {
            self.change(|state, _| (state.system_id, state.stopped_at) = (system, Some(position)));
        }
        self.note_the_end();
    }

    /// The end of WAL after a stop in good order.
    fn note_the_end(&self) {
        self.look_at_data();
        let end = self.machine.with_data(|data| data.clean.then(|| data.known_position())).flatten();
        self.change(|state, _| {
            state.stopped_clean = end.is_some();
            if let Some(end) = end {
                state.stopped_at = Some(WalPosition { lsn: Lsn(end.lsn.0 + 1), ..end });
            }
        });
    }

    /// SIGTERM.
    pub fn leave(&self) {
        self.change(|state, now| {
            state.leaving = match state.leaving {
                Leaving::No => Leaving::HandOver { until: now + HAND_OVER },
                Leaving::HandOver { .. } => Leaving::HandOver { until: now },
            };
        });
        self.urge.bump();
    }

    /// The server's end is known.
    fn ended(&self, id: ProcessId) -> bool {
        let news = self.change(|state, now| state.ended(id, now));
        if news {
            self.urge.bump();
        }
        news
    }
}

impl Peer for Keeper {
    fn world(&self) -> &W {
        &self.world
    }
    fn host(&self) -> HostId {
        self.host
    }
    fn process(&self) -> &Proc {
        &self.process
    }
    fn store(&self) -> &Store {
        &self.store
    }
    fn name(&self) -> String {
        self.uid.to_string()
    }
    fn lease(&self) -> LeaseId {
        self.registration_lease()
    }
    fn report(&self) -> Report {
        Report::Keeper(Box::new(self.look(report::heartbeat)))
    }
    /// A view by a sentinel's stream: at once, and never older than what is known (R5).
    fn view(&self, data: &Arc<ClusterData>, revision: Revision) {
        if self.look(|state, _| state.view_revision()) < revision
            && let Ok(view) = KeeperView::derive(data, revision, &self.uid)
        {
            self.change(|state, _| state.offer(view));
        }
    }
    fn urge(&self) -> Signal {
        self.urge.clone()
    }
}
