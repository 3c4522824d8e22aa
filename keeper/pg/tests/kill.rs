//! R4: the end of a server, now; and the end in good order, with a deadline.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::*;

/// Sessions in the middle of queries that never look up.
async fn busy(node: &Node, count: usize) -> Writers {
    const LOOP: &str = "DO $$ DECLARE n bigint := 0; BEGIN LOOP n := n + 1; END LOOP; END $$";
    let session = |_| {
        let config = sql::local(&node.instance);
        tokio::spawn(async move {
            let _ = sql::session(config, PATIENCE, "count", async |c| c.simple_query(LOOP).await.map(drop)).await;
        })
    };
    let writers = Writers((0..count).map(session).collect());
    node.wait_sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'", &count.to_string()).await;
    writers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_no_process_and_takes_milliseconds() {
    let mut times = Vec::new();
    let node = Node::copied("a");
    for _ in 0..5 {
        let postmaster = node.start(ConfRole::Primary).await;
        let _busy = busy(&node, 3).await;
        let before = node.processes();
        let killed = postmaster.kill_all().await;
        assert_eq!(node.processes(), [0; 0]);
        assert!(postmaster.has_exited());
        // The session that looked whether they are busy may just have been ending.
        assert!(killed.processes + 1 >= before.len() && killed.lingering == 0, "{killed:?} of {before:?}");
        times.push(killed.took);
    }
    figure("kill_all", times.clone());
    assert!(times.iter().min().is_some_and(|best| *best < Duration::from_millis(200)), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_postmaster_is_killed_too() {
    let (node, postmaster) = Node::primary("a").await;
    let _busy = busy(&node, 1).await;
    postmaster.signal(Signal::STOP).unwrap();
    let killed = postmaster.kill_all().await;
    assert_eq!((node.processes().len(), killed.lingering), (0, 0), "{killed:?}");
    assert!(postmaster.has_exited());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_outlived_their_postmaster_are_killed_by_their_folder() {
    let (node, postmaster) = Node::primary("a").await;
    let _busy = busy(&node, 2).await;
    postmaster.signal(Signal::KILL).unwrap();
    within("the end", postmaster.exited()).await;
    assert_eq!(postmaster.ending(), "killed by signal 9");
    assert!(!node.processes().is_empty());
    kill_postgres(&node.instance.data_dir(), None, node.instance.run_as());
    assert_eq!(node.processes(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_started_is_killed_with_it() {
    let (node, postmaster) = Node::primary("a").await;
    let config = sql::local(&node.instance);
    let statement = "COPY (SELECT 1) TO PROGRAM 'exec sleep 60'";
    let session = tokio::spawn(async move {
        let _ = sql::session(config, PATIENCE, "copy", async |c| c.simple_query(statement).await.map(drop)).await;
    });
    let sleeping = || {
        let runs = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        node.processes().iter().any(runs)
    };
    until("the program runs", async || sleeping()).await;
    postmaster.kill_all().await;
    assert_eq!(node.processes(), [0; 0]);
    within("the session's end", session).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_instance_is_not_touched() {
    let ((_one, first), (two, second)) = (Node::primary("a").await, Node::primary("b").await);
    first.kill_all().await;
    assert!(!second.has_exited());
    assert_eq!(two.sql("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_stop_ends_sessions_and_writes_a_checkpoint() {
    let node = Node::copied("a");
    let mut times = Vec::new();
    for _ in 0..3 {
        let postmaster = node.start(ConfRole::Primary).await;
        let _busy = busy(&node, 2).await;
        let began = Instant::now();
        assert!(postmaster.fast_stop(PATIENCE).await);
        times.push(began.elapsed());
        assert_eq!(node.processes(), [0; 0]);
        assert_eq!(node.instance.control().await.unwrap().state, ClusterState::ShutDown);
    }
    figure("fast_stop of an idle primary", times);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_stop_that_takes_too_long_becomes_a_kill() {
    let (node, postmaster) = Node::primary("a").await;
    postmaster.signal(Signal::STOP).unwrap();
    let began = Instant::now();
    assert!(!postmaster.fast_stop(Duration::from_millis(200)).await);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(node.processes(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fast_stop_of_what_has_ended_returns_at_once() {
    let (node, postmaster) = Node::primary("a").await;
    let _busy = busy(&node, 1).await;
    postmaster.signal(Signal::KILL).unwrap();
    within("the end", postmaster.exited()).await;
    within("the stop", postmaster.fast_stop(PATIENCE)).await;
    assert_eq!(node.processes(), [0; 0], "its sessions are gone as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_for_a_handover_tells_the_end_of_wal_which_a_standby_has_then() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    two.wait_streaming(&one).await;
    let _busy = busy(&one, 2).await;
    assert_eq!(one.instance.shut_down_at(), None, "it runs");
    let mut times = Vec::new();
    let began = Instant::now();
    first.stop_for_handover(PATIENCE, PATIENCE).await;
    times.push(began.elapsed());
    figure("stop_for_handover", times);
    let control = one.instance.control().await.unwrap();
    let end = one.instance.shut_down_at().unwrap();
    assert_eq!(control.state, ClusterState::ShutDown);
    assert_eq!((end.timeline, end.lsn.0), (control.checkpoint.timeline, control.checkpoint.lsn.0 + 1));
    assert!(second.recruit(PATIENCE).await.unwrap() >= end);
    let again = one.start(ConfRole::Primary).await;
    again.kill_all().await;
    assert_eq!(one.instance.shut_down_at(), None, "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_for_a_handover_waits_for_a_frozen_standby_only_a_little_and_ends_in_good_order() {
    let (one, first) = Node::primary("a").await;
    let (two, _second) = Node::standby("b", &one).await;
    two.wait_streaming(&one).await;
    let frozen: Vec<_> = two.processes().into_iter().map(pidfd).collect();
    frozen.iter().for_each(|process| pidfd_send_signal(process, Signal::STOP).unwrap());
    one.sql("CREATE TABLE t ()").await;
    let (grace, began) = (Duration::from_millis(500), Instant::now());
    first.stop_for_handover(PATIENCE, grace).await;
    assert!(began.elapsed() >= grace, "it asks the standby: {:?}", began.elapsed());
    assert!(began.elapsed() < grace + Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(one.processes(), [0; 0]);
    assert!(one.instance.shut_down_at().is_some(), "{:?}", one.instance.control().await);
    frozen.iter().for_each(|process| pidfd_send_signal(process, Signal::CONT).unwrap());
}

fn pidfd(pid: u32) -> OwnedFd {
    pidfd_open(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty()).unwrap()
}
