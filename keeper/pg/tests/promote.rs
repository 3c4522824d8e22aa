//! The promotion of a standby.

use super::*;

/// The longest that a promotion may take here; the trap is 5 s, and two busy cores make anything slow.
const SOON: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_returns_the_new_timeline_and_where_it_began() {
    let (one, _first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    one.sql("CREATE TABLE t (i int, x text)").await;
    two.catch_up(&one).await;
    let replayed = two.lsn("pg_last_wal_replay_lsn()").await;
    let promoted = within("the promotion", second.promote()).await.unwrap();
    assert_eq!(promoted.timeline, 2);
    assert!(promoted.switch_lsn >= replayed, "{promoted:?}, replayed {replayed}");
    assert_eq!(two.instance.lineage(2).unwrap(), [history::Switch { timeline: 1, lsn: promoted.switch_lsn }]);
    assert!(two.instance.in_production() && !two.instance.is_standby());
    two.sql("INSERT INTO t VALUES (1)").await;
    let error = second.promote().await.unwrap_err();
    assert!(matches!(error, PgError::Refused(_)), "{error}");
}

/// The 5-second trap, with PostgreSQL's own setting: asked once, more than half of these would take 5 s. (The setting that
/// the keeper writes would hide a promotion that has to wait for it.)
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_right_after_the_primarys_death_does_not_wait() {
    let mut times = Vec::new();
    for pause in [0, 1, 2, 3, 4, 8] {
        let (one, first) = Node::primary("a").await;
        let (two, second) = Node::standby("b", &one).await;
        let conf = two.instance.data_dir().join("postgresql.conf");
        let text = fs::read_to_string(&conf).unwrap() + "wal_retrieve_retry_interval = '5s'\n";
        two.instance.write_owned(&conf, text.as_bytes()).unwrap();
        second.reload().await.unwrap();
        two.wait_sql("SHOW wal_retrieve_retry_interval", "5s").await;
        first.signal(rustix::process::Signal::KILL).unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let began = Instant::now();
        within("the promotion", second.promote()).await.unwrap();
        two.sql("CREATE TABLE t ()").await;
        times.push(began.elapsed());
    }
    figure("promote after kill -9, until the first commit", times.clone());
    assert!(times.iter().all(|time| *time < SOON), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_after_a_recruit_is_as_quick() {
    let mut times = Vec::new();
    for _ in 0..3 {
        let (one, first) = Node::primary("a").await;
        let (two, second) = Node::standby("b", &one).await;
        first.kill_all().await;
        two.configure(ConfRole::Standby { upstream: None });
        second.recruit(PATIENCE).await.unwrap();
        let began = Instant::now();
        within("the promotion", second.promote()).await.unwrap();
        times.push(began.elapsed());
    }
    figure("promote after a recruit", times.clone());
    assert!(times.iter().all(|time| *time < SOON), "{times:?}");
}

/// Asked before the server is ready, it must not be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_has_only_just_been_started_is_promoted() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    first.kill_all().await;
    second.kill_all().await;
    two.configure(ConfRole::Standby { upstream: None });
    let second = Postmaster::spawn(&two.instance).unwrap();
    let promoted = within("the promotion", second.promote()).await.unwrap();
    assert_eq!(promoted.timeline, 2);
    two.sql("CREATE TABLE t ()").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_ends_the_wait() {
    let (one, _first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    second.signal(rustix::process::Signal::STOP).unwrap();
    let waiting = tokio::spawn({
        let second = second.clone();
        async move { second.promote().await }
    });
    until("the request is there", async || two.instance.data_dir().join("promote").exists()).await;
    second.kill_all().await;
    let error = within("the end", waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, PgError::Exited(_)), "{error}");
    assert!(!two.instance.data_dir().join("promote").exists(), "the next start must not find the request");
}
