//! Copies of another server, and what becomes of the old data.

use super::*;

async fn source() -> (Node, Postmaster) {
    let (one, first) = Node::primary("a").await;
    one.sql("CREATE TABLE t AS SELECT 1 AS i, 'one' AS x").await;
    (one, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_follows_and_the_old_data_goes_only_after_it_runs() {
    let (one, _first) = source().await;
    let two = Node::copied("b");
    two.instance.write_owned(&two.instance.data_dir().join("old"), b"x").unwrap();
    two.slot_at(&one).await;
    let began = Instant::now();
    within("the copy", two.instance.base_backup(&one.server(), &two.db.slot())).await.unwrap();
    figure("base_backup", vec![began.elapsed()]);
    assert_eq!(two.instance.data_state(), DataState::Standby);
    let kept = two.instance.keeper_dir().join("postgres.old-1");
    assert!(kept.join("old").exists() && !two.instance.data_dir().join("old").exists());
    two.configure(two.following(&one));
    let second = Postmaster::spawn(&two.instance).unwrap();
    within("the start", second.wait_status(&[PmStatus::Ready])).await.unwrap();
    two.wait_streaming(&one).await;
    assert_eq!(two.sql("SELECT x FROM t").await, "one");
    let expendable = Expendable::of(&second).unwrap();
    assert_eq!(expendable.folders(), std::slice::from_ref(&kept));
    expendable.remove().await.unwrap();
    assert!(!kept.exists() && Expendable::of(&second).is_none());
    let error = two.instance.base_backup(&one.server(), "b").await.unwrap_err().to_string();
    assert!(error.contains("must be stopped first"), "{error}");
    second.kill_all().await;
    assert!(Expendable::of(&second).is_none(), "only a running server makes old data expendable");
}

/// Its stream reports what it has flushed: by the name of the standby that it is for, it would release commits that only
/// an unfinished copy has.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_progress_is_no_synchronous_standby() {
    let (one, first) = source().await;
    let two = Node::copied("b");
    two.slot_at(&one).await;
    let (server, slot) = (one.server(), two.db.slot());
    assert!(one.configure_sync(ConfRole::Primary, &slot).needs_reload());
    first.reload().await.unwrap();
    one.wait_sql("SHOW synchronous_standby_names", &slot).await;
    const SEEN: &str = "SELECT string_agg(application_name || ' ' || sync_state, ',') FROM pg_stat_replication";
    let mut copying = Box::pin(two.instance.base_backup(&server, &slot));
    let (mut seen, mut looks) = (0, 0);
    loop {
        tokio::select! {
            made = &mut copying => break made.unwrap(),
            text = one.sql(SEEN) => {
                looks += 1;
                seen += usize::from(text.contains(&format!("copy_of_{slot}")));
                assert!(!text.contains(&format!(",{slot}")) && !text.starts_with(&slot), "{text}");
                assert!(!text.contains(" sync") && !text.contains("quorum"), "{text}");
            }
        }
    }
    assert!(seen > 0, "the copy was never seen in {looks} looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_half_way_a_copy_leaves_the_old_data_and_may_be_tried_again() {
    let (one, _first) = source().await;
    let two = Node::copied("b");
    two.instance.write_owned(&two.instance.data_dir().join("old"), b"x").unwrap();
    let new = two.instance.keeper_dir().join("postgres.new");
    let server = one.server();
    let mut copying = Box::pin(two.instance.base_backup(&server, "no_such_slot"));
    tokio::select! {
        made = &mut copying => panic!("too early: {made:?}"),
        () = until("the first file", async || new.join("backup_label").exists()) => {}
    }
    drop(copying);
    assert!(two.instance.data_dir().join("old").exists());
    assert_eq!(two.instance.data_state(), DataState::Primary);
    one.wait_sql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%no_such_slot'", "0").await;
    within("the copy", two.instance.base_backup(&server, "no_such_slot")).await.unwrap();
    assert!(!new.exists() && !two.instance.data_dir().join("old").exists());
    let _second = two.start(ConfRole::Standby { upstream: None }).await;
    assert_eq!(two.sql("SELECT x FROM t").await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_is_one_line_and_changes_nothing() {
    let (one, first) = source().await;
    first.kill_all().await;
    let two = Node::empty("b");
    let error = within("the copy", two.instance.base_backup(&one.server(), "b")).await.unwrap_err().to_string();
    assert!(error.starts_with("pg_basebackup failed: ") && error.lines().count() == 1, "{error}");
    assert_eq!(two.instance.data_state(), DataState::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_standby_follows_too() {
    let (one, _first) = source().await;
    let (two, _second) = Node::standby("b", &one).await;
    let three = Node::empty("c");
    within("the copy", three.instance.base_backup(&two.server(), &three.db.slot())).await.unwrap();
    three.slot_at(&two).await;
    let _third = three.start(three.following(&two)).await;
    three.wait_streaming(&two).await;
    three.wait_sql("SELECT x FROM t", "one").await;
}
