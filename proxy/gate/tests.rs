//! Golden scripts over the gate: each rule, and the executions of the protocol's section 8 that are its own.

use std::time::Duration;

use stolon::model::{ClusterUid, Epoch, KeeperUid, LeaseId, Moment, Revision};

use super::{
    facts::{Holder, Ready},
    *,
};

const MINE: LeaseId = LeaseId(0xa1);

pub(super) fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(millis))
}

pub(super) fn uid() -> ClusterUid {
    ClusterUid::parse("c1").unwrap()
}

pub(super) fn lease(deadline: u64, registered_at: i64) -> Option<Lease> {
    Some(Lease { id: MINE, deadline: at(deadline), registered_at: Revision(registered_at) })
}

pub(super) fn mark(epoch: u64) -> Option<Mark> {
    Some(Mark { epoch: Epoch(epoch), traceparent: format!("00-mark-{epoch}") })
}

/// A cluster whose primary serves in `epoch`, with this proxy registered on `MINE`.
pub(super) fn serving(revision: i64, epoch: u64) -> Facts {
    let (keeper, on) = (KeeperUid::parse(format!("k{epoch}")).unwrap(), LeaseId(epoch as i64 + 1));
    Facts {
        revision: Revision(revision),
        registration: Some(MINE),
        cluster: Cluster::Known { uid: uid(), revision: Revision(revision), epoch: Epoch(epoch), mark: None },
        primary: Some(Holder { keeper: keeper.clone(), epoch: Epoch(epoch), lease: on }),
        ready: Some(Ready {
            keeper,
            epoch: Epoch(epoch),
            lease: on,
            address: "10.0.0.1".into(),
            port: 5000 + epoch as u16,
            traceparent: String::new(),
        }),
    }
}

pub(super) fn marked(revision: i64, epoch: u64) -> Facts {
    let mut facts = serving(revision, epoch);
    if let Cluster::Known { mark: slot, .. } = &mut facts.cluster {
        *slot = mark(epoch);
    }
    facts
}

fn heard(revision: i64, epoch: u64, mark: Option<Mark>) -> Heard {
    Heard { uid: uid(), revision: Revision(revision), epoch: Epoch(epoch), mark }
}

/// Registered at revision 10 until 5000 ms, routing to epoch 3 since revision 20.
fn routing() -> Gate {
    let mut gate = Gate::default();
    gate.registered(lease(5000, 10), at(0));
    gate.read(serving(20, 3), at(0));
    assert_eq!(gate.closed(), None);
    gate
}

fn inside(gate: &mut Gate) -> Leased {
    let mut leased = gate.enter(at(1)).expect("the route is open");
    assert!(gate.connected(&mut leased, at(1)));
    leased
}

#[test]
fn a_route_opens_when_all_keys_agree_on_the_epoch() {
    let mut gate = routing();
    let grant = gate.grant().unwrap();
    assert_eq!((grant.route.epoch, grant.route.target()), (Epoch(3), "10.0.0.1:5003".to_owned()));
    assert_eq!((grant.until, gate.deadline()), (at(5000), Some(at(5000))));
    let leased = gate.enter(at(1)).unwrap();
    assert_eq!(leased.epoch(), Epoch(3));
    gate.leave(leased, at(1));
}

#[test]
fn keys_that_disagree_open_nothing() {
    type Spoil = fn(&mut Facts);
    let spoils: [(&str, Spoil, Closed); 8] = [
        ("no primary", |f| f.primary = None, Closed::NoAuthority(Epoch(3))),
        ("no ready", |f| f.ready = None, Closed::NotReady(Epoch(3))),
        ("older ready", |f| f.ready.as_mut().unwrap().epoch = Epoch(2), Closed::NotReady(Epoch(3))),
        ("ready on another lease", |f| f.ready.as_mut().unwrap().lease = LeaseId(99), Closed::NotReady(Epoch(3))),
        (
            "older primary",
            |f| f.primary.as_mut().unwrap().epoch = Epoch(2),
            Closed::OtherAuthority { epoch: Epoch(3), primary: Epoch(2) },
        ),
        ("no cluster data", |f| f.cluster = Cluster::Absent, Closed::NoClusterData),
        ("own registration gone", |f| f.registration = None, Closed::Unregistered),
        ("registration on another lease", |f| f.registration = Some(LeaseId(7)), Closed::Unregistered),
    ];
    for (what, spoil, closed) in spoils {
        let (mut gate, mut facts) = (Gate::default(), serving(20, 3));
        spoil(&mut facts);
        gate.registered(lease(5000, 10), at(0));
        gate.read(facts, at(0));
        assert_eq!(gate.closed(), Some(&closed), "{what}");
        assert!(gate.enter(at(1)).is_none() && gate.grant().is_none(), "{what}");
    }
}

