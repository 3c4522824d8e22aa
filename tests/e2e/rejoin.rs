//! How an old primary comes back when following is not enough: by pg_rewind when it went its own way, by a base backup
//! when that can't work either; and what stood in its directory is never deleted before.

use std::{fs, path::Path, process::Command, time::Duration};

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Weight, eventually, run};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A cluster whose first primary is dead, keeper and all, and has been replaced.
async fn bereaved(test: stolon_tests::Test) -> (Cluster, usize) {
    let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, ..Default::default() }).await;
    let (old, epoch) = cluster.primary().await;
    cluster.proxy().query("CREATE TABLE kept AS SELECT 1 AS one").await.unwrap();
    cluster.streaming(1).await;
    cluster.keepers[old].signal_all(Signal::KILL);
    cluster.keepers[old].daemon.process().kill();
    eventually("a standby has taken over", Duration::from_secs(20), async || {
        let (uid, now) = cluster.keys().await?.serving()?;
        if now > epoch { Ok(()) } else { Err(format!("{uid} in epoch {now}")) }
    })
    .await;
    eventually("it takes rows", Duration::from_secs(20), async || {
        cluster.proxy().query("INSERT INTO kept VALUES (2)").await
    })
    .await;
    (cluster, old)
}

async fn follows(cluster: &Cluster, old: usize) {
    cluster.settled().await;
    let rows = cluster.keepers[old].target().query("SELECT one, pg_is_in_recovery() FROM kept ORDER BY 1").await;
    assert_eq!(rows, Ok(vec![vec!["1".into(), "t".into()], vec!["2".into(), "t".into()]]));
}

/// PostgreSQL on the dead primary's directory, without its keeper: writes what nobody else has.
fn go_own_way(data: &Path) {
    // Its process is dead; whether its parent has noticed is another matter.
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    let sql = data.parent().unwrap().join("fork.sql");
    fs::write(&sql, "CREATE TABLE forked AS SELECT generate_series(1, 1000) AS i;\nCHECKPOINT;\n").unwrap();
    let postgres = format!("{PROGRAMS}/postgres --single -D {} postgres < {}", data.display(), sql.display());
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new("runuser"),
        false => Command::new("sh"),
    };
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "postgres", "--", "sh"]);
    }
    let out = command.args(["-c", &postgres]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn an_old_primary_that_went_its_own_way_is_rewound() {
    run("rewind", Weight::Cluster, async |test| {
        let (mut cluster, old) = bereaved(test).await;
        let data = cluster.keepers[old].data_dir.join("postgres");
        go_own_way(&data);
        cluster.start_keeper(old);
        follows(&cluster, old).await;
        let forked = cluster.keepers[old].target().value("SELECT to_regclass('forked') IS NULL").await;
        assert_eq!(forked.as_deref(), Ok("t"), "what only the old primary had is gone");
        assert!(cluster.keepers[old].daemon.log().contains("pg_rewind"), "the log says how");
        // And it is fit: the next failover goes back to it.
        cluster.keepers[1 - old].kill_postgres();
        eventually("the rewound one is primary", Duration::from_secs(20), async || {
            let (uid, _) = cluster.keys().await?.serving()?;
            if cluster.index(&uid) == old { Ok(()) } else { Err(uid) }
        })
        .await;
        cluster.settled().await;
        assert_eq!(cluster.proxy().value("SELECT count(*) FROM kept").await.as_deref(), Ok("2"));
    });
}

#[test]
fn an_old_primary_that_cant_be_rewound_is_copied_anew() {
    run("copied-anew", Weight::Cluster, async |test| {
        let (mut cluster, old) = bereaved(test).await;
        let data = cluster.keepers[old].data_dir.join("postgres");
        go_own_way(&data);
        for segment in fs::read_dir(data.join("pg_wal")).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::remove_file(segment.path()).unwrap();
        }
        cluster.start_keeper(old);
        follows(&cluster, old).await;
        let forked = cluster.keepers[old].target().value("SELECT to_regclass('forked') IS NULL").await;
        assert_eq!(forked.as_deref(), Ok("t"), "what only the old primary had is gone");
    });
}
