//! Data directories and cluster data that are not what they should be: said in one line, and nothing is lost by it.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stolon_tests::{
    Cluster, ClusterOptions, Test, Weight,
    cluster::{BASE, CLUSTER},
    during, eventually,
    ports::free_port,
    process::{Process, complete},
    run,
    writer::Writer,
};

const WAIT: Duration = Duration::from_secs(20);
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// One more keeper beside the cluster's.
fn keeper(cluster: &Cluster, name: &str, id: &str, data_dir: &Path, cluster_name: &str) -> Process {
    let pairs = [
        ("--cluster-name", cluster_name.to_owned()),
        ("--store-endpoints", cluster.etcd.endpoints()),
        ("--id", id.to_owned()),
        ("--data-dir", data_dir.display().to_string()),
        ("--port", "0".to_owned()),
        ("--pg-port", free_port().to_string()),
    ];
    let args: Vec<String> = pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    cluster.test.spawn(name, "stolon-keeper", &args, &[])
}

/// The keeper ends with an error, or runs on and says what is wrong; the words are in one line.
async fn complains(process: &mut Process, words: &[&str]) {
    eventually(&format!("{} names {words:?}", process.name), WAIT, async || {
        let log = process.log_text();
        let said = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if said { Ok(()) } else { Err(log) }
    })
    .await;
    if !process.running() {
        assert!(!process.ended(WAIT).success(), "{} ended as if all were well", process.name);
    }
}

fn system_id(data: &Path) -> String {
    let out = Command::new(Path::new(PROGRAMS).join("pg_controldata")).arg(data).env("LC_ALL", "C").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find(|line| line.contains("system identifier")).unwrap_or_else(|| panic!("{out:?}")).to_owned()
}

fn small() -> ClusterOptions {
    ClusterOptions { keepers: 1, sentinels: 1, ..Default::default() }
}

