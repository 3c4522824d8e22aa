//! How an old primary comes back when following is not enough: by pg_rewind when it went its own way, by a base backup
//! when that can't work either; and what stood in its directory is never deleted before.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Keeper, Weight, eventually, run};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A cluster whose first primary is dead, keeper and all, and has been replaced.
async fn bereaved(test: stolon_tests::Test, keeper: Vec<String>) -> (Cluster, usize) {
    let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, keeper, ..Default::default() }).await;
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
        let (mut cluster, old) = bereaved(test, vec![]).await;
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

/// PostgreSQL's programs, of which pg_basebackup obeys: with the file `trap` there, its next run makes its copy, tells so by
/// the file `copied`, waits for the file `go`, and fails.
struct Programs(PathBuf);

impl Programs {
    fn new(folder: PathBuf) -> Programs {
        let at = |name: &str| folder.join(name);
        // For PostgreSQL's own user.
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        let others = fs::read_dir(PROGRAMS).unwrap().flatten().filter(|program| program.file_name() != "pg_basebackup");
        others.for_each(|program| symlink(program.path(), at(program.file_name().to_str().unwrap())).unwrap());
        let script = format!(
            "#!/bin/sh\ncd {}\nrm trap 2>/dev/null || exec {PROGRAMS}/pg_basebackup \"$@\"\n\
             {PROGRAMS}/pg_basebackup \"$@\" && touch copied\nuntil [ -e go ]; do sleep 0.05; done\nexit 1\n",
            folder.display()
        );
        fs::write(at("pg_basebackup"), script).unwrap();
        fs::set_permissions(at("pg_basebackup"), PermissionsExt::from_mode(0o755)).unwrap();
        Programs(folder)
    }

    fn set(&self, file: &str) {
        fs::write(self.0.join(file), "").unwrap();
    }
}

/// The folders in which a keeper has data that hold this file.
fn holding(keeper: &Keeper, file: &str) -> Vec<String> {
    let entries = fs::read_dir(&keeper.data_dir).unwrap().flatten().filter(|entry| entry.path().join(file).exists());
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// And keeps its data until the copy runs.
#[test]
fn an_old_primary_that_cant_be_rewound_is_copied_anew() {
    run("copied-anew", Weight::Cluster, async |test| {
        let programs = Programs::new(test.subfolder("programs"));
        let flags = vec!["--pg-bin-path".to_owned(), programs.0.display().to_string()];
        let (mut cluster, old) = bereaved(test, flags).await;
        let data = cluster.keepers[old].data_dir.join("postgres");
        go_own_way(&data);
        for segment in fs::read_dir(data.join("pg_wal")).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::remove_file(segment.path()).unwrap();
        }
        fs::write(data.join("mark"), "").unwrap();
        programs.set("trap");
        cluster.start_keeper(old);
        eventually("the first copy is made, and not complete", Duration::from_secs(60), async || {
            if programs.0.join("copied").exists() { Ok(()) } else { Err("not yet") }
        })
        .await;
        assert_eq!(holding(&cluster.keepers[old], "mark"), ["postgres"], "the old data are where they were");
        assert!(data.join("global/pg_control").exists() && data.join("base/1").exists(), "and whole");
        programs.set("go");
        eventually("the old data go when the next copy runs in their place", Duration::from_secs(60), async || {
            match holding(&cluster.keepers[old], "mark") {
                kept if !kept.is_empty() => Err(format!("they are in {kept:?}")),
                _ => {
                    let copy = cluster.keepers[old].target().value("SELECT pg_is_in_recovery()").await;
                    assert_eq!(copy.as_deref(), Ok("t"), "the old data are gone, and no copy runs");
                    Ok(())
                }
            }
        })
        .await;
        follows(&cluster, old).await;
        let forked = cluster.keepers[old].target().value("SELECT to_regclass('forked') IS NULL").await;
        assert_eq!(forked.as_deref(), Ok("t"), "what only the old primary had is gone");
        let log = cluster.keepers[old].daemon.log();
        let told = |words: &str| log.matches(words).count();
        let counts =
            (told("copying the primary by pg_basebackup"), told("the copy is complete"), told("pg_rewind is done"));
        assert_eq!(counts, (2, 1, 0), "copies begun, complete, and rewinds");
    });
}
