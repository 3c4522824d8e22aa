//! Everything that a keeper knows at one moment. Values only: no lock, no I/O, no clock; who changes it says the time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stolon::{
    model::{
        DbUid, Epoch, Generation, KeeperUid, LeaseId, Moment, Revision, WalPosition,
        cluster::Phase as ClusterPhase,
        view::{InitMode, KeeperView, Upstream},
    },
    store::{LeaseState, Mirror},
};

use crate::{
    authority::{Authority, Grant},
    journal::{DbState, Folder, Journal, KeeperState},
    pg::{ProcessId, Sample},
    plan::{Claim, Crash, Data, Leaving, Process, Situation},
    synchronous::Synchronous,
};

/// For putting back a key that went before the holder's deadline, as etcd before 3.5.11 may make it (#15247). Sentinels
/// leave twice as long before they count it as lost.
const TOLERANCE: Duration = Duration::from_millis(500);
/// A server that ran this long has forgotten its earlier crashes.
const SETTLED: Duration = Duration::from_secs(60);

/// What the server process does, as far as this keeper has seen it through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Stopped,
    StartingPrimary,
    StartingStandby,
    Standby,
    /// Asked to promote: it may take writes at any moment.
    Promoting,
    Primary,
}

impl Phase {
    /// True when the server may acknowledge a commit, now or any moment.
    pub fn may_serve(self) -> bool {
        matches!(self, Phase::StartingPrimary | Phase::Promoting | Phase::Primary)
    }
}

/// The server process.
#[derive(Clone, Debug)]
pub struct Run {
    pub phase: Phase,
    pub id: Option<ProcessId>,
    pub since: Moment,
    /// Its end was asked for: no crash.
    pub asked: bool,
    pub crash: Option<Crash>,
}

/// How the present primary came to be: what `ready` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    pub epoch: Epoch,
    pub timeline: u32,
    /// Where that timeline left its parent; 0/0 for a first one.
    pub switch_lsn: stolon::model::Lsn,
    /// W3C trace context of the promotion; empty for none.
    pub traceparent: String,
}

/// Until when a server may acknowledge commits: one instant for the keeper's own task and for the guard (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub epoch: Epoch,
    /// The lease that a reading has shown to carry the key; `None` while there is no such reading.
    pub lease: Option<LeaseId>,
    pub until: Moment,
}

/// What probes found, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfit {
    pub disk: String,
    pub server: String,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    pub me: KeeperUid,
    /// The keeper's directory, for people.
    pub directory: String,
    /// The directory that this process works in.
    pub folder: Option<Folder>,
    pub keeper: KeeperState,
    pub db: DbState,
    pub journal: Journal,
    pub view: Option<KeeperView>,
    /// Why the cluster data in etcd are not this keeper's; empty when they are.
    pub foreign: String,
    pub mirror: Option<Arc<Mirror>>,
    pub lease: Option<LeaseState>,
    pub authority: Authority,
    /// Begin of the present state of the authority.
    pub authority_since: Moment,
    /// A primary may run on until then without authority: an adopted one, until it is known whether the former keeper's
    /// lease lives; and one whose key went before its deadline, until it is put back.
    pub inherits_until: Option<Moment>,
    /// A step needs the guard armed, before the server may acknowledge a commit in this epoch.
    pub arming: Option<Epoch>,
    /// How often a step has asked for that: what the guard acknowledged earlier is no answer.
    pub arms: u64,
    pub data: Data,
    pub run: Run,
    /// A creation, copy or rewind runs.
    pub copying: bool,
    /// Attempts to keep the data under another primary that failed in a row.
    pub keep_failures: u32,
    pub sample: Option<Sample>,
    /// Last known position of a server that does not run.
    pub stopped_at: Option<WalPosition>,
    /// That is the end of its WAL: it was a primary and was stopped in good order.
    pub stopped_clean: bool,
    /// 0 while unknown.
    pub system_id: u64,
    pub probed: Option<Moment>,
    /// Why the last probe failed, of the server or of its disk (R13); empty when none did.
    pub unfit: Unfit,
    pub following: Option<Upstream>,
    pub applied: Option<(DbUid, Generation)>,
    /// Of the new server, for `mergePgParameters`.
    pub parameters: BTreeMap<String, String>,
    pub promotion: Promotion,
    /// What commits of the running server wait for.
    pub synchronous: Synchronous,
    /// The epoch for whose handover a checkpoint was written (R8).
    pub prepared: Epoch,
    pub leaving: Leaving,
    /// Why the keeper can't converge; empty when nothing is wrong.
    pub failure: String,
    /// What it does, for people, and since when.
    pub step: (String, Moment),
}

