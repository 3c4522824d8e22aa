//! R13: a server that lives and does not work: a stopped postmaster, a disk that hangs, a disk that is full. Each is in
//! `stolonctl status` within seconds, and after `failInterval` a standby takes over, though sessions and WAL may flow.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use stolon_tests::{
    Cluster, ClusterOptions, Weight, cluster::CLUSTER, disk::Disk, eventually, netns, proc, process::complete, run,
    runner::report, writer::Writer,
};

/// How the primary's server is made unfit, and what makes it well again.
struct Trouble {
    name: &'static str,
    /// What status says.
    words: &'static str,
    hit: fn(&Cluster, &Disk),
    heal: fn(&Disk),
}

#[test]
fn a_stopped_postmaster_is_seen_and_fails_over() {
    let hit = |cluster: &Cluster, _: &Disk| proc::signal(cluster.keepers[0].postmaster().unwrap(), Signal::STOP);
    let words = "PostgreSQL does not serve a new connection";
    unfit(Trouble { name: "unfit-postmaster", words, hit, heal: |_| () });
}

#[test]
fn a_disk_that_hangs_is_seen_and_fails_over() {
    let hit = |_: &Cluster, disk: &Disk| disk.freeze();
    unfit(Trouble { name: "unfit-hung-disk", words: "its disk hangs", hit, heal: Disk::mend });
}

#[test]
fn a_full_disk_is_seen_and_fails_over() {
    let hit = |_: &Cluster, disk: &Disk| disk.fill();
    unfit(Trouble { name: "unfit-full-disk", words: "is full", hit, heal: Disk::mend });
}

/// MiB: room for a small database and its WAL.
const ROOM: u64 = 512;

fn unfit(trouble: Trouble) {
    // Mounting a file system needs root, as namespaces do.
    if !netns::allowed(trouble.name) {
        return;
    }
    run(trouble.name, Weight::Cluster, async |test| {
        let spec = json!({"initMode": "new", "usePgrewind": true, "failInterval": "5s"});
        let options = ClusterOptions { keepers: 0, spec: Some(spec), ..Default::default() };
        let mut cluster = Cluster::launch(test, options.clone()).await;
        let place = cluster.test.folder().join("data/postgres0");
        let disk = Disk::new(&place, ROOM);
        cluster.add_keeper(&options);
        assert_eq!(cluster.primary().await.0, 0);
        cluster.add_keeper(&options);
        let (old, epoch) = cluster.settled().await;
        assert_eq!(old, 0);
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        let at = Instant::now();
        (trouble.hit)(&cluster, &disk);
        let words = trouble.words;
        eventually(&format!("{words:?} in the status"), Duration::from_secs(6), async || {
            let text = status(&cluster);
            let told = text.lines().any(|line| line.contains("keeper postgres0") && line.contains(words));
            if told { Ok(()) } else { Err(text) }
        })
        .await;
        report(&format!("SEEN {} {}", trouble.name, at.elapsed().as_millis()));
        writer.moves_from(&server, Duration::from_secs(30)).await;
        report(&format!("MOVED {} {}", trouble.name, at.elapsed().as_millis()));
        let (new, next) = cluster.primary().await;
        assert!(new == 1 && next > epoch, "keeper {new} in epoch {next}");
        (trouble.heal)(&disk);
        cluster.settled().await;
        writer.finish().await.is_clean_but_for(3);
        drop(disk);
    });
}

fn status(cluster: &Cluster) -> String {
    let mut command = cluster.test.command("stolonctl");
    command.args(["status", "--cluster-name", CLUSTER, "--store-endpoints", &cluster.etcd.endpoints()]);
    complete(cluster.test.folder(), &mut command, Duration::from_secs(5)).out
}