#[test]
fn nothing_opens_without_a_valid_registration() {
    let mut gate = Gate::default();
    gate.read(serving(20, 3), at(0));
    assert_eq!(gate.closed(), Some(&Closed::NotRegistered));
    gate.registered(lease(5000, 10), at(5000));
    assert_eq!(gate.closed(), Some(&Closed::Expired));
    gate.registered(lease(9000, 10), at(5001));
    assert_eq!(gate.closed(), None);
}

#[test]
fn execution_12_a_new_registration_waits_for_a_mirror_that_is_newer_than_itself() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    gate.registered(None, at(100));
    assert!(gate.grant().is_none(), "without a registration everything is cut");
    gate.leave(leased, at(100));
    gate.registered(lease(5100, 31), at(110));
    assert_eq!(gate.closed(), Some(&Closed::Outdated { read: Revision(20), registered_at: Revision(31) }));
    assert!(gate.enter(at(110)).is_none(), "by the cached view it would route");
    gate.read(serving(30, 3), at(120));
    assert!(gate.enter(at(120)).is_none(), "one revision short");
    gate.read(marked(31, 3), at(130));
    assert!(gate.enter(at(130)).is_none(), "epoch 3 has ended meanwhile");
}

#[test]
fn a_registration_that_changed_between_two_looks_still_cuts_what_the_old_one_covered() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    gate.registered(Some(Lease { id: LeaseId(0xb2), deadline: at(6000), registered_at: Revision(15) }), at(100));
    assert!(gate.grant().is_none(), "the leader no longer waits for the old one");
    gate.leave(leased, at(101));
    gate.read(Facts { registration: Some(LeaseId(0xb2)), ..serving(21, 3) }, at(102));
    assert_eq!(gate.closed(), None);
}

#[test]
fn execution_13_a_dial_in_progress_holds_the_acknowledgement_up() {
    let mut gate = routing();
    let mut dialing = gate.enter(at(1)).unwrap();
    gate.read(marked(21, 3), at(2));
    assert_eq!((gate.grant(), gate.acknowledged()), (None, Epoch(2)));
    assert!(!gate.connected(&mut dialing, at(3)), "the dial finishes after the mark");
    assert_eq!(gate.acknowledged(), Epoch(2));
    gate.leave(dialing, at(4));
    assert_eq!(gate.acknowledged(), Epoch(3));
}

#[test]
fn a_mark_is_acknowledged_when_the_last_connection_is_gone() {
    let mut gate = routing();
    let (first, second) = (inside(&mut gate), inside(&mut gate));
    assert_eq!(gate.connections(), 2);
    gate.read(marked(21, 3), at(2));
    gate.leave(first, at(3));
    assert_eq!((gate.acknowledged(), gate.connections()), (Epoch(2), 1));
    gate.leave(second, at(4));
    assert_eq!((gate.acknowledged(), gate.closed()), (Epoch(3), Some(&Closed::Fenced(Epoch(3)))));
}

#[test]
fn a_mark_of_whatever_epoch_closes() {
    let (mut gate, mut facts) = (routing(), serving(21, 3));
    if let Cluster::Known { mark: slot, .. } = &mut facts.cluster {
        *slot = mark(2);
    }
    gate.read(facts, at(1));
    assert_eq!((gate.closed(), gate.acknowledged()), (Some(&Closed::Fenced(Epoch(2))), Epoch(2)));
}

#[test]
fn a_mark_is_acknowledged_at_once_without_a_route_and_without_a_registration() {
    let mut gate = Gate::default();
    gate.read(marked(20, 3), at(0));
    assert_eq!(gate.acknowledged(), Epoch(3));
}

