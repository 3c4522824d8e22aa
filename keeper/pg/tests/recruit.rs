//! R8: a standby leaves its primary and says how far it has come.

use stolon::model::Lsn;

use super::*;

/// Typical is far less; two busy cores make anything slow.
const SOON: Duration = Duration::from_secs(2);

async fn recruit(node: &Node, postmaster: &Postmaster) -> (stolon::model::WalPosition, Duration) {
    let began = Instant::now();
    node.configure(ConfRole::Standby { upstream: None });
    let position = postmaster.recruit(PATIENCE).await.unwrap();
    (position, began.elapsed())
}

/// What must be true of a recruit: all that it has received whole is replayed, nobody is followed, and so it stays.
async fn check(node: &Node, position: Lsn) {
    assert_eq!(node.lsn("pg_last_wal_replay_lsn()").await, position);
    assert_eq!(node.sql("SELECT count(*) FROM pg_stat_wal_receiver").await, "0");
    assert_eq!(node.sql("SHOW primary_conninfo").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_idle_upstream_the_position_is_the_upstreams() {
    let (one, _first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    let mut times = Vec::new();
    for turn in 0..15 {
        one.sql(&format!("CREATE TABLE t{turn} ()")).await;
        let flushed = one.lsn("pg_current_wal_flush_lsn()").await;
        one.wait_sql(&format!("SELECT min(flush_lsn) >= '{flushed}' FROM pg_stat_replication"), "t").await;
        let (position, took) = recruit(&two, &second).await;
        let later = one.lsn("pg_current_wal_flush_lsn()").await;
        assert!(flushed <= position.lsn && position.lsn <= later, "{flushed} <= {position:?} <= {later}");
        assert_eq!(position.timeline, 1);
        times.push(took);
        check(&two, position.lsn).await;
        two.configure(two.following(&one));
        second.reload().await.unwrap();
        two.wait_streaming(&one).await;
    }
    figure("recruit, idle upstream", times.clone());
    assert!(times.iter().all(|time| *time < SOON), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_writing_upstream_nothing_that_was_flushed_is_left_out() {
    let (one, _first) = Node::primary("a").await;
    one.sql("CREATE TABLE t (i int, x text)").await;
    let (two, second) = Node::standby("b", &one).await;
    let _writers = one.writers(3);
    let mut times = Vec::new();
    for _ in 0..15 {
        let before = one.lsn("pg_current_wal_flush_lsn()").await;
        one.wait_sql(&format!("SELECT min(flush_lsn) >= '{before}' FROM pg_stat_replication"), "t").await;
        let (position, took) = recruit(&two, &second).await;
        times.push(took);
        assert!(position.lsn >= before, "{position:?} lacks {before}");
        // What was received and not replayed is less than one record.
        let received = two.lsn("pg_last_wal_receive_lsn()").await;
        assert!(received.ahead_of(position.lsn) < 8192, "received {received}, {position:?}");
        check(&two, position.lsn).await;
        two.configure(two.following(&one));
        second.reload().await.unwrap();
        two.wait_streaming(&one).await;
    }
    figure("recruit, writing upstream", times.clone());
    assert!(times.iter().all(|time| *time < SOON), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_upstreams_death_every_acknowledged_commit_is_in() {
    let mut times = Vec::new();
    for turn in 0..6 {
        let (one, first) = Node::primary("a").await;
        one.sql("CREATE TABLE t (i int, x text)").await;
        let (two, second) = Node::standby("b", &one).await;
        one.configure_sync(ConfRole::Primary, "*");
        first.reload().await.unwrap();
        one.wait_sql("SELECT sync_state FROM pg_stat_replication", "sync").await;
        let _writers = one.writers(2);
        one.wait_sql("SELECT count(*) > 20 FROM t", "t").await;
        let seen: u64 = one.sql("SELECT count(*) FROM t").await.parse().unwrap();
        if turn % 2 == 0 {
            first.kill_all().await;
        } else {
            first.signal(rustix::process::Signal::KILL).unwrap();
        }
        let (position, took) = recruit(&two, &second).await;
        times.push(took);
        check(&two, position.lsn).await;
        let kept: u64 = two.sql("SELECT count(*) FROM t").await.parse().unwrap();
        assert!(kept >= seen, "{kept} rows of {seen}");
        tokio::time::sleep(Duration::from_millis(150)).await;
        check(&two, position.lsn).await;
    }
    figure("recruit, upstream killed", times.clone());
    assert!(times.iter().all(|time| *time < SOON), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recruit_that_is_started_again_has_the_same_position() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    one.sql("CREATE TABLE t AS SELECT generate_series(1, 20000)").await;
    two.catch_up(&one).await;
    first.kill_all().await;
    let (before, _) = recruit(&two, &second).await;
    second.kill_all().await;
    // Not waited for: a recruit of a server that is only starting waits by itself.
    let again = Postmaster::spawn(&two.instance).unwrap();
    let (after, took) = recruit(&two, &again).await;
    assert_eq!(after, before);
    figure("start and recruit of a crashed standby", vec![took]);
    assert!(again.fast_stop(PATIENCE).await);
    let again = Postmaster::spawn(&two.instance).unwrap();
    assert_eq!(recruit(&two, &again).await.0, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_no_recruit_and_the_deadline_holds() {
    let (one, first) = Node::primary("a").await;
    let error = first.recruit(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("not in recovery"), "{error}");
    let (_two, second) = Node::standby("b", &one).await;
    second.signal(rustix::process::Signal::STOP).unwrap();
    let error = second.recruit(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, PgError::TimedOut { .. }), "{error}");
}
