//! The plan's steps, as `keeper/steps/*.rs` do them: what others rely on is on disk before it is told (R25).

use std::{rc::Rc, time::Duration};

use stolon::model::{
    DbUid, Epoch, Generation,
    registration::Recruit,
    view::{Assignment, KeeperView, Role, Upstream},
};
use stolon_keeper::{
    journal::{Branch, DbState, Folder, Journal},
    plan::Step,
    state::{Phase, Run},
    synchronous::Synchronous,
};

use super::{
    DEVICE, Keeper,
    converge::{Done, Problem},
};
use crate::{
    postgres::{Data, Mode, Server},
    rules::Rule,
    world::MS,
};

const STOP: Duration = Duration::from_secs(60);
const STOP_PLANNED: Duration = Duration::from_secs(10);
const LAST_FETCH: Duration = Duration::from_secs(2);

impl Keeper {
    pub(super) async fn run(self: Rc<Keeper>, step: Step) -> Done {
        match step {
            Step::Wait | Step::Exit => Ok(()),
            Step::Kill => self.kill().await,
            Step::Stop => self.stop().await,
            Step::GiveUp { epoch, planned } => self.give_up(epoch, planned).await,
            Step::Recruit { epoch } => self.recruit(epoch).await,
            Step::Create { db, .. } => self.create(&db).await,
            Step::TakeOver { .. } => Err(Problem::NotNow("not simulated")),
            Step::StartPrimary { epoch } => self.start_primary(epoch).await,
            Step::StartStandby { upstream } => self.start_standby(upstream.as_ref()).await,
            Step::Promote { epoch } => self.promote(epoch).await,
            Step::AdoptEpoch { epoch } => self.adopt_epoch(epoch).await,
            Step::Announce { epoch } => self.announce(epoch).await,
            Step::PutBack { epoch } => self.put_back(epoch).await,
            Step::Follow { upstream } => self.follow(&upstream).await,
            Step::Resync { db, upstream, method } => self.resync(&db, &upstream, method).await,
            Step::Apply { db, generation } => self.apply(&db, generation).await,
            Step::Prepare { epoch } => self.prepare(epoch).await,
            Step::Admit => self.admit().await,
        }
    }

    /// On disk when this returns, in memory only then.
    pub(super) async fn journal(&self, change: impl FnOnce(&mut Journal)) {
        self.world.pass(MS / 2, 3 * MS).await;
        let mut next = self.look(|state, _| state.journal.clone());
        change(&mut next);
        if self.world.lacks(Rule::Told) {
            self.change(|state, _| state.journal = next.clone());
            self.urge.bump();
            self.world.pass(20 * MS, 400 * MS).await;
        }
        let mut disk = self.machine.disk.borrow_mut();
        let old = std::mem::replace(&mut disk.journal, next.clone());
        if self.world.lacks(Rule::Promise) {
            (disk.journal.promised, disk.journal.recruit) = (old.promised, old.recruit);
        }
        drop(disk);
        self.world.audit.borrow_mut().promised(self.world.rt.now(), self.host, next.promised);
        self.change(|state, _| state.journal = next);
    }

    pub(super) async fn db_state(&self, change: impl FnOnce(&mut DbState)) {
        self.world.pass(MS / 2, 3 * MS).await;
        let mut next = self.look(|state, _| state.db.clone());
        change(&mut next);
        self.machine.disk.borrow_mut().db = next.clone();
        self.change(|state, _| state.db = next);
    }

    pub(super) async fn join_cluster(&self) -> Done {
        let view = self.present_view()?;
        let mut next = self.look(|state, _| state.keeper.clone());
        if next.cluster_uid.as_ref() != Some(&view.cluster_uid) {
            self.world.pass(MS / 2, 3 * MS).await;
            next.cluster_uid = Some(view.cluster_uid);
            self.machine.disk.borrow_mut().keeper = next.clone();
            self.change(|state, _| state.keeper = next);
        }
        Ok(())
    }

    pub(super) fn present_view(&self) -> Result<KeeperView, Problem> {
        self.look(|state, _| state.view.clone()).ok_or(Problem::NotNow("there are no cluster data"))
    }

    pub(super) fn assignment(&self) -> Result<Assignment, Problem> {
        self.present_view()?.assignment.ok_or(Problem::NotNow("no db is assigned"))
    }

