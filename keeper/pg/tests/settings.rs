//! Slots, parameters, and what is refused before anything runs.

use std::collections::BTreeSet;

use super::*;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_made_and_dropped_but_foreign_ones_and_those_in_use_stay() {
    let (one, _first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    one.sql("SELECT pg_create_physical_replication_slot('mine')").await;
    one.instance.refresh_slots(&names(&["stolon_c"])).await.unwrap();
    const ALL: &str = "SELECT string_agg(slot_name || ' ' || (restart_lsn IS NOT NULL), ', ' ORDER BY slot_name) \
        FROM pg_replication_slots";
    assert_eq!(one.sql(ALL).await, "mine false, stolon_b true, stolon_c true");
    one.instance.refresh_slots(&names(&["stolon_c"])).await.unwrap();
    assert!(second.fast_stop(PATIENCE).await);
    one.wait_sql("SELECT bool_or(active) FROM pg_replication_slots", "f").await;
    one.instance.refresh_slots(&names(&["stolon_d"])).await.unwrap();
    assert_eq!(one.sql(ALL).await, "mine false, stolon_d true");
    one.instance.refresh_slots(&names(&["stolon_b"])).await.unwrap();
    let _second = two.start(two.following(&one)).await;
    two.wait_streaming(&one).await;
    two.instance.refresh_slots(&names(&["stolon_e"])).await.unwrap();
    assert_eq!(two.sql(ALL).await, "stolon_e true", "a standby keeps WAL for others as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_view_of_its_parameters_is_read() {
    let (mut node, postmaster) = Node::primary("a").await;
    let parameters = node.instance.parameters().await.unwrap();
    assert_eq!(parameters.get("shared_buffers").map(String::as_str), Some("16MB"));
    assert!(
        !parameters.contains_key("port") && !parameters.contains_key("synchronous_standby_names"),
        "{parameters:?}"
    );
    assert_eq!(node.instance.pending_restart().await.unwrap(), names(&[]));
    node.settings.parameters.insert("max_connections".into(), "33".into());
    node.settings.parameters.insert("work_mem".into(), "5MB".into());
    node.settings.max_standbys = 7;
    let change = node.configure(ConfRole::Primary);
    assert_eq!(change.parameters, ["max_connections", "max_replication_slots", "max_wal_senders", "work_mem"]);
    assert_eq!(change.restart_candidates(), ["max_replication_slots", "max_wal_senders"]);
    postmaster.reload().await.unwrap();
    node.wait_sql("SHOW work_mem", "5MB").await;
    let pending = node.instance.pending_restart().await.unwrap();
    assert_eq!(pending, names(&["max_connections", "max_replication_slots", "max_wal_senders"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_written_on_both_kinds() {
    let (one, _first) = Node::primary("a").await;
    let (two, _second) = Node::standby("b", &one).await;
    let before = one.instance.control().await.unwrap().checkpoint;
    one.instance.checkpoint().await.unwrap();
    let after = one.instance.control().await.unwrap().checkpoint;
    assert!(after > before);
    two.catch_up(&one).await;
    two.instance.checkpoint().await.unwrap();
    assert_eq!(two.instance.control().await.unwrap().checkpoint, after);
}

#[test]
fn an_open_server_that_others_could_reach_is_refused() {
    let node = Node::with("a", trust());
    let config = InstanceConfig { listen_address: "*".into(), ..node.instance.config().clone() };
    let error = Instance::new(config).unwrap_err();
    assert!(error.contains("without a password") && error.lines().count() == 1, "{error}");
    let mut config = node.instance.config().clone();
    config.credentials.replication.name = "a\nb".into();
    assert!(Instance::new(config).unwrap_err().contains("line break"));
}

#[test]
fn a_folder_that_postgres_cannot_enter_is_named_before_anything_is_run() {
    let Some(user) = RunAs::resolve(None).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let error = user.prepare(&folder.path().join("data")).unwrap_err();
    assert!(error.contains(&format!("can't enter {}", folder.path().display())), "{error}");
    assert!(error.contains(user.name()) && error.lines().count() == 1, "{error}");
}

#[test]
fn a_folder_with_somebodys_files_is_refused() {
    let Some(user) = RunAs::resolve(None).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.txt"), "x").unwrap();
    let error = user.prepare(&data).unwrap_err();
    assert!(error.contains("not empty"), "{error}");
    fs::remove_file(data.join("thesis.txt")).unwrap();
    assert_eq!(user.prepare(&data), Ok(()));
    assert_eq!(user.prepare(&data), Ok(()));
}