impl State {
    pub fn new(me: KeeperUid, keeper: KeeperState, db: DbState, journal: Journal, now: Moment) -> State {
        State {
            authority: Authority::new(me.clone()),
            me,
            directory: String::new(),
            keeper,
            db,
            journal,
            view: None,
            foreign: String::new(),
            mirror: None,
            lease: None,
            authority_since: now,
            folder: None,
            inherits_until: None,
            arming: None,
            arms: 0,
            data: Data::Absent,
            run: Run { phase: Phase::Stopped, id: None, since: now, asked: false, crash: None },
            copying: false,
            keep_failures: 0,
            sample: None,
            stopped_at: None,
            stopped_clean: false,
            system_id: 0,
            probed: None,
            unfit: Unfit::default(),
            following: None,
            applied: None,
            parameters: BTreeMap::new(),
            promotion: Promotion::default(),
            synchronous: Synchronous::default(),
            prepared: Epoch::NONE,
            leaving: Leaving::No,
            failure: String::new(),
            step: ("starting".to_owned(), now),
        }
    }

    pub fn grant(&self, now: Moment) -> Option<Grant> {
        self.authority.at(now, self.lease.as_ref())
    }

    /// The end of the present right, or tolerance; `None` without either.
    pub fn deadline(&self, now: Moment) -> Option<Deadline> {
        if let Some(grant) = self.grant(now) {
            return Some(Deadline { epoch: grant.epoch, lease: Some(grant.lease), until: grant.deadline });
        }
        let until = self.inherits_until.filter(|until| now < *until)?;
        Some(Deadline { epoch: self.journal.primary_epoch, lease: None, until })
    }

    /// True when a server that may acknowledge commits has no right to (R4).
    pub fn must_die(&self, now: Moment) -> bool {
        self.run.phase.may_serve() && self.grant(now).is_none() && !self.inherits(now)
    }

    /// The watch took `lost` away before its deadline. When nobody else has it and the cluster data still say that it is
    /// ours, it may be put back (R3), and the server runs on meanwhile.
    pub fn tolerate(&mut self, lost: &Grant, now: Moment) {
        let Some(mirror) = self.mirror.as_ref().filter(|mirror| mirror.primary.is_none()) else { return };
        let Some((data, _)) = mirror.data() else { return };
        let ours = data.primary().is_some_and(|(uid, db)| *uid == lost.db && db.spec.keeper_uid == self.me);
        if ours && data.epoch() == lost.epoch && data.fencing().is_none() {
            self.inherits_until = Some(lost.deadline.min(now + TOLERANCE));
        }
    }

    pub fn inherits(&self, now: Moment) -> bool {
        self.inherits_until.is_some_and(|until| now < until)
    }

    /// Takes a newer view in. One of another cluster is not believed, unless an operator gave it this very keeper's data
    /// (`existing`); see `rehome`.
    pub fn offer(&mut self, view: KeeperView) {
        let newer = self
            .view
            .as_ref()
            .is_none_or(|known| known.cluster_uid != view.cluster_uid || known.revision < view.revision);
        if !newer {
            return;
        }
        match &self.keeper.cluster_uid {
            Some(ours) if *ours != view.cluster_uid && !self.names_our_data(&view) => {
                self.foreign = format!(
                    "data directory {} belongs to cluster {ours}, and etcd holds cluster {}: it is not touched; move it \
                     away, or give the keeper another --data-dir",
                    self.directory, view.cluster_uid
                );
            }
            _ => {
                self.foreign.clear();
                self.view = Some(view);
            }
        }
    }

    fn names_our_data(&self, view: &KeeperView) -> bool {
        let existing = view.assignment.as_ref().is_some_and(|assignment| assignment.init == InitMode::Existing);
        existing && view.names_primary(&self.me)
    }

    /// The view is of a cluster that this directory is to move to.
    pub fn must_rehome(&self) -> bool {
        let theirs = self.view.as_ref().map(|view| &view.cluster_uid);
        self.keeper.cluster_uid.is_some() && theirs.is_some() && theirs != self.keeper.cluster_uid.as_ref()
    }

    /// The server has ended, asked or not. True when this is news.
    pub fn ended(&mut self, id: ProcessId, now: Moment) -> bool {
        if self.run.id != Some(id) || self.run.phase == Phase::Stopped {
            return false;
        }
        let before = self.run.crash.filter(|_| now.since(self.run.since) < SETTLED).map_or(0, |crash| crash.count);
        let crash = (!self.run.asked).then_some(Crash { at: now, count: before + 1 });
        self.stopped_at = self.sample.as_ref().map(|sample| sample.position).or(self.stopped_at);
        self.stopped_clean = false;
        self.run = Run { phase: Phase::Stopped, id: None, since: now, asked: false, crash };
        (self.sample, self.probed, self.following, self.applied) = (None, None, None, None);
        self.synchronous = Synchronous::default();
        // They were that server's.
        (self.inherits_until, self.unfit) = (None, Unfit::default());
        true
    }

