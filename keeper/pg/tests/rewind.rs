//! Diverged data on its way back.

use rustix::process::{Signal, kill_process};

use super::*;

/// A former primary whose standby was promoted; the former has WAL that the new one lacks, if `ahead`.
struct Fork {
    old: Node,
    new: Node,
    _postmaster: Postmaster,
}

#[derive(PartialEq)]
enum Stop {
    Clean,
    Crash,
}

async fn fork(stop: Stop, ahead: bool) -> Fork {
    let (old, first) = Node::primary("a").await;
    old.sql("CREATE TABLE t AS SELECT 'common' AS x").await;
    let (new, second) = Node::standby("b", &old).await;
    new.catch_up(&old).await;
    if ahead {
        new.configure(ConfRole::Standby { upstream: None });
        second.recruit(PATIENCE).await.unwrap();
        old.sql("UPDATE t SET x = 'lost'").await;
    }
    match stop {
        Stop::Clean => assert!(first.fast_stop(PATIENCE).await),
        Stop::Crash => assert_eq!(first.kill_all().await.lingering, 0),
    }
    new.configure(ConfRole::Standby { upstream: None });
    second.recruit(PATIENCE).await.unwrap();
    within("the promotion", second.promote()).await.unwrap();
    new.configure(ConfRole::Primary);
    Fork { old, new, _postmaster: second }
}

impl Fork {
    async fn rewind(&self) -> Rewound {
        let began = Instant::now();
        let rewound = within("the rewind", self.old.instance.rewind(&self.new.server())).await.unwrap();
        figure(&format!("rewind ({rewound:?})"), vec![began.elapsed()]);
        assert_eq!(self.old.instance.data_state(), DataState::Standby);
        assert!(self.old.processes().is_empty());
        rewound
    }

    /// The old data follows the new primary, and holds what that one holds.
    async fn check(&self) {
        self.old.slot_at(&self.new).await;
        let _standby = self.old.start(self.old.following(&self.new)).await;
        self.old.wait_streaming(&self.new).await;
        self.new.sql("CREATE TABLE later ()").await;
        self.old.catch_up(&self.new).await;
        assert_eq!(self.old.sql("SELECT x FROM t").await, "common");
        assert_eq!(self.old.sql("SELECT count(*) FROM later").await, "0");
        assert_eq!(self.old.instance.ask(&self.old.server()).await.unwrap().position.timeline, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_ended_in_good_order_is_rewound() {
    let fork = fork(Stop::Clean, true).await;
    assert_eq!(fork.rewind().await, Rewound::Changed);
    fork.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_data_is_recovered_first() {
    let fork = fork(Stop::Crash, true).await;
    assert_eq!(fork.rewind().await, Rewound::Changed);
    fork.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_part_of_the_past_needs_no_rewind() {
    for stop in [Stop::Clean, Stop::Crash] {
        let fork = fork(stop, false).await;
        assert_eq!(fork.rewind().await, Rewound::NotNeeded);
        fork.check().await;
    }
}

/// Recovery must add nothing to WAL: a checkpoint at its end would be off the source's history, unseen by pg_rewind.
#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_standby_that_lags_behind_the_switch_is_not_spoilt() {
    let (old, first) = Node::primary("a").await;
    old.sql("CREATE TABLE t AS SELECT 'common' AS x").await;
    let (new, second) = Node::standby("b", &old).await;
    let (lagging, third) = Node::standby("c", &old).await;
    lagging.catch_up(&old).await;
    third.kill_all().await;
    old.sql("CREATE TABLE more AS SELECT generate_series(1, 1000)").await;
    new.catch_up(&old).await;
    first.kill_all().await;
    new.configure(ConfRole::Standby { upstream: None });
    second.recruit(PATIENCE).await.unwrap();
    within("the promotion", second.promote()).await.unwrap();
    new.configure(ConfRole::Primary);
    let fork = Fork { old: lagging, new, _postmaster: second };
    assert_eq!(fork.rewind().await, Rewound::NotNeeded);
    fork.check().await;
    assert_eq!(fork.old.sql("SELECT count(*) FROM more").await, "1000");
}

/// Right after a promotion the source's control file is of the old timeline, and would mislead pg_rewind.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_has_not_written_a_checkpoint_yet_is_asked_for_one() {
    let (old, first) = Node::primary("a").await;
    old.sql("CREATE TABLE t AS SELECT 'common' AS x").await;
    let (new, second) = Node::standby("b", &old).await;
    new.catch_up(&old).await;
    new.configure(ConfRole::Standby { upstream: None });
    second.recruit(PATIENCE).await.unwrap();
    old.sql("UPDATE t SET x = 'lost'").await;
    assert!(first.fast_stop(PATIENCE).await);
    let checkpointer = new.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'").await;
    let checkpointer = proc::raw(checkpointer.parse().unwrap()).unwrap();
    kill_process(checkpointer, Signal::STOP).unwrap();
    within("the promotion", second.promote()).await.unwrap();
    let state = old.instance.ask(&new.server()).await.unwrap();
    assert_eq!((state.position.timeline, state.checkpoint_timeline), (2, 1));
    let fork = Fork { old, new, _postmaster: second };
    let asked = async {
        let statement = "SELECT count(*) FROM pg_stat_activity WHERE query = 'CHECKPOINT' AND state = 'active'";
        fork.new.wait_sql(statement, "1").await;
        kill_process(checkpointer, Signal::CONT).unwrap();
    };
    let (rewound, ()) = tokio::join!(fork.rewind(), asked);
    assert_eq!(rewound, Rewound::Changed);
    fork.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rewind_is_never_started_and_a_copy_heals_it() {
    let fork = fork(Stop::Clean, true).await;
    let (old, server) = (&fork.old, fork.new.server());
    let mut rewinding = Box::pin(old.instance.rewind(&server));
    tokio::select! {
        made = &mut rewinding => panic!("too early: {made:?}"),
        () = until("the marker", async || old.instance.rewind_marker().exists()) => {}
    }
    drop(rewinding);
    assert_eq!(old.instance.data_state(), DataState::Incomplete);
    assert!(!old.instance.is_initialized());
    let error = Postmaster::spawn(&old.instance).unwrap_err().to_string();
    assert!(error.contains("must be copied anew"), "{error}");
    assert!(old.instance.rewind(&server).await.unwrap_err().to_string().contains("copy it anew"));
    within("the copy", old.instance.base_backup(&server, "x")).await.unwrap();
    assert_eq!(old.instance.data_state(), DataState::Standby);
    fork.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_is_dropped_ends_its_server() {
    let fork = fork(Stop::Crash, true).await;
    let (old, server) = (&fork.old, fork.new.server());
    let mut rewinding = Box::pin(old.instance.rewind(&server));
    tokio::select! {
        made = &mut rewinding => panic!("too early: {made:?}"),
        () = until("the recovery", async || !old.processes().is_empty()) => {}
    }
    drop(rewinding);
    assert_eq!(old.processes(), [0; 0]);
    assert_eq!(fork.rewind().await, Rewound::Changed);
    fork.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_no_source() {
    let fork = fork(Stop::Clean, true).await;
    let other = Node::empty("x");
    within("initdb", other.instance.initdb(&NewConfig::default())).await.unwrap();
    let error = within("the rewind", other.instance.rewind(&fork.new.server())).await.unwrap_err().to_string();
    assert!(error.contains("another database"), "{error}");
    assert_eq!(other.instance.data_state(), DataState::Primary);
}
