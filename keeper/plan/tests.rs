//! What a keeper does next, situation by situation. Each line of a table is one change to a keeper that has converged.

use std::time::Duration;

use stolon::model::{
    ClusterData, DbUid, Epoch, Generation, KeeperUid, Lsn, Moment, Revision, WalPosition,
    cluster::{Fencing, Lineage, Stage},
    registration::{ReadyKey, Recruit},
    view::{InitMode, KeeperView, Role, Upstream},
};

use super::*;
use crate::journal::Branch;

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(100_000 + millis))
}

fn db(uid: &str) -> DbUid {
    DbUid::parse(uid).unwrap()
}

/// A keeper with all that its plan looks at, owned.
#[derive(Clone)]
struct Keeper {
    me: KeeperUid,
    view: KeeperView,
    db: DbState,
    journal: Journal,
    ready: Option<ReadyKey>,
    following: Option<Upstream>,
    data: Data,
    process: Process,
    grant: Option<u64>,
    tolerated: bool,
    claim: Claim,
    mine: bool,
    position: Option<WalPosition>,
    applied: bool,
    restricted: bool,
    caught_up: bool,
    prepared: u64,
    leaving: Leaving,
}

const PRIMARY: &str = "ab8aab47";
const STANDBY: &str = "50e47c12";

impl Keeper {
    /// `keeper0` of the captured cluster is its primary, `keeper1` follows it; in epoch 3, converged.
    fn of(uid: &str, own: &str) -> Keeper {
        let me = KeeperUid::parse(uid).unwrap();
        let data = ClusterData::parse(include_bytes!("../../src/model/testdata/clusterdata.json")).unwrap();
        let mut view = KeeperView::derive(&data, Revision(9), &me).unwrap();
        view.epoch = Epoch(3);
        view.lineage = vec![Lineage { epoch: Epoch(3), timeline: 2, switch_lsn: Lsn(50), db: db(PRIMARY) }];
        let generation = view.assignment.as_ref().unwrap().generation;
        let upstream = match &view.assignment.as_ref().unwrap().role {
            Role::Standby(upstream) => Some(upstream.clone()),
            Role::Primary { .. } => None,
        };
        let branch = Some(Branch { epoch: Epoch(3), timeline: 2 });
        let primary = upstream.is_none();
        Keeper {
            me,
            view,
            db: DbState { uid: Some(db(own)), generation, ..DbState::default() },
            journal: Journal { primary_epoch: Epoch(if primary { 3 } else { 0 }), branch, ..Journal::default() },
            ready: Some(ready(3, PRIMARY, 2, 50)),
            following: upstream,
            data: if primary { Data::Primary } else { Data::Standby },
            process: if primary { Process::Primary } else { Process::Standby },
            grant: primary.then_some(3),
            tolerated: false,
            claim: Claim::None,
            mine: primary,
            position: Some(WalPosition { timeline: 2, lsn: Lsn(500) }),
            applied: true,
            restricted: false,
            caught_up: true,
            prepared: 0,
            leaving: Leaving::No,
        }
    }

    fn primary() -> Keeper {
        Keeper::of("keeper0", PRIMARY)
    }

    fn standby() -> Keeper {
        Keeper::of("keeper1", STANDBY)
    }

    fn with(&self, change: impl FnOnce(&mut Keeper)) -> Plan {
        let mut keeper = self.clone();
        change(&mut keeper);
        keeper.plan()
    }

    fn plan(&self) -> Plan {
        let own = self.view.assignment.as_ref().map(|a| (a.db.clone(), a.generation));
        plan(&Situation {
            now: at(0),
            me: &self.me,
            view: Some(&self.view),
            data: self.data,
            process: self.process,
            db: &self.db,
            journal: &self.journal,
            grant: self.grant.map(Epoch),
            tolerated: self.tolerated,
            claim: self.claim,
            ready: self.ready.as_ref(),
            ready_is_mine: self.mine,
            position: self.position,
            following: self.following.as_ref(),
            applied: own.as_ref().filter(|_| self.applied).map(|(db, generation)| (db, *generation)),
            restricted: self.restricted,
            caught_up: self.caught_up,
            prepared: Epoch(self.prepared),
            leaving: self.leaving,
        })
    }
}