    /// How this keeper stands to the key `primary`.
    fn claim(&self, now: Moment) -> Claim {
        match self.key_gone(now) {
            true => Claim::KeyGone,
            false if self.inherits(now) => Claim::Inheriting,
            false => Claim::None,
        }
    }

    fn key_gone(&self, now: Moment) -> bool {
        let valid = self.lease.as_ref().filter(|lease| now < lease.deadline);
        let (Some(mirror), Some(lease)) = (&self.mirror, valid) else { return false };
        let Some((data, _)) = mirror.data() else { return false };
        let named = data.primary().is_some_and(|(_, db)| db.spec.keeper_uid == self.me) && data.fencing().is_none();
        let registered = mirror.keepers.get(&self.me).is_some_and(|own| own.lease == lease.id);
        let gone = mirror.primary.is_none() && data.epoch() > self.journal.promised && !data.epoch().is_none();
        // The holder itself (R3), not a copy of its directory: that one waits to be chosen, by its position. What was never
        // primary can put nothing back, but for the first primary of all, which nobody else has data of.
        let holder = self.journal.primary_epoch == data.epoch() && self.journal.primary_place == self.folder;
        let first = data.cluster.status.phase == ClusterPhase::Initializing;
        named && registered && gone && (holder || first)
    }

    pub fn process(&self) -> Process {
        match self.run.phase {
            Phase::Stopped => Process::Stopped { crashed: self.run.crash },
            Phase::StartingPrimary | Phase::StartingStandby => Process::Starting,
            Phase::Standby => Process::Standby,
            Phase::Promoting | Phase::Primary => Process::Primary,
        }
    }

    /// What the plan looks at.
    pub fn situation(&self, now: Moment) -> Situation<'_> {
        let ready = self.mirror.as_ref().and_then(|mirror| mirror.ready.as_ref());
        let lease = self.lease.as_ref().map(|lease| lease.id);
        Situation {
            now,
            me: &self.me,
            view: self.view.as_ref().filter(|_| self.foreign.is_empty()),
            data: self.data,
            process: self.process(),
            db: &self.db,
            journal: &self.journal,
            grant: self.grant(now).map(|grant| grant.epoch),
            tolerated: self.inherits(now),
            claim: self.claim(now),
            ready: ready.map(|held| &held.value),
            ready_is_mine: ready.is_some_and(|held| Some(held.lease) == lease && held.value.keeper == self.me),
            position: self.sample.as_ref().map(|sample| sample.position),
            following: self.following.as_ref(),
            applied: self.applied.as_ref().map(|(db, generation)| (db, *generation)),
            restricted: self.synchronous.restricted,
            caught_up: self.synchronous.complete(),
            prepared: self.prepared,
            leaving: self.leaving,
        }
    }

    pub fn view_revision(&self) -> Revision {
        self.view.as_ref().map_or(Revision(0), |view| view.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let me = KeeperUid::parse("k1").unwrap();
        State::new(me, KeeperState::default(), DbState::default(), Journal::default(), at(0))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(seconds))
    }

    fn running(state: &mut State, since: u64) -> ProcessId {
        let id = ProcessId { pid: 7, started: since };
        state.run = Run { phase: Phase::Primary, id: Some(id), since: at(since), asked: false, crash: state.run.crash };
        id
    }

    #[test]
    fn an_end_that_was_not_asked_for_is_a_crash_and_those_in_a_row_are_counted() {
        let mut state = state();
        for (since, ended, count) in [(0, 5, 1), (6, 7, 2), (8, 99, 1)] {
            let id = running(&mut state, since);
            assert!(state.ended(id, at(ended)));
            assert!(!state.ended(id, at(ended)), "told once");
            assert_eq!(state.run.crash.unwrap().count, count);
        }
        let id = running(&mut state, 100);
        state.run.asked = true;
        state.ended(id, at(101));
        assert_eq!(state.run.crash, None);
    }

    #[test]
    fn a_primary_without_authority_must_die_unless_it_was_just_inherited() {
        let mut state = state();
        running(&mut state, 1);
        assert!(state.must_die(at(2)));
        state.inherits_until = Some(at(4));
        assert!(!state.must_die(at(3)) && state.must_die(at(4)));
        for phase in [Phase::Promoting, Phase::StartingPrimary] {
            state.run.phase = phase;
            assert!(state.must_die(at(5)), "{phase:?}");
        }
        state.run.phase = Phase::Standby;
        assert!(!state.must_die(at(5)));
    }
}
