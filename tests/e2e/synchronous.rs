//! Synchronous replication: no acknowledged row is lost, whatever happens to the primary; too few standbys make commits
//! wait; a restarted primary lets nobody in before its standbys have caught up.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use stolon::model::cluster::BLOCKING_NAME;
use stolon_tests::{
    Cluster, ClusterOptions, Keeper, Test, Weight, during, eventually, keys::Keys, run, writer::Writer,
};

const WAIT: Duration = Duration::from_secs(60);

fn synchronous(keepers: usize, min: u16, max: u16) -> ClusterOptions {
    let spec = json!({
        "initMode": "new", "usePgrewind": true, "synchronousReplication": true,
        "minSynchronousStandbys": min, "maxSynchronousStandbys": max,
    });
    ClusterOptions { keepers, spec: Some(spec), ..Default::default() }
}

/// Keepers whose standbys could win now, under a primary that serves.
async fn in_sync(cluster: &Cluster) -> Result<Vec<String>, String> {
    let keys = cluster.keys().await?;
    keys.serving()?;
    electable(&keys)
}

/// Keepers whose standbys are named and were seen in sync, whether the primary serves or not.
fn electable(keys: &Keys) -> Result<Vec<String>, String> {
    let data = keys.data.as_ref().ok_or("no cluster data")?;
    let (_, master) = data.primary().ok_or("no primary")?;
    let (named, seen) = (&master.spec.synchronous_standbys, &master.status.synchronous_standbys);
    let both = seen.iter().flatten().filter(|uid| named.iter().flatten().any(|name| name == *uid));
    Ok(both.filter_map(|uid| Some(data.dbs.get(uid)?.spec.keeper_uid.to_string())).collect())
}

async fn some_in_sync(cluster: &Cluster, count: usize) -> Vec<String> {
    eventually(&format!("{count} standbys in sync"), WAIT, async || match in_sync(cluster).await? {
        found if found.len() == count => Ok(found),
        found => Err(format!("{found:?}")),
    })
    .await
}

/// The primary is struck three times under a writer; the last one back, everybody whole.
async fn struck(test: Test, kind: &str, hit: fn(&mut Keeper), heal: fn(&mut Keeper) -> bool) {
    let mut cluster = Cluster::start(test, synchronous(3, 1, 1)).await;
    some_in_sync(&cluster, 1).await;
    let writer = Writer::start(cluster.proxy()).await.beside(cluster.servers()).await;
    for _ in 0..3 {
        let electable = some_in_sync(&cluster, 1).await;
        let (old, epoch) = cluster.primary().await;
        let (server, at) = (writer.server(), Instant::now());
        hit(&mut cluster.keepers[old]);
        writer.moves_from(&server, WAIT).await;
        writer.report_gap(kind, at);
        let (new, next) = cluster.primary().await;
        assert!(
            next > epoch && cluster.keepers[new].uid == electable[0],
            "{} won, {electable:?}",
            cluster.keepers[new].uid
        );
        if heal(&mut cluster.keepers[old]) {
            cluster.start_keeper(old);
        }
        cluster.settled().await;
        writer.flows().await;
    }
    let verdict = writer.finish().await;
    verdict.is_clean();
    // Direct clients have the same word (R12): one that wakes up acknowledges nothing.
    verdict.had_one_primary(&[]);
    assert!(verdict.lost_direct.is_empty(), "acknowledged directly, and gone: {:?}", verdict.lost_direct);
}

#[test]
fn no_acknowledged_row_is_lost_when_the_postmaster_is_killed() {
    run("sync-postgres", Weight::Heavy, async |test| {
        struck(test, "sync-postgres", |keeper| keeper.kill_postgres(), |_| false).await;
    });
}

#[test]
fn no_acknowledged_row_is_lost_when_keeper_and_postgres_are_killed() {
    run("sync-keeper-and-postgres", Weight::Heavy, async |test| {
        struck(test, "sync-keeper-and-postgres", |keeper| keeper.signal_all(Signal::KILL), |_| true).await;
    });
}

#[test]
fn no_acknowledged_row_is_lost_when_the_primary_freezes() {
    run("sync-frozen", Weight::Heavy, async |test| {
        let thaw = |keeper: &mut Keeper| {
            keeper.signal_all(Signal::CONT);
            false
        };
        struck(test, "sync-frozen", |keeper| keeper.signal_all(Signal::STOP), thaw).await;
    });
}