#[test]
fn a_second_keeper_of_the_same_id_or_data_directory_is_refused_and_the_first_goes_on() {
    run("keeper-twice", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, small()).await;
        let serving = cluster.keys().await.unwrap().serving().unwrap();
        let writer = Writer::start(cluster.proxy()).await;
        let cuts = writer.cut();
        let other = cluster.test.folder().join("data/other");
        let mut same_id = keeper(&cluster, "same-id", "postgres0", &other, CLUSTER);
        complains(&mut same_id, &["postgres0", "registered"]).await;
        let data_dir = cluster.keepers[0].data_dir.clone();
        let mut same_data = keeper(&cluster, "same-data", "postgres0", &data_dir, CLUSTER);
        let status = same_data.ended(WAIT);
        assert!(!status.success(), "{status}");
        complains(&mut same_data, &[&data_dir.display().to_string(), "lock"]).await;
        // Longer than the first one's lease.
        during("the first keeper serves", Duration::from_secs(7), async || {
            let now = cluster.keys().await?.serving()?;
            if now == serving { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        assert!(cluster.keepers[0].daemon.process().running());
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        writer.finish().await.is_clean();
    });
}

/// initdb as the OS user that PostgreSQL may run as.
fn initdb(data: &Path) {
    let mut command = match rustix::process::geteuid().is_root() {
        false => Command::new(format!("{PROGRAMS}/initdb")),
        true => {
            let owner = Command::new("chown").arg("postgres").arg(data.parent().unwrap()).status().unwrap();
            assert!(owner.success());
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", &format!("{PROGRAMS}/initdb")]);
            command
        }
    };
    let out = command.args(["-D", &data.display().to_string()]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn somebody_elses_postgres_and_another_clusters_data_are_left_alone() {
    run("foreign-data", Weight::Cluster, async |test| {
        let cluster = Cluster::start(test, small()).await;
        let foreign = cluster.test.subfolder("data/foreign");
        initdb(&foreign.join("postgres"));
        let before = system_id(&foreign.join("postgres"));
        let mut process = keeper(&cluster, "foreign", "foreign", &foreign, CLUSTER);
        complains(&mut process, &[&foreign.display().to_string()]).await;

        // A keeper of another cluster, which then is started for this one.
        let lost = cluster.test.folder().join("data/lost");
        let mut first = keeper(&cluster, "other-keeper", "lost", &lost, "other-cluster");
        let flags = ["--cluster-name", "other-cluster", "--port", "0", "--store-endpoints", &cluster.etcd.endpoints()];
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let _sentinel = cluster.test.spawn("other-sentinel", "stolon-sentinel", &flags, &[]);
        eventually("the other cluster serves", Duration::from_secs(40), async || {
            let keys = stolon_tests::keys::Keys::read(&cluster.etcd, "stolon/cluster/other-cluster/").await?;
            keys.serving()
        })
        .await;
        assert!(first.terminate(WAIT).success());
        let of_other = system_id(&lost.join("postgres"));
        let mut process_lost = keeper(&cluster, "lost", "lost", &lost, CLUSTER);
        complains(&mut process_lost, &["cluster", &lost.display().to_string()]).await;

        // A cluster in want of standbys doesn't help itself to their directories.
        during("both databases are untouched", Duration::from_secs(8), async || {
            let now = [system_id(&foreign.join("postgres")), system_id(&lost.join("postgres"))];
            if now == [before.clone(), of_other.clone()] { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        assert_eq!(cluster.settled_with(0).await.0, 0);
    });
}

#[test]
fn a_proxy_of_a_cluster_without_passwords_refuses_to_listen_beyond_loopback() {
    run("open-proxy", Weight::Cluster, async |test| {
        let cluster = Cluster::start(test, small()).await;
        let port = free_port().to_string();
        let endpoints = cluster.etcd.endpoints();
        let args = [
            "--cluster-name",
            CLUSTER,
            "--store-endpoints",
            &endpoints,
            "--listen-address",
            "0.0.0.0",
            "--port",
            &port,
        ];
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut process = cluster.test.spawn("open-proxy", "stolon-proxy", &args, &[]);
        complains(&mut process, &["--listen-address", "password"]).await;
        during("nothing listens there", Duration::from_secs(3), async || {
            match tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await {
                Err(_) => Ok(()),
                Ok(_) => Err("a connection was accepted"),
            }
        })
        .await;
    });
}

/// `stolonctl status` in both forms, together.
fn status(cluster: &Cluster) -> String {
    let mut text = String::new();
    for form in ["text", "json"] {
        let mut command = cluster.test.command("stolonctl");
        command.args(["status", "--cluster-name", CLUSTER, "--store-endpoints", &cluster.etcd.endpoints(), "-f", form]);
        let outcome = complete(cluster.test.folder(), &mut command, WAIT);
        text += &format!("{}\n{}\n", outcome.out, outcome.err);
    }
    text
}

#[test]
fn unreadable_or_impossible_cluster_data_is_reported_and_costs_nothing() {
    run("cluster-data", Weight::Cluster, async |test| {
        let options = ClusterOptions { keepers: 2, sentinels: 1, ..Default::default() };
        let mut cluster = Cluster::start(test, options).await;
        let serving = cluster.keys().await.unwrap().serving().unwrap();
        let writer = Writer::start(cluster.proxy()).await;
        let key = format!("{BASE}clusterdata");
        let original = cluster.etcd.range(&key).await.unwrap()[0].value().to_vec();
        let document: serde_json::Value = serde_json::from_slice(&original).unwrap();
        let edited = |edit: fn(&mut serde_json::Value)| {
            let mut document = document.clone();
            edit(&mut document);
            document.to_string().into_bytes()
        };
        let damages = [
            ("garbage", b"\xff{not json".to_vec(), "not the JSON document"),
            ("newer", edited(|d| d["formatVersion"] = 2.into()), "format version 2"),
            ("no such db", edited(|d| d["cluster"]["status"]["master"] = "nobody".into()), "nobody"),
            ("bad spec", edited(|d| d["cluster"]["spec"]["failInterval"] = "-1s".into()), "failInterval"),
        ];
        for (what, bytes, words) in damages {
            cluster.etcd.put(&key, &bytes).await;
            let line = eventually(&format!("log and status name it: {what}"), WAIT, async || {
                let log = cluster.sentinels[0].log();
                let said = log.lines().rev().find(|line| line.contains(words)).map(str::to_owned);
                let status = status(&cluster);
                match said {
                    Some(line) if status.contains(words) => Ok(line),
                    Some(_) => Err(format!("status: {status}")),
                    None => Err("nothing in the sentinel's log".to_owned()),
                }
            })
            .await;
            assert!(!line.contains("panicked"), "{line}");
            let stored = cluster.etcd.range(&key).await.unwrap()[0].value().to_vec();
            assert_eq!(stored, bytes, "{what}: nobody writes over what it can't read");
            cluster.etcd.put(&key, &original).await;
            eventually("all is as before", WAIT, async || {
                let now = cluster.keys().await?.serving()?;
                if now == serving { Ok(()) } else { Err(format!("{now:?}")) }
            })
            .await;
            writer.flows().await;
        }
        let keepers = cluster.keepers.iter_mut().map(|keeper| &mut keeper.daemon);
        for daemon in keepers.chain(&mut cluster.sentinels).chain(&mut cluster.proxies) {
            assert!(daemon.process().running(), "{} has ended", daemon.name);
        }
        cluster.settled().await;
        writer.finish().await.is_clean();
    });
}

/// The distribution's programs, of which `failing` leave half their work and fail when called for the first time.
fn stumbling(test: &Test, failing: &[&str]) -> PathBuf {
    let folder = test.subfolder("programs");
    for entry in std::fs::read_dir(PROGRAMS).unwrap().flatten() {
        let (name, to) = (entry.file_name(), folder.join(entry.file_name()));
        if !failing.contains(&name.to_str().unwrap()) {
            std::os::unix::fs::symlink(entry.path(), to).unwrap();
            continue;
        }
        let marker = test.folder().join(format!("{}.failed", name.to_str().unwrap()));
        std::fs::write(&marker, "").unwrap();
        std::fs::set_permissions(&marker, std::fs::Permissions::from_mode(0o666)).unwrap();
        let script = format!(
            "#!/bin/sh\nif [ -s {marker} ] || [ \"$1\" = --version ] || [ \"$1\" = -V ]; then exec {real} \"$@\"; fi\n\
             echo x > {marker}\nfor arg; do case \"$last\" in -D|--pgdata) dir=$arg;; esac; \
             case \"$arg\" in --pgdata=*) dir=${{arg#--pgdata=}};; esac; last=$arg; done\n\
             [ -n \"$dir\" ] && mkdir -p \"$dir/base\" && chmod 700 \"$dir\" && echo 15 > \"$dir/PG_VERSION\"\n\
             echo 'no space left on device, says the test' >&2\nexit 1\n",
            marker = marker.display(),
            real = entry.path().display(),
        );
        std::fs::write(&to, script).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

#[test]
fn initdb_and_pg_basebackup_that_fail_half_way_are_reported_and_tried_again() {
    run("half-way", Weight::Cluster, async |test| {
        let programs = stumbling(&test, &["initdb", "pg_basebackup"]);
        let keeper = vec!["--pg-bin-path".to_owned(), programs.display().to_string()];
        let options = ClusterOptions { keepers: 2, sentinels: 1, keeper, ..Default::default() };
        let cluster = Cluster::start(test, options).await;
        for program in ["initdb", "pg_basebackup"] {
            let said =
                |log: &str| log.lines().any(|line| line.contains(program) && line.contains("no space left on device"));
            assert!(
                cluster.keepers.iter().any(|keeper| said(&keeper.daemon.log())),
                "no keeper's log has a line on {program} with its reason"
            );
        }
    });
}