    pub(super) fn granted(&self, epoch: Epoch) -> Done {
        match self.look(|state, now| state.grant(now).map(|grant| grant.epoch)) {
            Some(held) if held == epoch => Ok(()),
            _ => Err(Problem::NotNow("no authority any more")),
        }
    }

    /// Where this data is primary, and in which epoch.
    pub(super) fn reign(&self, journal: &mut Journal, epoch: Epoch) {
        let inode = self.machine.disk.borrow().inode;
        (journal.primary_epoch, journal.primary_place) = (epoch, Some(Folder { device: DEVICE, inode }));
    }

    /// The checkpoint before a handover.
    async fn prepare(&self, epoch: Epoch) -> Done {
        self.world.pass(5 * MS, 80 * MS).await;
        self.change(|state, _| state.prepared = epoch);
        Ok(())
    }

    fn asked(&self) {
        self.change(|state, _| state.run.asked = true);
    }

    async fn kill(&self) -> Done {
        self.asked();
        if let Some(server) = self.server() {
            self.kill_server(&server).await;
        }
        self.bury();
        self.look_at_data();
        Ok(())
    }

    /// A server that has ended by itself, before its end was noticed.
    fn bury(&self) {
        if let (Some(id), None) = (self.look(|state, _| state.run.id), self.server()) {
            self.ended(id);
        }
    }

    async fn kill_server(&self, server: &Rc<Server>) {
        self.world.pass(3 * MS, 8 * MS).await;
        let same = self.machine.server.borrow().as_ref().is_some_and(|now| now.id == server.id);
        if same {
            self.machine.kill();
        }
        self.ended(server.id);
    }

    pub(super) async fn stop(&self) -> Done {
        self.asked();
        if let Some(server) = self.server() {
            self.machine.fast_stop(STOP).await;
            self.ended(server.id);
        }
        self.bury();
        self.look_at_control();
        Ok(())
    }

    async fn give_up(&self, epoch: Epoch, planned: bool) -> Done {
        match (planned, self.server()) {
            (true, Some(server)) => {
                // The CHECKPOINT before.
                self.world.pass(10 * MS, 60 * MS).await;
                self.asked();
                self.machine.stop_for_handover(STOP_PLANNED, LAST_FETCH).await;
                self.ended(server.id);
            }
            (_, Some(server)) => {
                self.asked();
                self.kill_server(&server).await;
                self.look_at_data();
            }
            (_, None) => self.machine.kill(),
        }
        self.bury();
        self.note_the_end();
        self.journal(|journal| {
            journal.promised = journal.promised.max(epoch);
            journal.recruit = None;
        })
        .await;
        self.world.count("epochs given up");
        self.urge.bump();
        Ok(())
    }

    async fn recruit(&self, epoch: Epoch) -> Done {
        let server = self.server().ok_or(Problem::NotNow("PostgreSQL does not run"))?;
        let stays = self.world.lacks(Rule::Recruit);
        if !stays && self.write_conf(true, None)? {
            server.reload(&self.machine);
        }
        self.change(|state, _| state.following = None);
        self.world.pass(2 * MS, 20 * MS).await;
        if server.mode.get() != Mode::Recovery || !server.process.alive() {
            return Err(Problem::Failed("the server is not in recovery".into()));
        }
        if !stays {
            server.receiving.set(None);
        }
        self.world.pass(2 * MS, 40 * MS).await;
        let position = self.machine.with_data(Data::position).ok_or(Problem::NotNow("no data"))?;
        self.journal(|journal| {
            journal.promised = journal.promised.max(epoch);
            journal.recruit = Some(Recruit { epoch: epoch.next(), position });
        })
        .await;
        self.world.count("recruits");
        self.urge.bump();
        Ok(())
    }

    async fn create(&self, db: &DbUid) -> Done {
        self.join_cluster().await?;
        self.db_state(|state| *state = DbState { uid: Some(db.clone()), initializing: true, ..DbState::default() })
            .await;
        self.copying(true);
        self.world.pass(100 * MS, 500 * MS).await;
        let system = self.world.audit.borrow_mut().system();
        let first = self.world.audit.borrow_mut().record();
        self.machine.disk.borrow_mut().data = Some(Data::create(system, first));
        self.copying(false);
        self.journal(|journal| (journal.branch, journal.recruit) = (None, None)).await;
        self.db_state(|state| *state = DbState { uid: Some(db.clone()), ..DbState::default() }).await;
        let parameters = [("max_connections".to_owned(), "100".to_owned())].into();
        self.change(|state, _| state.parameters = parameters);
        self.look_at_control();
        self.write_conf(false, None)?;
        self.look_at_data();
        Ok(())
    }