fn ready(epoch: u64, of: &str, timeline: u32, switch: u64) -> ReadyKey {
    ReadyKey {
        keeper: KeeperUid::parse("k").unwrap(),
        db: db(of),
        epoch: Epoch(epoch),
        address: "127.0.0.1".into(),
        port: 5432,
        timeline,
        switch_lsn: Lsn(switch),
        traceparent: String::new(),
    }
}

fn mark(stage: Stage, planned: bool) -> Option<Fencing> {
    Some(Fencing { epoch: Epoch(3), stage, planned, to: None, reason: "gone".into(), traceparent: String::new() })
}

const STOPPED: Process = Process::Stopped { crashed: None };

fn crashed(ago: u64, count: u32) -> Process {
    Process::Stopped { crashed: Some(Crash { at: at(0) - Duration::from_millis(ago), count }) }
}

#[test]
fn a_converged_keeper_does_nothing() {
    assert_eq!(Keeper::primary().plan().step, Step::Wait);
    assert_eq!(Keeper::standby().plan().step, Step::Wait);
}

#[test]
fn a_primary_without_authority_is_killed_whatever_else_is_wanted() {
    let primary = Keeper::primary();
    assert_eq!(primary.with(|k| k.grant = None).step, Step::Kill);
    assert_eq!(primary.with(|k| (k.grant, k.view.assignment) = (None, None)).step, Step::Kill);
    assert_eq!(primary.with(|k| (k.grant, k.process) = (None, Process::Starting)).step, Step::Kill);
    let leaving = Leaving::HandOver { until: at(5000) };
    assert_eq!(primary.with(|k| (k.grant, k.leaving) = (None, leaving)).step, Step::Kill);
    let adopted = primary.with(|k| (k.grant, k.tolerated, k.claim) = (None, true, Claim::Inheriting));
    assert_eq!(adopted.step, Step::Wait, "just adopted");
    let lost = primary.with(|k| (k.grant, k.tolerated, k.claim) = (None, true, Claim::KeyGone));
    assert_eq!(lost.step, Step::PutBack { epoch: Epoch(3) }, "the key went, and nobody else was elected");
    assert_eq!(Keeper::standby().with(|k| k.process = Process::Primary).step, Step::Kill, "promoted by somebody else");
}

#[test]
fn a_crashed_primary_waits_to_be_asked_and_then_starts_in_place_ever_more_slowly() {
    let primary = Keeper::primary();
    let plan = primary.with(|k| k.process = crashed(100, 1));
    assert_eq!((plan.step, plan.revisit), (Step::Wait, Some(at(200))), "R17");
    assert_eq!(primary.with(|k| k.process = crashed(300, 1)).step, Step::StartPrimary { epoch: Epoch(3) });
    assert_eq!(primary.with(|k| k.process = crashed(1000, 3)).revisit, Some(at(200)), "4 x 300 ms");
    assert_eq!(primary.with(|k| k.process = crashed(0, 99)).revisit, Some(at(10_000)));
}

#[test]
fn under_a_mark_the_old_primary_gives_up_for_good() {
    let primary = Keeper::primary();
    for planned in [false, true] {
        let give_up = Step::GiveUp { epoch: Epoch(3), planned };
        for stage in [Stage::Fence, Stage::Recruit] {
            assert_eq!(primary.with(|k| k.view.fencing = mark(stage, planned)).step, give_up);
            assert_eq!(primary.with(|k| (k.view.fencing, k.process) = (mark(stage, planned), STOPPED)).step, give_up);
        }
    }
    let done = primary.with(|k| {
        (k.view.fencing, k.process, k.grant) = (mark(Stage::Recruit, false), STOPPED, None);
        k.journal.promised = Epoch(3);
    });
    assert_eq!(done.step, Step::Wait);
    // The mark is gone and nobody was elected yet as far as this keeper knows: the promise holds.
    let back = primary.with(|k| (k.process, k.journal.promised) = (STOPPED, Epoch(3)));
    assert_eq!(back.step, Step::Wait, "R25");
}

