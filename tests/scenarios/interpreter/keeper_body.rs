//! One keeper that a script looks at closely: its memory, its lease, what it knows of etcd, and the plan that follows.

use std::time::Duration;

use stolon::{
    model::{
        DbUid, Epoch, KeeperUid, Moment, WalPosition,
        registration::Recruit,
        view::{KeeperView, Role, Upstream},
    },
    store::{LeaseState, Mirror},
};
use stolon_keeper::{
    authority::Authority,
    journal::{Branch, DbState, Journal},
    plan::{Claim, Crash, Data, Leaving, Method, Plan, Process, Situation, Step, interrupts, plan},
};

use super::{
    args::{Trouble, duration, number, position, yes},
    secs,
};

/// Of a lease of 5 s: the keeper's own deadline comes a margin before etcd's (R3).
const LIFE: u64 = 4;

pub struct Body {
    me: KeeperUid,
    mirror: Mirror,
    pub lease: LeaseState,
    authority: Authority,
    db: DbState,
    journal: Journal,
    data: Data,
    process: Process,
    following: Option<Upstream>,
    applied: bool,
    restricted: bool,
    caught_up: bool,
    tolerated: bool,
    claim: Claim,
    position: Option<WalPosition>,
    prepared: Epoch,
    leaving: Leaving,
    /// The step that is under way.
    busy: Option<Step>,
    /// Its watch shows nothing new.
    pub lags: bool,
    /// Its keepalives are not answered.
    pub unanswered: bool,
}

impl Body {
    /// A keeper that has done all that the cluster data ask of it, with what etcd shows read.
    pub fn converged(me: KeeperUid, mirror: &Mirror, now: Moment) -> Result<Body, Trouble> {
        let registered = mirror.keepers.get(&me).ok_or("it is not registered")?;
        let (lease, registered_at) = (registered.lease, registered.created);
        let lease = LeaseState { id: lease, deadline: now + secs(LIFE), granted: secs(LIFE + 1), registered_at };
        let mut body = Body {
            authority: Authority::new(me.clone()),
            me,
            mirror: mirror.clone(),
            lease,
            db: DbState::default(),
            journal: Journal::default(),
            data: Data::Absent,
            process: Process::Stopped { crashed: None },
            following: None,
            applied: true,
            restricted: false,
            caught_up: true,
            tolerated: false,
            claim: Claim::None,
            position: None,
            prepared: Epoch::NONE,
            leaving: Leaving::No,
            busy: None,
            lags: false,
            unanswered: false,
        };
        body.read();
        body.converge()?;
        Ok(body)
    }

    fn converge(&mut self) -> Result<(), Trouble> {
        let Some(view) = self.view()? else { return Ok(()) };
        let Some(assignment) = &view.assignment else { return Ok(()) };
        self.db = DbState { uid: Some(assignment.db.clone()), generation: assignment.generation, ..DbState::default() };
        let last = view.lineage.last().ok_or("nobody has served yet")?;
        self.journal.branch = Some(Branch { epoch: last.epoch, timeline: last.timeline });
        self.position = Some(WalPosition { timeline: last.timeline, lsn: stolon::model::Lsn(1000 * view.epoch.0) });
        match &assignment.role {
            Role::Primary { .. } => {
                (self.data, self.process) = (Data::Primary, Process::Primary);
                self.journal.primary_epoch = view.epoch;
            }
            Role::Standby(upstream) => {
                (self.data, self.process) = (Data::Standby, Process::Standby);
                self.following = Some(upstream.clone());
            }
        }
        Ok(())
    }

    /// A linearizable read, answered while the lease is held.
    pub fn read(&mut self) {
        self.authority.read(&self.mirror, &self.lease);
    }

    /// It takes a mirror in by a linearizable read though its watch lags.
    pub fn reads(&mut self, mirror: &Mirror) {
        self.mirror = mirror.clone();
        self.read();
    }

    /// A new registration: the former lease is given up.
    pub fn registers_anew(&mut self, mirror: &Mirror, now: Moment) -> Result<(), Trouble> {
        let own = mirror.keepers.get(&self.me).ok_or("it is not registered")?;
        self.lease = LeaseState {
            id: own.lease,
            deadline: now + secs(LIFE),
            granted: secs(LIFE + 1),
            registered_at: own.created,
        };
        self.authority.observe(&self.mirror, Some(&self.lease));
        Ok(())
    }

