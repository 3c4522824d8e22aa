//! Start, adopt, stop, end.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_and_is_adopted_by_the_next_keeper() {
    let (node, postmaster) = Node::primary("a").await;
    let adopted = Postmaster::adopt(&node.instance).unwrap().unwrap();
    assert_eq!(adopted.id(), postmaster.id());
    assert_eq!(within("status", adopted.wait_status(&[PmStatus::Ready])).await.unwrap(), PmStatus::Ready);
    let error = Postmaster::spawn(&node.instance).unwrap_err().to_string();
    assert!(error.contains("runs already"), "{error}");
    let other = adopted.clone();
    let waiting = tokio::spawn(async move { other.exited().await });
    assert!(postmaster.fast_stop(PATIENCE).await);
    assert_eq!(within("the end", waiting).await.unwrap().id, postmaster.id());
    assert!(adopted.has_exited() && postmaster.has_exited());
    assert_eq!(proc::Stat::read(postmaster.id().pid).map(|stat| stat.dead), None, "reaped, no zombie");
    assert!(Postmaster::adopt(&node.instance).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_does_not_depend_on_the_handle() {
    let (node, postmaster) = Node::primary("a").await;
    drop(postmaster);
    assert_eq!(node.sql("SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_file_that_names_a_stranger_is_neither_adopted_nor_in_the_way() {
    let node = Node::copied("a");
    node.configure(ConfRole::Primary);
    let mut command = Command::new("sleep");
    command.arg("60").current_dir("/");
    let mut stranger = runas::as_user(node.instance.run_as(), || command.spawn()).unwrap().unwrap();
    let (pid, data) = (stranger.id(), node.instance.data_dir());
    let text = format!("{pid}\n{}\n1700000000\n{}\n/tmp\n127.0.0.1\n 1 2\nready\n", data.display(), node.port());
    node.instance.write_owned(&data.join("postmaster.pid"), text.as_bytes()).unwrap();
    node.instance.write_owned(&node.instance.socket_lock(), text.as_bytes()).unwrap();
    assert!(Postmaster::adopt(&node.instance).unwrap().is_none());
    let started = Postmaster::spawn(&node.instance).unwrap();
    let status = within("the start", started.wait_status(&[PmStatus::Ready])).await;
    let spared = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    status.unwrap();
    assert!(spared, "the stranger is not ours to kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_file_left_by_a_kill_is_no_obstacle() {
    let (node, postmaster) = Node::primary("a").await;
    postmaster.kill_all().await;
    assert!(node.instance.data_dir().join("postmaster.pid").exists());
    assert!(Postmaster::adopt(&node.instance).unwrap().is_none());
    let again = node.start(ConfRole::Primary).await;
    assert_ne!(again.id(), postmaster.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unasked_end_wakes_every_waiter_at_once() {
    let (_node, postmaster) = Node::primary("a").await;
    let waiting = [postmaster.clone(), postmaster.clone()].map(|p| tokio::spawn(async move { p.exited().await }));
    let began = Instant::now();
    postmaster.signal(rustix::process::Signal::KILL).unwrap();
    for waiter in waiting {
        within("the end", waiter).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_ends_the_wait() {
    let mut node = Node::copied("a");
    node.settings.parameters.insert("no_such_parameter".into(), "1".into());
    node.configure(ConfRole::Primary);
    let postmaster = Postmaster::spawn(&node.instance).unwrap();
    let error = within("the end", postmaster.wait_status(&[PmStatus::Ready])).await.unwrap_err();
    assert!(matches!(error, PgError::Exited(_)), "{error}");
}

/// Sessions of a server that was killed alone finish their query first; a new server must not have to wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_ends_what_a_dead_postmaster_left_behind() {
    let (node, postmaster) = Node::primary("a").await;
    let busy = {
        let config = sql::local(&node.instance);
        const LOOP: &str = "DO $$ DECLARE n bigint := 0; BEGIN LOOP n := n + 1; END LOOP; END $$";
        tokio::spawn(async move {
            sql::session(config, PATIENCE, "count", async |c| c.simple_query(LOOP).await.map(drop)).await
        })
    };
    node.wait_sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'", "1").await;
    postmaster.signal(rustix::process::Signal::KILL).unwrap();
    within("the end", postmaster.exited()).await;
    until("only the busy session is left", async || node.processes().len() == 1).await;
    node.start(ConfRole::Primary).await;
    within("the session's end", busy).await.unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_and_files_tell_the_role() {
    let (node, postmaster) = Node::primary("a").await;
    assert!(node.instance.in_production());
    assert_eq!(node.instance.control().await.unwrap().state, ClusterState::Production);
    assert!(postmaster.fast_stop(PATIENCE).await);
    assert!(!node.instance.in_production());
    assert!(node.instance.control().await.unwrap().state.is_clean());
    let postmaster = node.start(ConfRole::Standby { upstream: None }).await;
    assert!(node.instance.is_standby() && !node.instance.in_production());
    assert_eq!(node.sql("SELECT pg_is_in_recovery()").await, "t");
    let end = node.lsn("pg_last_wal_replay_lsn()").await;
    assert!(postmaster.fast_stop(PATIENCE).await);
    let control = node.instance.control().await.unwrap();
    assert_eq!(control.state, ClusterState::ShutDownInRecovery);
    assert!(control.known_position().lsn <= end, "{control:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_starts_though_its_settings_are_smaller_than_the_primarys_were() {
    let mut node = Node::copied("a");
    for (name, value) in [("max_connections", "30"), ("max_worker_processes", "4")] {
        node.settings.parameters.insert(name.into(), value.into());
    }
    let postmaster = node.start(ConfRole::Standby { upstream: None }).await;
    assert_eq!(node.sql("SHOW max_connections").await, "100");
    within("the promotion", postmaster.promote()).await.unwrap();
    assert!(postmaster.fast_stop(PATIENCE).await);
    let _again = node.start(ConfRole::Primary).await;
    assert_eq!(node.sql("SHOW max_connections").await, "30");
}