#[test]
fn a_primary_of_before_promises_too_or_it_could_never_return_when_its_successor_dies_unserved() {
    let before = Keeper::primary().with(|k| {
        k.view.primary =
            Some(stolon::model::view::Primary { db: db(STANDBY), keeper: KeeperUid::parse("kx").unwrap() });
        (k.view.fencing, k.process, k.grant) = (mark(Stage::Recruit, false), STOPPED, None);
    });
    assert_eq!(before.step, Step::GiveUp { epoch: Epoch(3), planned: false });
}

/// The last WAL was received and ended inside a record: what counts is what the recruit had replayed.
#[test]
fn a_recruit_follows_the_winner_though_it_received_more_than_can_be_replayed() {
    let standby = Keeper::standby();
    let at = |lsn| WalPosition { timeline: 2, lsn: Lsn(lsn) };
    let elected = |k: &mut Keeper| {
        k.view.epoch = Epoch(4);
        k.ready = Some(ready(4, PRIMARY, 3, 500));
        (k.following, k.position) = (None, Some(at(508)));
        (k.journal.promised, k.journal.recruit) = (Epoch(3), Some(Recruit { epoch: Epoch(4), position: at(500) }));
    };
    assert!(matches!(standby.with(elected).step, Step::Follow { .. }), "{:?}", standby.with(elected));
    let ahead = |k: &mut Keeper| {
        elected(k);
        k.journal.recruit = Some(Recruit { epoch: Epoch(4), position: at(508) });
    };
    assert!(matches!(standby.with(ahead).step, Step::Resync { .. }));
}

#[test]
fn standbys_receive_until_they_are_recruited_and_then_follow_nobody() {
    let standby = Keeper::standby();
    assert_eq!(standby.with(|k| k.view.fencing = mark(Stage::Fence, false)).step, Step::Wait);
    let recruit = Step::Recruit { epoch: Epoch(3) };
    assert_eq!(standby.with(|k| k.view.fencing = mark(Stage::Recruit, false)).step, recruit);
    let position = WalPosition { timeline: 2, lsn: Lsn(500) };
    let recruited = |k: &mut Keeper| {
        k.view.fencing = mark(Stage::Recruit, false);
        (k.journal.promised, k.journal.recruit) = (Epoch(3), Some(Recruit { epoch: Epoch(4), position }));
    };
    assert_eq!(standby.with(recruited).step, Step::Wait);
    let restarted = standby.with(|k| {
        recruited(k);
        k.process = STOPPED;
    });
    assert_eq!(
        restarted.step,
        Step::StartStandby { upstream: None },
        "execution 7: a recruit's restart follows nobody"
    );
    let lapsed = standby.with(|k| k.journal.promised = Epoch(3));
    assert_eq!(lapsed.step, Step::Wait, "promised not to follow epoch 3");
}

