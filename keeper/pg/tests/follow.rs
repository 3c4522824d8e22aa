//! Whom a standby follows, and the files that say so.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_turns_to_another_upstream_by_a_reload_alone() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    let (three, third) = Node::standby("c", &one).await;
    first.kill_all().await;
    two.configure(ConfRole::Standby { upstream: None });
    let position = second.recruit(PATIENCE).await.unwrap();
    within("the promotion", second.promote()).await.unwrap();
    three.slot_at(&two).await;
    let began = Instant::now();
    let change = three.configure(three.following(&two));
    assert_eq!(change, ConfChange { parameters: vec!["primary_conninfo".into()], hba: false, role: false });
    assert!(change.needs_reload() && change.restart_candidates().is_empty());
    third.reload().await.unwrap();
    three.wait_streaming(&two).await;
    figure("following the new primary", vec![began.elapsed()]);
    two.sql("CREATE TABLE t ()").await;
    three.catch_up(&two).await;
    let state = three.instance.ask(&two.server()).await.unwrap();
    assert!(!state.in_recovery && state.position.timeline == 2 && state.position.lsn > position.lsn, "{state:?}");
    assert_eq!(state.lineage.len(), 1);
    assert!(history::follows(position, 2, &state.lineage));
    let me = two.instance.ask(&three.server()).await.unwrap();
    assert_eq!((me.in_recovery, me.system_id), (true, state.system_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_without_an_upstream_starts_again_and_follows_nobody() {
    let (one, _first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    assert!(second.fast_stop(PATIENCE).await);
    let change = two.configure(ConfRole::Standby { upstream: None });
    assert_eq!(change.parameters, ["primary_conninfo"]);
    let _second = two.start(ConfRole::Standby { upstream: None }).await;
    one.sql("CREATE TABLE t ()").await;
    assert_eq!(two.sql("SELECT count(*) FROM pg_stat_wal_receiver").await, "0");
    assert_eq!(two.sql("SELECT pg_is_in_recovery()").await, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_in_the_settings_that_everybody_may_read() {
    let (one, _first) = Node::primary("a").await;
    let (two, _second) = Node::standby("b", &one).await;
    for statement in ["SHOW primary_conninfo", "SELECT conninfo FROM pg_stat_wal_receiver"] {
        let text = two.sql(statement).await;
        assert!(text.contains("passfile") && !text.contains("re:pl") && !text.contains("'-77"), "{text}");
    }
    for file in ["postgresql.conf", "pg_hba.conf"] {
        let text = fs::read_to_string(two.instance.data_dir().join(file)).unwrap();
        assert!(!text.contains("9f3a") && !text.contains("re:pl"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_files_are_left_alone_and_alter_system_is_of_no_effect() {
    let mut node = Node::copied("a");
    // Before 17 it fails because the link can't be synced.
    node.settings.parameters.remove("fsync");
    let _postmaster = node.start(ConfRole::Primary).await;
    assert_eq!(node.configure(ConfRole::Primary), ConfChange::default());
    node.try_sql("ALTER SYSTEM SET work_mem = '5MB'").await.unwrap_err();
    let change = node.configure_sync(ConfRole::Primary, "b");
    assert_eq!(change.parameters, ["synchronous_standby_names"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_internal_users_come_in_while_nobody_else_is_admitted() {
    let (node, postmaster) = Node::primary("a").await;
    node.sql("CREATE ROLE client LOGIN PASSWORD 'x'").await;
    let client = || {
        let mut config = tokio_postgres::Config::new();
        config.user("client").password("x").dbname("postgres").host("127.0.0.1").port(node.port());
        sql::session(config, PATIENCE, "log in", async |_| Ok(()))
    };
    client().await.unwrap();
    let input = ConfInput {
        db: &node.db,
        settings: &node.settings,
        role: ConfRole::Primary,
        synchronous_standby_names: String::new(),
        admit: Admit::InternalOnly,
    };
    let change = node.instance.write_conf(&input).unwrap();
    assert!(change.hba && change.needs_reload());
    postmaster.reload().await.unwrap();
    until("the client is refused", async || client().await.is_err()).await;
    assert_eq!(node.sql("SELECT 1").await, "1");
    node.configure(ConfRole::Primary);
    postmaster.reload().await.unwrap();
    until("the client is admitted", async || client().await.is_ok()).await;
}