    pub(super) fn copying(&self, runs: bool) {
        self.change(|state, _| state.copying = runs);
        self.urge.bump();
    }

    async fn remains_gone(&self) {
        while self.remains.get() {
            self.world.rt.sleep(MS).await;
        }
    }

    async fn start_primary(&self, epoch: Epoch) -> Done {
        self.journal(|journal| {
            self.reign(journal, epoch);
            journal.recruit = None;
        })
        .await;
        let synchronous = self.restart_list()?;
        self.note(|state, _| state.synchronous = synchronous.clone());
        self.write_names(false, None, synchronous.names())?;
        self.remains_gone().await;
        self.world.pass(20, 500).await;
        self.granted(epoch)?;
        let server = self.spawn(Phase::StartingPrimary, epoch)?;
        self.world.audit.borrow_mut().reigns(self.world.rt.now(), self.host, epoch);
        if !self.machine.started(&server).await {
            return Err(Problem::Failed("PostgreSQL did not start".into()));
        }
        self.granted(epoch)?;
        self.change(|state, _| state.run.phase = Phase::Primary);
        self.sample_now();
        Ok(())
    }

    async fn start_standby(&self, upstream: Option<&Upstream>) -> Done {
        let upstream = upstream.filter(|upstream| upstream.address.is_some());
        self.note(|state, _| state.synchronous = Synchronous::default());
        self.write_conf(true, upstream)?;
        if let Some(upstream) = upstream {
            self.on_branch_of(upstream).await?;
        }
        self.remains_gone().await;
        let server = self.spawn(Phase::StartingStandby, Epoch::NONE)?;
        self.change(|state, _| state.following = upstream.cloned());
        if !self.machine.started(&server).await {
            return Err(Problem::Failed("PostgreSQL did not start".into()));
        }
        self.change(|state, _| state.run.phase = Phase::Standby);
        self.sample_now();
        self.urge.bump();
        Ok(())
    }

    fn spawn(&self, phase: Phase, epoch: Epoch) -> Result<Rc<Server>, Problem> {
        self.guard.arm();
        let server = self.machine.start(epoch).ok_or(Problem::Failed("another server runs here".into()))?;
        let id = server.id;
        self.change(|state, now| {
            let crash = state.run.crash;
            state.run = Run { phase, id: Some(id), since: now, asked: false, crash };
            (state.sample, state.probed) = (None, None);
        });
        Ok(server)
    }

    async fn follow(&self, upstream: &Upstream) -> Done {
        let server = self.server().ok_or(Problem::NotNow("PostgreSQL does not run"))?;
        self.on_branch_of(upstream).await?;
        if self.write_conf(true, Some(upstream))? {
            server.reload(&self.machine);
        }
        server.receiving.set(None);
        server.moved.bump();
        self.change(|state, _| state.following = Some(upstream.clone()));
        Ok(())
    }

    pub(super) async fn on_branch_of(&self, upstream: &Upstream) -> Done {
        let mirror = self.look(|state, _| state.mirror.clone());
        let ready = mirror.and_then(|mirror| mirror.ready.clone()).filter(|ready| ready.value.db == upstream.db);
        let ready = ready.ok_or(Problem::NotNow("the upstream does not serve as primary"))?;
        let branch = Some(Branch { epoch: ready.value.epoch, timeline: ready.value.timeline });
        let known = self.look(|state, _| state.journal.branch == branch && state.journal.recruit.is_none());
        if !known {
            self.journal(|journal| (journal.branch, journal.recruit) = (branch, None)).await;
        }
        Ok(())
    }

    async fn apply(&self, db: &DbUid, generation: Generation) -> Done {
        let assignment = self.assignment()?;
        let server = self.server().ok_or(Problem::NotNow("PostgreSQL does not run"))?;
        if assignment.db != *db || assignment.generation != generation {
            return Err(Problem::NotNow("another generation is wanted now"));
        }
        match &assignment.role {
            Role::Primary { .. } => self.settings(&server, false, None).await?,
            Role::Standby(upstream) => self.settings(&server, true, Some(upstream)).await?,
        }
        self.world.pass(MS, 10 * MS).await;
        self.db_state(|state| state.generation = generation).await;
        self.change(|state, _| state.applied = Some((db.clone(), generation)));
        self.urge.bump();
        Ok(())
    }
}
