//! The guard's core on values, and what a keeper's state makes of its orders. Executions are those of the protocol.

use std::{path::Path, sync::Arc, time::Duration};

use stolon::{
    model::{DbUid, Epoch, KeeperUid, LeaseId, Moment, Revision, registration::PrimaryKey},
    store::{Held, LeaseState, Mirror},
};

use super::{
    core::{Armed, Guard, Next, Order, Verdict},
    frame,
    keep::order,
    obituary::obituary,
    process::connection,
};
use crate::{
    journal::{DbState, Journal, KeeperState},
    pg::{Killed, ProcessId},
    state::{Phase, State},
};

const SERVER: ProcessId = ProcessId { pid: 7, started: 70 };

fn at(millis: u64) -> Moment {
    Moment::from_boot(Duration::from_millis(millis))
}

fn armed(epoch: u64, lease: i64, until: u64) -> Armed {
    Armed { epoch: Epoch(epoch), lease: LeaseId(lease), until: at(until), postmaster: Some(SERVER) }
}

/// Armed for epoch 3 on lease 77 until 5000, with a keeper.
fn guard() -> Guard {
    let mut guard = Guard::default();
    guard.keeper_came();
    assert_eq!(guard.told(Order::Arm(armed(3, 77, 5000)), at(1000)), Verdict::Taken);
    guard
}

#[test]
fn the_deadline_stands_when_the_keeper_goes_and_the_server_dies_at_it() {
    let mut guard = guard();
    guard.keeper_gone();
    assert_eq!(guard.next(at(4999)), Next::Wait, "R16: a crashed keeper alone is no failover");
    assert_eq!(guard.next(at(5000)), Next::Kill);
    guard.killed();
    assert_eq!(guard.next(at(5001)), Next::Exit);
}

#[test]
fn execution_1_the_keepalives_of_a_new_lease_move_nothing() {
    let mut guard = guard();
    assert_eq!(guard.told(Order::Extend(armed(3, 78, 9000)), at(2000)), Verdict::Refused);
    assert_eq!(guard.told(Order::Extend(armed(4, 77, 9000)), at(2000)), Verdict::Refused);
    assert_eq!(guard.armed(), Some(armed(3, 77, 5000)));
    assert_eq!(guard.told(Order::Extend(armed(3, 77, 6000)), at(2000)), Verdict::Taken);
    assert_eq!((guard.next(at(5999)), guard.next(at(6000))), (Next::Wait, Next::Kill));
}

#[test]
fn execution_2_without_a_reading_a_deadline_only_comes_nearer() {
    let mut guard = guard();
    guard.told(Order::Bound(armed(3, 0, 9000)), at(1000));
    assert_eq!(guard.armed(), Some(armed(3, 77, 5000)));
    guard.told(Order::Bound(armed(3, 0, 4000)), at(1000));
    assert_eq!(guard.armed(), Some(armed(3, 77, 4000)));
    let mut fresh = Guard::default();
    fresh.told(Order::Bound(armed(3, 0, 4000)), at(1000));
    assert_eq!(fresh.next(at(4000)), Next::Kill);
}

#[test]
fn execution_22_a_late_word_revives_nothing() {
    let mut guard = guard();
    for late in [Order::Extend(armed(3, 77, 9000)), Order::Arm(armed(4, 78, 9000)), Order::Disarm] {
        assert_eq!(guard.told(late, at(5000)), Verdict::TooLate, "{late:?}");
        assert_eq!(guard.next(at(5000)), Next::Kill, "{late:?}");
    }
}

#[test]
fn a_reading_may_arm_anew_and_epochs_never_fall() {
    let mut guard = guard();
    assert_eq!(guard.told(Order::Arm(armed(2, 79, 9000)), at(1000)), Verdict::Refused);
    assert_eq!(guard.told(Order::Arm(armed(4, 79, 9000)), at(1000)), Verdict::Taken);
    assert_eq!(guard.next(at(8999)), Next::Wait);
}

