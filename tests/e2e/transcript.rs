//! The seed's own transcript, command by command, with its default ports, in a network namespace of its own.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use stolon_tests::{
    Test, Weight, bins, etcd::Etcd, etcd::Place, eventually, netns, process::Outcome, process::complete, run,
};

const WAIT: Duration = Duration::from_secs(60);

/// `./bin/NAME ARGS`, with the arguments as one line.
fn launch(test: &Test, name: &str, line: &str) -> stolon_tests::process::Process {
    let (program, args) = line.split_once(' ').unwrap();
    let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
    test.spawn(name, program, &args, &[])
}

fn psql(test: &Test, sql: &str) -> Outcome {
    let mut command = Command::new("psql");
    command.args(["--host", "127.0.0.1", "--port", "25432", "postgres"]).args(["-At", "-w", "-X", "-c", sql]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    complete(test.folder(), &mut command, Duration::from_secs(10))
}

async fn says(test: &Test, what: &str, sql: &str, expected: &str) {
    eventually(what, WAIT, async || {
        let outcome = psql(test, sql);
        match outcome.out.trim() == expected {
            true => Ok(()),
            false => Err(format!("{outcome:?}")),
        }
    })
    .await;
}

#[test]
fn the_commands_of_the_seed_work_as_written() {
    if !netns::allowed("the_commands_of_the_seed_work_as_written") {
        return;
    }
    bins::bin("stolon-keeper");
    let namespace = netns::Namespace::new("seed");
    netns::inside(&namespace, || {
        run("transcript", Weight::Cluster, async |test| {
            let place =
                Place { host: "127.0.0.1".into(), client_port: 2379, peer_port: 2380, namespace: None, holder: None };
            let _etcd = Etcd::start_at(&test, vec![place]).await;
            let keeper = "stolon-keeper --data-dir data/postgres0 --id postgres0 --cluster-name stolon-cluster";
            let mut running = vec![launch(&test, "keeper0", keeper)];
            // As a person would: one after the other.
            eventually("the first keeper listens on its default port", WAIT, async || {
                tokio::net::TcpStream::connect(("127.0.0.1", 5431)).await.map(drop)
            })
            .await;
            running.push(launch(&test, "sentinel", "stolon-sentinel --cluster-name stolon-cluster"));
            running.push(launch(&test, "proxy", "stolon-proxy --cluster-name stolon-cluster --port 25432"));
            let at = Instant::now();
            says(&test, "psql reaches the primary", "SELECT pg_is_in_recovery()", "f").await;
            assert!(at.elapsed() < Duration::from_secs(30), "the first keeper took {:?} to serve", at.elapsed());
            assert!(test.folder().join("data/postgres0/postgres/PG_VERSION").is_file());
            says(&test, "a table", "CREATE TABLE test (id int primary key, value text)", "CREATE TABLE").await;
            says(&test, "a row", "INSERT INTO test VALUES (1, 'value1')", "INSERT 0 1").await;

            let second = "stolon-keeper --data-dir data/postgres1 --id postgres1 --cluster-name stolon-cluster --port 5433 --pg-port 5435";
            let third = "stolon-keeper --data-dir data/postgres2 --id postgres2 --cluster-name stolon-cluster --port 5434 --pg-port 5436";
            running.push(launch(&test, "keeper1", second));
            let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            says(&test, "the second keeper's PostgreSQL streams", streaming, "1").await;
            running.push(launch(&test, "keeper2", third));
            says(&test, "the third keeper's PostgreSQL streams", streaming, "2").await;
            says(&test, "the row is still there", "SELECT value FROM test", "value1").await;
            for (process, port) in [("keeper1", 5435), ("keeper2", 5436)] {
                let standby = stolon_tests::sql::Target::loopback(port);
                eventually(&format!("{process} has the row"), WAIT, async || {
                    let rows = standby.query("SELECT value, pg_is_in_recovery() FROM test").await?;
                    if rows == [["value1", "t"]] { Ok(()) } else { Err(format!("{rows:?}")) }
                })
                .await;
            }
            running.iter_mut().for_each(|process| assert!(process.running(), "{} has ended", process.name));
        });
    });
}