#[test]
fn a_grant_that_arrives_while_draining_is_ignored_until_the_acknowledgement_was_possible() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    gate.read(marked(21, 3), at(2));
    gate.read(serving(25, 4), at(3));
    assert_eq!(gate.closed(), Some(&Closed::Draining(Epoch(3))));
    assert!(gate.enter(at(3)).is_none() && gate.acknowledged() == Epoch(2));
    gate.leave(leased, at(4));
    assert_eq!((gate.acknowledged(), gate.closed()), (Epoch(3), None));
    assert_eq!(gate.grant().unwrap().route.epoch, Epoch(4));
}

#[test]
fn a_newer_epoch_ends_the_older_ones_also_when_its_mark_was_never_seen() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    let mut committed = serving(25, 4);
    committed.ready = None;
    gate.read(committed, at(2));
    assert_eq!((gate.grant(), gate.closed()), (None, Some(&Closed::NotReady(Epoch(4)))));
    gate.leave(leased, at(3));
    assert_eq!(gate.acknowledged(), Epoch(3));
}

#[test]
fn a_mark_heard_by_stream_acts_before_the_mirror_tells_and_the_stream_opens_nothing() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    gate.heard(heard(21, 3, mark(3)), at(2));
    assert_eq!(gate.grant(), None);
    assert_eq!(gate.mark(), mark(3).as_ref());
    gate.leave(leased, at(3));
    assert_eq!(gate.acknowledged(), Epoch(3));
    gate.heard(heard(22, 4, None), at(4));
    assert!(gate.enter(at(4)).is_none(), "routes are opened by etcd's keys");
    gate.read(serving(20, 3), at(5));
    assert!(gate.enter(at(5)).is_none(), "the mirror still shows the ended epoch");
    gate.read(serving(23, 4), at(6));
    assert_eq!(gate.grant().unwrap().route.epoch, Epoch(4));
}

#[test]
fn an_older_view_from_a_stream_changes_nothing() {
    let mut gate = routing();
    gate.heard(heard(20, 3, mark(3)), at(1));
    gate.heard(heard(4, 3, mark(3)), at(1));
    assert_eq!(gate.closed(), None);
}

#[test]
fn a_view_of_another_cluster_changes_nothing() {
    let mut gate = routing();
    let other = ClusterUid::parse("other").unwrap();
    gate.heard(Heard { uid: other, ..heard(90, 9, mark(9)) }, at(1));
    assert_eq!(gate.closed(), None);
}

#[test]
fn a_stream_that_names_an_epoch_nobody_has_seen_does_not_close_the_gate_for_ever() {
    let mut gate = routing();
    gate.heard(heard(21, u64::MAX, mark(u64::MAX)), at(1));
    assert_eq!((gate.grant(), gate.acknowledged()), (None, Epoch(3)));
    gate.read(serving(22, 4), at(2));
    assert_eq!(gate.closed(), None);
}

#[test]
fn a_changed_revision_or_lease_deadline_cuts_nothing() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    let serial = gate.grant().unwrap().serial;
    gate.read(serving(30, 3), at(10));
    gate.registered(lease(7000, 10), at(20));
    let grant = gate.grant().unwrap();
    assert_eq!((grant.serial, grant.until), (serial, at(7000)));
    gate.leave(leased, at(21));
}

#[test]
fn past_the_own_deadline_everything_is_cut_and_a_late_renewal_opens_a_new_grant() {
    let mut gate = routing();
    let mut leased = inside(&mut gate);
    let serial = gate.grant().unwrap().serial;
    gate.tick(at(4999));
    assert!(gate.grant().is_some());
    gate.tick(at(5000));
    assert_eq!((gate.grant(), gate.closed()), (None, Some(&Closed::Expired)));
    gate.registered(lease(9000, 10), at(5100));
    assert_eq!(gate.closed(), Some(&Closed::Draining(Epoch(3))), "what was cut stays cut");
    assert!(!gate.connected(&mut leased, at(5100)));
    gate.leave(leased, at(5101));
    assert_ne!(gate.grant().unwrap().serial, serial);
}

#[test]
fn a_renewal_does_not_revive_what_ran_out_before_it() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    gate.registered(lease(9000, 10), at(5000));
    assert_eq!((gate.grant(), gate.closed()), (None, Some(&Closed::Draining(Epoch(3)))));
    gate.leave(leased, at(5001));
    assert!(gate.grant().is_some());
}

