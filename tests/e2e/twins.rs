//! Histories and directories that look alike: a timeline number that two promotions used (execution 18), and a copy of the
//! primary's directory (execution 21). Either loses data without a word when it is taken for the other.

use std::{fs, process::Command, time::Duration};

use rustix::process::Signal;
use stolon_tests::{
    Cluster, ClusterOptions, Weight,
    cluster::{BASE, Daemon},
    eventually,
    ports::free_port,
    run,
    sql::Target,
    writer::Writer,
};

const WAIT: Duration = Duration::from_secs(40);

async fn insert(target: &Target, from: u32, to: u32) {
    target.query(&format!("INSERT INTO twins SELECT generate_series({from}, {to})")).await.unwrap();
}

#[test]
fn a_timeline_number_that_two_promotions_used_leaves_every_member_with_the_same_rows() {
    run("timeline-twice", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions::default()).await;
        let (first, epoch) = cluster.primary().await;
        cluster.keepers[first].target().query("CREATE TABLE twins (id int)").await.unwrap();
        cluster.streaming(2).await;
        // One standby never learns of the promotion of the other.
        let frozen = (first + 1) % 3;
        cluster.keepers[frozen].daemon.process().signal(Signal::STOP);
        cluster.keepers[first].signal_all(Signal::KILL);
        let (second, epoch) = serving_after(&cluster, epoch).await;
        insert(&cluster.keepers[second].target(), 1, 40).await;
        cluster.keepers[second].signal_all(Signal::KILL);
        cluster.keepers[frozen].daemon.process().signal(Signal::CONT);
        let (third, epoch) = serving_after(&cluster, epoch).await;
        assert_eq!(third, frozen);
        insert(&cluster.keepers[third].target(), 1001, 3000).await;
        cluster.start_keeper(first);
        cluster.start_keeper(second);
        cluster.settled().await;
        let sql = "SELECT count(*), coalesce(sum(id), 0) FROM twins";
        let keys = cluster.keys().await.unwrap();
        let history = &keys.data.unwrap().cluster.status.history;
        let timelines: Vec<_> = history.iter().rev().take(2).map(|entry| entry.timeline).collect();
        assert!(timelines[0] == timelines[1] && keys.ready.unwrap().epoch.0 == epoch, "{history:?}");
        let wanted = cluster.keepers[third].target().query(sql).await.unwrap();
        for keeper in &cluster.keepers {
            assert_eq!(keeper.target().query(sql).await.unwrap(), wanted, "rows of {}", keeper.uid);
        }
    });
}

/// Index of the keeper that serves, in an epoch after `epoch`, and that one.
async fn serving_after(cluster: &Cluster, epoch: u64) -> (usize, u64) {
    let (uid, epoch) = eventually(&format!("a primary after epoch {epoch}"), WAIT, async || {
        let (uid, now) = cluster.keys().await?.serving()?;
        if now > epoch { Ok((uid, now)) } else { Err(format!("epoch {now}")) }
    })
    .await;
    (cluster.index(&uid), epoch)
}

#[test]
fn a_copy_of_the_primarys_directory_never_takes_its_place_in_the_same_epoch() {
    run("copied-directory", Weight::Cluster, async |test| {
        let cluster = Cluster::start(test, ClusterOptions::default()).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (uid, from) = (&cluster.keepers[old].uid, &cluster.keepers[old].data_dir);
        let to = from.with_file_name("copy");
        // Files that PostgreSQL removes meanwhile are reported; what counts is there.
        let _ = Command::new("cp").arg("-a").args([from, &to]).stderr(std::process::Stdio::null()).status().unwrap();
        fs::remove_file(to.join("postgres/postmaster.pid")).unwrap();
        let endpoints = cluster.etcd.endpoints();
        let (name, port, folder) = (BASE.split('/').nth(2).unwrap(), free_port().to_string(), to.display().to_string());
        let args = ["--cluster-name", name, "--store-endpoints", &endpoints, "--id", uid, "--data-dir", &folder];
        let args = args.into_iter().chain(["--port", "0", "--pg-port", &port]).map(str::to_owned).collect();
        let mut copy = Daemon::new("copy", "stolon-keeper", args, &[]);
        copy.start(&cluster.test);
        eventually("the copy is refused", WAIT, async || copy.process().logged("registered already")).await;
        let before = writer.count();
        eventually("rows that the copy lacks", WAIT, async || {
            if writer.count() > before + 100 { Ok(()) } else { Err("too few yet") }
        })
        .await;
        let server = writer.server();
        cluster.keepers[old].signal_all(Signal::STOP);
        writer.moves_from(&server, WAIT).await;
        let (_, now) = cluster.primary().await;
        assert!(now > epoch, "a primary chosen by its position, in an epoch of its own");
        writer.finish().await.is_clean_but_for(3);
        cluster.keepers[old].signal_all(Signal::CONT);
    });
}