    /// A heartbeat: keepalive answered, watch read.
    pub fn refresh(&mut self, now: Moment, mirror: &Mirror) {
        self.authority.lapse(now, Some(&self.lease));
        if !self.unanswered {
            self.lease.deadline = now + secs(LIFE);
        }
        if !self.lags {
            self.mirror = mirror.clone();
        }
        self.authority.observe(&self.mirror, Some(&self.lease));
    }

    fn view(&self) -> Result<Option<KeeperView>, Trouble> {
        let Some((data, revision)) = self.mirror.data() else { return Ok(None) };
        KeeperView::derive(data, revision, &self.me).map(Some).map_err(|bad| bad.to_string())
    }

    fn plan(&self, now: Moment) -> Result<Plan, Trouble> {
        let view = self.view()?;
        let wanted = view.as_ref().and_then(|view| view.assignment.as_ref()).map(|a| (a.db.clone(), a.generation));
        let ready = self.mirror.ready.as_ref();
        Ok(plan(&Situation {
            now,
            me: &self.me,
            view: view.as_ref(),
            data: self.data,
            process: self.process,
            db: &self.db,
            journal: &self.journal,
            grant: self.authority.at(now, Some(&self.lease)).map(|grant| grant.epoch),
            tolerated: self.tolerated,
            claim: self.claim,
            ready: ready.map(|held| &held.value),
            ready_is_mine: ready.is_some_and(|held| held.lease == self.lease.id),
            position: self.position,
            following: self.following.as_ref(),
            applied: wanted.as_ref().filter(|_| self.applied).map(|(db, generation)| (db, *generation)),
            restricted: self.restricted,
            caught_up: self.caught_up,
            prepared: self.prepared,
            leaving: self.leaving,
        }))
    }

    /// One line: the authority, the step and its reason.
    pub fn tell(&self, now: Moment) -> String {
        let grant = self.authority.at(now, Some(&self.lease));
        let right = grant.map_or_else(String::new, |grant| format!("holds epoch {}; ", grant.epoch));
        let unread = self.authority.needs_reading(&self.mirror, Some(&self.lease));
        let reading = if unread { "a linearizable read is due; " } else { "" };
        match self.plan(now) {
            Ok(plan) => {
                let fault = if plan.fault { "FAULT: " } else { "" };
                let wait = plan.revisit.map(|at| format!(", again in {} ms", at.since(now).as_millis()));
                let now = format!("{} ({fault}{}{})", step(&plan.step), plan.why, wait.unwrap_or_default());
                match &self.busy {
                    Some(busy) if interrupts(&plan.step, busy) => {
                        format!("{right}{reading}drops `{}`: {now}", step(busy))
                    }
                    Some(busy) => format!("{right}{reading}goes on with `{}`, then: {now}", step(busy)),
                    None => format!("{right}{reading}{now}"),
                }
            }
            Err(trouble) => format!("no plan: {trouble}"),
        }
    }

    /// It begins the step that its plan gives now.
    pub fn begin(&mut self, now: Moment) -> Result<(), Trouble> {
        self.busy = Some(self.plan(now)?.step);
        Ok(())
    }