#[test]
fn a_thawed_proxy_finds_its_deadline_past_before_anybody_told_it() {
    let mut gate = routing();
    assert!(gate.enter(at(5000)).is_none());
    assert_eq!(gate.closed(), Some(&Closed::Expired));
}

#[test]
fn epochs_never_fall() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    gate.read(serving(30, 2), at(1));
    assert_eq!(gate.closed(), Some(&Closed::WentBack { seen: Epoch(3), found: Epoch(2) }));
    assert_eq!(gate.grant(), None);
    gate.leave(leased, at(2));
    assert!(gate.enter(at(3)).is_none());
}

#[test]
fn connections_outlive_the_keys_of_the_primary_within_their_epoch() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    let serial = gate.grant().unwrap().serial;
    gate.read(Facts { primary: None, ready: None, ..serving(21, 3) }, at(1));
    let grant = gate.grant().unwrap();
    assert!(grant.serial == serial && !grant.open && gate.enter(at(1)).is_none(), "no new ones meanwhile");
    assert_eq!(gate.closed(), Some(&Closed::NoAuthority(Epoch(3))));
    gate.registered(lease(8000, 10), at(2));
    assert_eq!(gate.grant().unwrap().until, at(8000), "renewals still count");
    gate.read(serving(22, 3), at(3));
    assert_eq!((gate.closed(), gate.grant().unwrap().serial), (None, serial), "put back (R3)");
    gate.leave(leased, at(4));
}

#[test]
fn a_primary_that_moved_within_its_epoch_is_dialled_at_its_new_address_only() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    let mut moved = serving(21, 3);
    moved.ready.as_mut().unwrap().port = 6000;
    gate.read(moved, at(1));
    assert_eq!((gate.grant(), gate.closed()), (None, Some(&Closed::Draining(Epoch(3)))));
    gate.leave(leased, at(2));
    assert_eq!(gate.grant().unwrap().route.port, 6000);
}

#[test]
fn cluster_data_that_cant_be_read_change_nothing() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    let unusable = |revision| Facts { cluster: Cluster::Unusable("not JSON".into()), ..serving(revision, 3) };
    gate.read(unusable(21), at(1));
    assert_eq!((gate.closed(), gate.grant().unwrap().open), (None, true));
    gate.leave(leased, at(1));
    let again = gate.enter(at(2)).unwrap();
    gate.leave(again, at(2));
    gate.read(Facts { primary: None, ..unusable(22) }, at(3));
    assert_eq!(gate.closed(), Some(&Closed::Unusable("not JSON".into())), "the keys beside it count");
    let mut fresh = Gate::default();
    fresh.registered(lease(5000, 10), at(0));
    fresh.read(unusable(21), at(0));
    assert!(fresh.enter(at(0)).is_none(), "and they open nothing");
}

#[test]
fn a_primary_is_new_when_its_epoch_began_before_our_eyes() {
    let mut gate = routing();
    assert!(!gate.grant().unwrap().began, "a proxy that starts finds an old ready key");
    gate.read(marked(21, 3), at(1));
    gate.read(serving(22, 4), at(2));
    assert!(gate.grant().unwrap().began);
    gate.registered(None, at(3));
    gate.registered(lease(9000, 10), at(4));
    assert_eq!(gate.closed(), None);
    assert!(!gate.grant().unwrap().began, "once per epoch");
}

#[test]
fn an_older_snapshot_is_ignored() {
    let mut gate = routing();
    gate.read(serving(25, 4), at(1));
    gate.read(serving(21, 3), at(2));
    assert_eq!(gate.grant().unwrap().route.epoch, Epoch(4));
}

#[test]
fn a_store_that_is_not_the_known_one_ends_all_for_good() {
    let mut gate = routing();
    let leased = inside(&mut gate);
    let why = "another etcd cluster answers".to_owned();
    gate.refuse(why.clone(), at(2));
    assert!(gate.grant().is_none() && gate.enter(at(2)).is_none());
    gate.leave(leased, at(2));
    gate.registered(lease(9000, 10), at(3));
    gate.read(serving(30, 4), at(3));
    assert_eq!((gate.grant(), gate.closed()), (None, Some(&Closed::Refused(why))));
}