#[test]
fn the_winner_promotes_only_with_authority_and_then_says_that_it_serves() {
    let winner = |change: fn(&mut Keeper)| {
        let mut keeper = Keeper::standby();
        keeper.view.epoch = Epoch(4);
        keeper.view.primary = Some(stolon::model::view::Primary { db: db(STANDBY), keeper: keeper.me.clone() });
        let assignment = keeper.view.assignment.as_mut().unwrap();
        assignment.role =
            Role::Primary { followers: Vec::new(), additional_slots: Vec::new(), synchronous_names: Vec::new() };
        keeper.journal.promised = Epoch(3);
        change(&mut keeper);
        keeper.plan().step
    };
    assert_eq!(winner(|_| {}), Step::Wait, "execution 3: not without authority");
    assert_eq!(winner(|k| k.grant = Some(3)), Step::Wait, "not with that of another epoch");
    assert_eq!(winner(|k| k.grant = Some(4)), Step::Promote { epoch: Epoch(4) });
    assert_eq!(winner(|k| (k.grant, k.process) = (Some(4), STOPPED)), Step::StartStandby { upstream: None });
    assert_eq!(
        winner(|k| (k.grant, k.process, k.data) = (Some(4), Process::Primary, Data::Primary)),
        Step::AdoptEpoch { epoch: Epoch(4) }
    );
    let announced = winner(|k| {
        (k.grant, k.process, k.data) = (Some(4), Process::Primary, Data::Primary);
        k.journal.primary_epoch = Epoch(4);
    });
    assert_eq!(announced, Step::Announce { epoch: Epoch(4) });
    assert_eq!(winner(|k| k.claim = Claim::KeyGone), Step::PutBack { epoch: Epoch(4) });
    assert_eq!(winner(|k| (k.grant, k.journal.promised) = (Some(4), Epoch(4))), Step::Wait, "given up here");
}

#[test]
fn a_ready_key_of_another_lease_is_written_anew() {
    assert_eq!(Keeper::primary().with(|k| k.mine = false).step, Step::Announce { epoch: Epoch(3) });
    assert_eq!(Keeper::primary().with(|k| k.ready = None).step, Step::Announce { epoch: Epoch(3) });
}

#[test]
fn a_standby_follows_rewinds_or_is_copied_by_where_its_data_stand() {
    let standby = Keeper::standby();
    let next = |k: &mut Keeper, switch: u64| {
        k.view.epoch = Epoch(4);
        k.ready = Some(ready(4, PRIMARY, 3, switch));
    };
    assert!(matches!(standby.with(|k| (next(k, 500), k.following = None).1).step, Step::Follow { .. }));
    let method = |plan: Plan| match plan.step {
        Step::Resync { method, .. } => method,
        other => panic!("{other:?}"),
    };
    assert_eq!(method(standby.with(|k| next(k, 499))), Method::KeepIfPossible, "it is ahead");
    let stale = standby.with(|k| {
        next(k, 500);
        let position = WalPosition { timeline: 2, lsn: Lsn(501) };
        k.journal.recruit = Some(Recruit { epoch: Epoch(4), position });
    });
    assert_eq!(
        method(stale),
        Method::KeepIfPossible,
        "its recruit says that it is ahead, and the last sample is older"
    );
    let strange = standby.with(|k| k.journal.branch = Some(Branch { epoch: Epoch(2), timeline: 2 }));
    assert_eq!(method(strange), Method::CopyAnew, "execution 18");
    let half = standby.with(|k| k.journal.primary_epoch = Epoch(4));
    assert_eq!(method(half), Method::CopyAnew, "a promotion was begun on it");
    assert_eq!(method(standby.with(|k| k.data = Data::Primary)), Method::KeepIfPossible, "an old primary");
    assert_eq!(
        method(standby.with(|k| {
            k.data = Data::Absent;
            k.view.assignment.as_mut().unwrap().init = InitMode::Resync;
        })),
        Method::CopyAnew
    );
    assert_eq!(standby.with(|k| (next(k, 500), k.position = None).1).step, Step::Wait, "its position is not known");
    assert_eq!(standby.with(|k| k.ready = None).step, Step::Wait, "nobody serves yet");
}

#[test]
fn a_lost_or_foreign_volume_is_neither_used_nor_filled() {
    for keeper in [Keeper::primary(), Keeper::standby()] {
        for (data, uid) in [(Data::Absent, None), (Data::Primary, Some("other")), (Data::Standby, None)] {
            let plan = keeper.with(|k| (k.data, k.db.uid, k.process) = (data, uid.map(db), STOPPED));
            assert!(plan.step == Step::Wait && plan.fault, "{data:?}: {plan:?}");
        }
    }
    let new = Keeper::primary().with(|k| {
        k.view.assignment.as_mut().unwrap().init = InitMode::New(NewConfig::default());
        (k.process, k.db.uid) = (STOPPED, None);
    });
    assert!(new.step == Step::Wait && new.fault, "initdb never goes over data: {new:?}");
}

