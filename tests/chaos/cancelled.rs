//! That a commit whose wait for synchronous replication was cancelled is no acknowledgement to the auditing client: on a
//! PostgreSQL alone that waits for a standby that nobody is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stolon_tests::{
    Weight, eventually,
    ports::free_port,
    process::Process,
    run,
    series::{Series, TABLE},
    sql::Target,
};

const WAIT: Duration = Duration::from_secs(30);

/// PostgreSQL refuses root: its programs run as the OS user that the keeper would take.
fn postgres_command(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
    command
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path().join("bin"));
    versions.filter(|bin| bin.join("initdb").exists()).max().unwrap()
}

#[test]
fn a_commit_whose_wait_was_cancelled_is_no_acknowledgement() {
    run("cancelled-wait", Weight::Light, async |test| {
        let data = test.subfolder("data");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&data, open).unwrap();
        let (data, bin, port) = (data.join("pg"), programs(), free_port());
        let mut initdb = postgres_command(&bin.join("initdb"));
        initdb.current_dir(test.folder()).args(["--no-sync", "-A", "trust", "-U", "admin", "-D"]).arg(&data);
        let out = initdb.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let mut server = postgres_command(&bin.join("postgres"));
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1"]);
        let _server = Process::spawn(test.folder(), "postgres", server);
        let target = Target { user: "admin".into(), ..Target::loopback(port) };
        eventually("PostgreSQL takes the table", WAIT, async || target.query(TABLE).await).await;

        let series = Series::new(target.clone(), Duration::from_millis(2));
        let writing = tokio::spawn(series.clone().run());
        let count = || {
            let record = series.record();
            (record.acks.len(), record.unsynced)
        };
        eventually("rows", WAIT, async || if count().0 > 5 { Ok(()) } else { Err(count().0) }).await;
        target.query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
        target.query("SELECT pg_reload_conf()").await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        eventually("a commit that waits", WAIT, async || match target.value(waiting).await?.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
        let before = count();
        assert_eq!(before.1, 0);
        target.query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await.unwrap();
        eventually("the cancelled commit's answer", WAIT, async || if count().1 == 1 { Ok(()) } else { Err("none") })
            .await;
        assert_eq!(count().0, before.0, "it is counted as acknowledged");
        series.stop();
        writing.abort();
    });
}
