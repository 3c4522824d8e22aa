//! Proofs of synchronous replication on a real server (R18): when commits wait, and who has flushed them.

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_a_list_with_the_blocking_name_and_for_no_list_they_do_not() {
    let (node, server) = Node::primary("a").await;
    assert!(!node.instance.commits_wait(DEADLINE).await.unwrap());
    node.configure_sync(ConfRole::Primary, "1 (\"stolonfakestandby\")");
    server.reload().await.unwrap();
    let mut waits = false;
    for _ in 0..200 {
        waits = node.instance.commits_wait(DEADLINE).await.unwrap();
        if waits {
            break;
        }
    }
    assert!(waits, "the checkpointer never took the list up");
    // The commit that hung was ended, and its session with it.
    node.wait_sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "0").await;
    let commit = node.instance.commit_once(DEADLINE).await.unwrap();
    assert_eq!(commit.names, "1 (\"stolonfakestandby\")");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_for_the_list_ends_where_a_follower_has_all_before_it() {
    let (one, _first) = Node::primary("a").await;
    let (two, _second) = Node::standby("b", &one).await;
    one.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").await;
    let commit = one.instance.commit_once(DEADLINE).await.unwrap();
    let end = commit.end.unwrap();
    assert!(commit.names.is_empty() && end <= one.lsn("pg_current_wal_flush_lsn()").await);
    within("the follower's flush", async {
        while two.lsn("pg_last_wal_receive_lsn()").await < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Execution 19: the blocking name holds over the promotion.
#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_with_the_blocking_name_lets_no_commit_through() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    two.configure_sync(two.following(&one), "1 (\"stolonfakestandby\")");
    second.reload().await.unwrap();
    two.wait_sql("SHOW synchronous_standby_names", "1 (\"stolonfakestandby\")").await;
    first.kill_all().await;
    within("the promotion", second.promote()).await.unwrap();
    assert!(two.instance.commits_wait(DEADLINE).await.unwrap());
}