#[test]
fn a_keeper_that_ends_hands_over_and_stops_in_good_order() {
    let leaving = Leaving::HandOver { until: at(5000) };
    let (primary, standby) = (Keeper::primary(), Keeper::standby());
    let plan = primary.with(|k| k.leaving = leaving);
    assert_eq!((plan.step, plan.revisit), (Step::Wait, Some(at(5000))));
    assert_eq!(primary.with(|k| k.leaving = Leaving::HandOver { until: at(0) }).step, Step::Stop);
    assert_eq!(standby.with(|k| k.leaving = leaving).step, Step::Stop);
    assert_eq!(standby.with(|k| (k.leaving, k.process) = (leaving, STOPPED)).step, Step::Exit);
    let marked = primary.with(|k| (k.leaving, k.view.fencing) = (leaving, mark(Stage::Fence, true)));
    assert_eq!(marked.step, Step::GiveUp { epoch: Epoch(3), planned: true });
    let alone = primary.with(|k| {
        k.leaving = leaving;
        if let Role::Primary { followers, .. } = &mut k.view.assignment.as_mut().unwrap().role {
            followers.clear();
        }
    });
    assert_eq!(alone.step, Step::Stop, "nobody to hand over to");
}

#[test]
fn settings_are_applied_when_the_generation_moves() {
    for keeper in [Keeper::primary(), Keeper::standby()] {
        let own = keeper.db.uid.clone().unwrap();
        let plan = keeper.with(|k| {
            k.applied = false;
            k.view.assignment.as_mut().unwrap().generation = Generation(99);
        });
        assert_eq!(plan.step, Step::Apply { db: own, generation: Generation(99) });
    }
}

#[test]
fn a_restarted_synchronous_primary_admits_everybody_when_its_standbys_have_caught_up() {
    let restricted = |caught_up| {
        Keeper::primary().with(|k| {
            (k.restricted, k.caught_up) = (true, caught_up);
        })
    };
    let plan = restricted(false);
    assert!(plan.step == Step::Wait && plan.why.contains("R20"), "{}", plan.why);
    assert_eq!(restricted(true).step, Step::Admit);
    let unapplied = Keeper::primary().with(|k| (k.restricted, k.applied) = (true, false));
    assert!(matches!(unapplied.step, Step::Apply { .. }), "the list comes first: {:?}", unapplied.step);
}

#[test]
fn a_handover_is_prepared_once_by_a_primary_that_serves_and_by_one_that_ends() {
    let step = |change: fn(&mut Keeper)| {
        Keeper::primary().with(|k| {
            k.view.handover = true;
            change(k);
        })
    };
    assert_eq!(step(|_| ()).step, Step::Prepare { epoch: Epoch(3) });
    assert_eq!(step(|k| k.prepared = 3).step, Step::Wait);
    assert_eq!(step(|k| k.prepared = 2).step, Step::Prepare { epoch: Epoch(3) });
    assert_eq!(step(|k| k.leaving = Leaving::HandOver { until: at(5000) }).step, Step::Prepare { epoch: Epoch(3) });
    assert!(!matches!(Keeper::standby().with(|k| k.view.handover = true).step, Step::Prepare { .. }));
}

/// Its synchronous list may lack names that others rely on by now.
#[test]
fn an_assignment_older_than_what_was_applied_is_not_followed() {
    let plan = Keeper::primary().with(|k| k.db.generation = k.db.generation.next());
    assert!(plan.step == Step::Wait && plan.why.contains("newer cluster data"), "{}", plan.why);
}