/// Commits wait without the standby; a primary that restarts meanwhile shows waiting commits to nobody but internal users
/// (the original's TestSyncStandbyNotInSync).
#[test]
fn without_its_standby_commits_wait_and_a_restarted_primary_admits_only_internal_users() {
    run("sync-standby-not-in-sync", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, synchronous(2, 1, 1)).await;
        some_in_sync(&cluster, 1).await;
        let (primary, epoch) = cluster.primary().await;
        let standby = 1 - primary;
        cluster.proxy().query("CREATE ROLE app LOGIN PASSWORD 'x'").await.unwrap();
        cluster.proxy().query("CREATE TABLE t (n int)").await.unwrap();
        let app = |cluster: &Cluster| cluster.keepers[primary].target().with_user("app", "x");
        app(&cluster).value("SELECT 1").await.unwrap();
        cluster.keepers[standby].signal_all(Signal::KILL);
        let hung =
            tokio::time::timeout(Duration::from_secs(3), cluster.proxy().query("INSERT INTO t VALUES (1)")).await;
        assert!(hung.is_err(), "the commit had to wait: {hung:?}");
        // What a client gets that lowers it: an answer by this server alone.
        let (lowered, proxy) = ("SET synchronous_commit = local; INSERT INTO t VALUES (9)", cluster.proxy());
        tokio::time::timeout(Duration::from_secs(10), proxy.query(lowered)).await.expect("an answer").unwrap();
        assert_eq!(cluster.proxy().value("SELECT count(*) FROM t").await.as_deref(), Ok("1"), "visible at once");
        cluster.keepers[primary].kill_postgres();
        eventually(
            "the restarted primary answers its superuser, and the waiting commit is visible",
            WAIT,
            async || match cluster.keepers[primary].target().value("SELECT count(*) FROM t").await?.as_str() {
                "2" => Ok(()),
                other => Err(other.to_owned()),
            },
        )
        .await;
        during("an ordinary user is refused", Duration::from_secs(3), async || {
            match app(&cluster).value("SELECT 1").await {
                Err(error) if error.contains("pg_hba.conf") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        cluster.start_keeper(standby);
        eventually("an ordinary user is admitted when the standby has caught up", WAIT, async || {
            app(&cluster).value("SELECT 1").await
        })
        .await;
        let (after, same) = cluster.settled().await;
        assert_eq!((after, same), (primary, epoch), "no other standby could have taken over");
        assert_eq!(cluster.keepers[standby].target().value("SELECT count(*) FROM t").await.as_deref(), Ok("2"));
    });
}

/// The original's TestFailoverTooMuchLag and TestTimelineFork have their like here: who was not in sync never wins.
#[test]
fn a_standby_that_was_not_in_sync_is_not_elected_and_the_status_says_why() {
    run("sync-not-elected", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, synchronous(3, 1, 1)).await;
        cluster.proxy().query("CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
        let names = some_in_sync(&cluster, 1).await;
        let (primary, epoch) = cluster.primary().await;
        let chosen = cluster.index(&names[0]);
        let third = cluster.keepers[3 - primary - chosen].uid.clone();
        // Who sleeps names nobody in the instant between the two deaths, and a dead primary confirms nobody.
        signal_sentinels(&mut cluster, Signal::STOP);
        cluster.keepers[chosen].signal_all(Signal::KILL);
        cluster.keepers[primary].signal_all(Signal::KILL);
        signal_sentinels(&mut cluster, Signal::CONT);
        let words = format!("on keeper {third} can't: it is no synchronous standby");
        eventually("the status says why the third one is not elected", WAIT, async || {
            let said = cluster.stolonctl("status", &[]).out;
            if said.contains(&words) { Ok(()) } else { Err(said) }
        })
        .await;
        during("nobody is elected", Duration::from_secs(8), async || {
            let keys = cluster.keys().await?;
            match (keys.epoch(), electable(&keys)?) {
                (now, found) if now == epoch && found == names => Ok(()),
                other => Err(format!("epoch and electable are {other:?}")),
            }
        })
        .await;
        cluster.start_keeper(chosen);
        let winner = eventually("a primary when the one that was in sync is back", WAIT, async || {
            let (uid, next) = cluster.keys().await?.serving()?;
            if next > epoch { Ok((uid, next)) } else { Err(format!("{uid} in epoch {next}")) }
        })
        .await;
        assert_eq!(winner, (names[0].clone(), epoch + 1));
        cluster.start_keeper(primary);
        assert_eq!(cluster.settled().await, (chosen, epoch + 1));
        assert_eq!(cluster.proxy().value("SELECT n FROM t").await.as_deref(), Ok("1"));
    });
}

fn signal_sentinels(cluster: &mut Cluster, signal: Signal) {
    cluster.sentinels.iter_mut().for_each(|sentinel| sentinel.process().signal(signal));
}

/// Two nodes: the winner has nobody left, and its commits wait until the old primary follows.
#[test]
fn a_winner_without_any_standby_lets_commits_wait_until_it_has_one() {
    run("sync-alone", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, synchronous(2, 1, 1)).await;
        some_in_sync(&cluster, 1).await;
        cluster.proxy().query("CREATE TABLE t (n int)").await.unwrap();
        let (old, epoch) = cluster.primary().await;
        cluster.keepers[old].signal_all(Signal::KILL);
        eventually("the standby serves", WAIT, async || {
            let (_, next) = cluster.keys().await?.serving()?;
            if next > epoch { Ok(()) } else { Err(format!("epoch {next}")) }
        })
        .await;
        let names = eventually("the winner's settings", WAIT, async || {
            cluster.keepers[1 - old].target().value("SHOW synchronous_standby_names").await
        })
        .await;
        assert_eq!(names, format!("1 (\"{BLOCKING_NAME}\")"));
        let hung =
            tokio::time::timeout(Duration::from_secs(2), cluster.proxy().query("INSERT INTO t VALUES (1)")).await;
        assert!(hung.is_err(), "execution 19: the commit had to wait: {hung:?}");
        cluster.start_keeper(old);
        eventually("commits go through again", WAIT, async || cluster.proxy().query("INSERT INTO t VALUES (2)").await)
            .await;
        some_in_sync(&cluster, 1).await;
    });
}
