//! R13: a server that lives and does not work: a stopped postmaster, a disk that hangs, a disk that is full. Each is in
//! `stolonctl status` within seconds, and after `failInterval` a standby takes over, though sessions and WAL may flow.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use stolon_tests::{
    Cluster, ClusterOptions, Weight, cluster::CLUSTER, eventually, proc, process::complete, run, runner::report,
    volume::Volume, writer::Writer,
};

/// How the primary's server is made unfit, and what makes it well again.
struct Trouble {
    name: &'static str,
    /// What status says.
    words: &'static str,
    hit: fn(&Cluster, &Volume),
    heal: fn(&Volume),
}

#[test]
fn a_stopped_postmaster_is_seen_and_fails_over() {
    let hit = |cluster: &Cluster, _: &Volume| proc::signal(cluster.keepers[0].postmaster().unwrap(), Signal::STOP);
    let words = "PostgreSQL does not serve a new connection";
    unfit(Trouble { name: "unfit-postmaster", words, hit, heal: |_| () });
}

#[test]
fn a_disk_that_hangs_is_seen_and_fails_over() {
    let hit = |_: &Cluster, volume: &Volume| volume.freeze();
    unfit(Trouble { name: "unfit-hung-disk", words: "its disk hangs", hit, heal: Volume::thaw });
}

#[test]
fn a_full_disk_is_seen_and_fails_over() {
    let hit = |_: &Cluster, volume: &Volume| volume.fill();
    unfit(Trouble { name: "unfit-full-disk", words: "is full", hit, heal: Volume::release });
}

fn unfit(trouble: Trouble) {
    run(trouble.name, Weight::Cluster, async |test| {
        let spec = json!({"initMode": "new", "usePgrewind": true, "failInterval": "5s"});
        let options = ClusterOptions { keepers: 0, spec: Some(spec), ..Default::default() };
        let mut cluster = Cluster::launch(test, options.clone()).await;
        let place = cluster.test.folder().join("data/postgres0");
        let Some(volume) = Volume::mount(trouble.name, &place) else { return };
        cluster.add_keeper(&options);
        assert_eq!(cluster.primary().await.0, 0);
        cluster.add_keeper(&options);
        let (old, epoch) = cluster.settled().await;
        assert_eq!(old, 0);
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        let at = Instant::now();
        (trouble.hit)(&cluster, &volume);
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
        (trouble.heal)(&volume);
        cluster.settled().await;
        writer.finish().await.is_clean_but_for(3);
        drop(volume);
    });
}

fn status(cluster: &Cluster) -> String {
    let mut command = cluster.test.command("stolonctl");
    command.args(["status", "--cluster-name", CLUSTER, "--store-endpoints", &cluster.etcd.endpoints()]);
    complete(cluster.test.folder(), &mut command, Duration::from_secs(5)).out
}