    /// One fact of the keeper is another one now.
    pub fn set(&mut self, key: &str, value: &str, now: Moment) -> Result<(), Trouble> {
        match key {
            "process" => self.process = process(value, now)?,
            "data" => {
                self.data = match value {
                    "absent" => Data::Absent,
                    "incomplete" => Data::Incomplete,
                    "primary" => Data::Primary,
                    "standby" => Data::Standby,
                    other => return Err(format!("{other:?} is no kind of data")),
                }
            }
            "db" => {
                self.db.uid = (value != "none").then(|| DbUid::parse(value)).transpose().map_err(|e| e.to_string())?
            }
            "generation" => self.db.generation = stolon::model::Generation(number(value)?),
            "promised" => self.journal.promised = Epoch(number(value)?),
            "recruited" => {
                let position = self.position.unwrap_or_default();
                self.journal.recruit = Some(Recruit { epoch: Epoch(number(value)?), position });
            }
            "primary-epoch" => self.journal.primary_epoch = Epoch(number(value)?),
            "branch" => {
                let (epoch, timeline) = value.split_once('/').ok_or("branch=EPOCH/TIMELINE")?;
                self.journal.branch = Some(Branch { epoch: Epoch(number(epoch)?), timeline: number(timeline)? });
            }
            "position" => self.position = (value != "unknown").then(|| position(value)).transpose()?,
            "follows" => {
                self.following = match value {
                    "nobody" => None,
                    _ => self.upstream()?,
                }
            }
            "busy" => self.busy = self.busy.take().filter(|_| value != "no"),
            "applied" => self.applied = yes(value)?,
            "restricted" => self.restricted = yes(value)?,
            "caught-up" => self.caught_up = yes(value)?,
            "tolerated" => self.tolerated = yes(value)?,
            "prepared" => self.prepared = Epoch(number(value)?),
            "leaving" => self.leaving = Leaving::HandOver { until: now + duration(value)? },
            "claim" => {
                self.claim = match value {
                    "none" => Claim::None,
                    "key-gone" => Claim::KeyGone,
                    "inheriting" => Claim::Inheriting,
                    other => return Err(format!("{other:?} is no claim")),
                }
            }
            other => return Err(format!("a keeper has no {other:?}")),
        }
        Ok(())
    }

    fn upstream(&self) -> Result<Option<Upstream>, Trouble> {
        let assignment = self.view()?.and_then(|view| view.assignment);
        Ok(assignment.and_then(|assignment| match assignment.role {
            Role::Standby(upstream) => Some(upstream),
            Role::Primary { .. } => None,
        }))
    }
}

/// `stopped`, `crashed:AGO:HOW-OFTEN`, `starting`, `standby`, `primary`.
fn process(value: &str, now: Moment) -> Result<Process, Trouble> {
    Ok(match value {
        "stopped" => Process::Stopped { crashed: None },
        "starting" => Process::Starting,
        "standby" => Process::Standby,
        "primary" => Process::Primary,
        other => {
            let parts: Vec<&str> = other.split(':').collect();
            let ["crashed", ago, count] = parts.as_slice() else { return Err(format!("{other:?} is no process")) };
            let ago: Duration = duration(ago)?;
            Process::Stopped { crashed: Some(Crash { at: now - ago, count: number(count)? }) }
        }
    })
}

fn step(step: &Step) -> String {
    let follows = |upstream: &Upstream| format!("db {}", upstream.db);
    match step {
        Step::GiveUp { epoch, planned: false } => format!("give epoch {epoch} up, by SIGKILL"),
        Step::GiveUp { epoch, planned: true } => format!("give epoch {epoch} up, by a fast stop"),
        Step::Recruit { epoch } => format!("recruit: leave the primary of epoch {epoch}"),
        Step::Create { db, .. } => format!("create db {db}"),
        Step::TakeOver { db } => format!("take the directory over as db {db}"),
        Step::StartPrimary { epoch } => format!("start as the primary of epoch {epoch}"),
        Step::StartStandby { upstream: None } => "start as a standby of nobody".to_owned(),
        Step::StartStandby { upstream: Some(upstream) } => format!("start as a standby of {}", follows(upstream)),
        Step::Promote { epoch } => format!("promote in epoch {epoch}"),
        Step::AdoptEpoch { epoch } => format!("adopt epoch {epoch}"),
        Step::Announce { epoch } => format!("write `ready` of epoch {epoch}"),
        Step::PutBack { epoch } => format!("put the key `primary` of epoch {epoch} back"),
        Step::Follow { upstream } => format!("turn to {}", follows(upstream)),
        Step::Resync { upstream, method: Method::KeepIfPossible, .. } => {
            format!("follow, rewind or copy {}", follows(upstream))
        }
        Step::Resync { upstream, method: Method::CopyAnew, .. } => format!("copy {} anew", follows(upstream)),
        Step::Apply { db, generation } => format!("apply generation {generation} of db {db}"),
        Step::Prepare { epoch } => format!("write a checkpoint before epoch {epoch} is handed over"),
        Step::Wait => "wait".to_owned(),
        Step::Kill => "KILL PostgreSQL".to_owned(),
        Step::Stop => "stop PostgreSQL".to_owned(),
        Step::Admit => "admit everybody".to_owned(),
        Step::Exit => "exit".to_owned(),
    }
}