#[test]
fn it_ends_with_postgres_when_no_keeper_is_there() {
    let mut guard = guard();
    assert_eq!(guard.postgres_ended(ProcessId { pid: 7, started: 71 }), Next::Wait, "another process");
    assert_eq!(guard.postgres_ended(SERVER), Next::Wait, "the keeper kills what is left of it, and says so");
    assert_eq!(guard.next(at(5000)), Next::Kill, "if it does not");
    assert_eq!(guard.told(Order::Disarm, at(3000)), Verdict::Taken);
    assert_eq!(guard.next(at(9000)), Next::Wait, "ready for the next server");

    let mut alone = self::guard();
    alone.keeper_gone();
    assert_eq!(alone.postgres_ended(SERVER), Next::Kill, "sessions may have outlived it");
    alone.killed();
    assert_eq!(alone.next(at(2000)), Next::Exit);
}

/// Both may end at once; which of them the guard hears of first is chance.
#[test]
fn a_keeper_that_goes_right_after_its_server_leaves_the_rest_to_the_guard() {
    let mut one = guard();
    assert_eq!(one.postgres_ended(SERVER), Next::Wait);
    one.keeper_gone();
    assert_eq!(one.next(at(1001)), Next::Kill);
    one.killed();
    assert_eq!(one.next(at(1002)), Next::Exit);
    let mut other = guard();
    other.postgres_ended(SERVER);
    assert_eq!(other.told(Order::Disarm, at(1001)), Verdict::Taken, "the keeper has seen to it");
    other.told(Order::Arm(Armed { postmaster: None, ..armed(3, 77, 5000) }), at(1002));
    other.keeper_gone();
    assert_eq!(other.next(at(1003)), Next::Wait, "armed for the next server");
}

#[test]
fn frames_carry_everything_and_another_version_is_refused() {
    let unknown = Armed { postmaster: None, ..armed(1, -5, 3) };
    for order in [Order::Ask, Order::Arm(armed(3, 77, 5)), Order::Extend(unknown), Order::Bound(unknown), Order::Disarm]
    {
        assert_eq!(frame::read_order(&frame::order(order)), Some(order));
    }
    for verdict in [Verdict::Taken, Verdict::Refused, Verdict::TooLate] {
        let answer = frame::Answer { verdict, armed: Some(armed(3, 77, 5)) };
        assert_eq!(frame::read_answer(&frame::answer(answer)), Some(answer));
    }
    let mut newer = frame::order(Order::Ask);
    newer[0] += 1;
    assert_eq!(frame::read_order(&newer), None);
}

fn lease(id: i64, deadline: u64) -> LeaseState {
    LeaseState { id: LeaseId(id), deadline: at(deadline), granted: Duration::from_secs(5), registered_at: Revision(1) }
}

/// A keeper that holds epoch 3 on lease 77 until 5000, by a reading.
fn holder() -> State {
    let me = KeeperUid::parse("k1").unwrap();
    let mut state = State::new(me.clone(), KeeperState::default(), DbState::default(), Journal::default(), at(0));
    let value =
        PrimaryKey { keeper: me, db: DbUid::parse("db1").unwrap(), epoch: Epoch(3), traceparent: String::new() };
    let primary = Some(Held { value, lease: LeaseId(77), modified: Revision(10) });
    let mirror = Mirror { revision: Revision(10), primary, ..Mirror::default() };
    state.lease = Some(lease(77, 5000));
    state.authority.read(&mirror, &lease(77, 5000));
    state.mirror = Some(Arc::new(mirror));
    state.run.id = Some(SERVER);
    state
}

#[test]
fn a_standby_needs_no_guard_and_one_that_is_to_be_promoted_does() {
    let mut state = holder();
    state.run.phase = Phase::Standby;
    assert_eq!(order(&state, None, at(1)), None);
    assert_eq!(order(&state, Some(armed(3, 77, 5000)), at(1)), Some(Order::Disarm));
    state.arming = Some(Epoch(3));
    assert_eq!(order(&state, None, at(1)), Some(Order::Arm(armed(3, 77, 5000))));
    (state.run.phase, state.arming) = (Phase::Promoting, None);
    assert_eq!(order(&state, Some(armed(3, 77, 5000)), at(1)), None, "told once");
}

#[test]
fn each_answered_keepalive_of_the_lease_that_carries_the_key_moves_the_deadline() {
    let mut state = holder();
    state.run.phase = Phase::Primary;
    state.lease = Some(lease(77, 6000));
    assert_eq!(order(&state, Some(armed(3, 77, 5000)), at(1)), Some(Order::Extend(armed(3, 77, 6000))));
    // Execution 1 again, at the keeper's end: another lease is no authority, and says nothing.
    state.lease = Some(lease(78, 9000));
    assert_eq!(order(&state, Some(armed(3, 77, 5000)), at(1)), None);
    // An end of the right without a new one leaves the deadline where it was.
    state.lease = Some(lease(77, 5000));
    assert_eq!(order(&state, Some(armed(3, 77, 5000)), at(5000)), None);
}

#[test]
fn execution_24_a_new_guard_gets_the_present_deadline() {
    let mut state = holder();
    state.run.phase = Phase::Primary;
    assert_eq!(order(&state, None, at(1)), Some(Order::Arm(armed(3, 77, 5000))));
    (state.lease, state.inherits_until) = (None, Some(at(4000)));
    assert_eq!(order(&state, None, at(1)), Some(Order::Bound(armed(0, 0, 4000))));
}

#[test]
fn a_tolerated_or_adopted_primary_has_the_deadline_that_the_keeper_keeps_itself() {
    let mut state = holder();
    (state.run.phase, state.lease, state.inherits_until) = (Phase::Primary, None, Some(at(4000)));
    assert_eq!(order(&state, Some(armed(3, 77, 5000)), at(1)), Some(Order::Bound(armed(0, 0, 4000))));
    assert_eq!(order(&state, Some(armed(3, 77, 4000)), at(1)), None);
    assert_eq!(state.deadline(at(3999)).unwrap().until, at(4000));
    assert!(state.must_die(at(4000)) && state.deadline(at(4000)).is_none());
    // A standby that was asked to promote before its keeper died, too; not the next server.
    state.run.phase = Phase::Standby;
    assert_eq!(order(&state, Some(armed(3, 77, 4000)), at(1)), None);
    state.ended(SERVER, at(2));
    assert_eq!(order(&state, Some(armed(3, 77, 4000)), at(3)), Some(Order::Disarm));
}

#[test]
fn whoever_is_no_keeper_gets_an_error_and_no_guard() {
    let nothing = || std::os::fd::OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let refused = |dir: &str| connection(Path::new(dir), nothing()).unwrap_err();
    assert!(refused("/nonexistent").contains("/nonexistent"));
    // The right place, and no keeper at the other end.
    assert!(refused(".").contains("by hand"));
    let (socket, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(connection(Path::new("/"), socket.try_clone().unwrap().into()).unwrap_err().contains("by hand"));
    assert!(connection(Path::new("."), socket.into()).is_ok());
}

#[test]
fn the_line_about_a_kill_names_what_is_known_in_the_form_of_the_log() {
    let killed = Killed { processes: 6, took: Duration::from_millis(3), lingering: 0 };
    let now = stolon::task::clock::now();
    let armed = Armed { epoch: Epoch(7), lease: LeaseId(5), until: now - Duration::from_millis(1), postmaster: None };
    let dir = Path::new("/var/lib/stolon/a");
    let line = obituary(dir, Some(SERVER), Some(armed), Some(now - Duration::from_secs(4)), now, killed);
    for part in [
        "Z ERROR stolon_keeper::guard: no authority any more for epoch 7 (last prolonged 2",
        "data_dir=/var/lib/stolon/a postmaster=7 processes=6 lingering=0 took_ms=3 after_deadline_ms=4",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(line.find('Z'), Some("2026-11-25T01:02:03.123456".len()), "{line}");
    let early = Armed { until: now + Duration::from_secs(3), ..armed };
    let line = obituary(dir, None, Some(early), None, now, killed);
    assert!(line.contains("the primary of epoch 7 has lost its postmaster") && !line.contains("after_"), "{line}");
}
