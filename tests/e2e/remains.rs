//! What a scene leaves on the machine when it ends: nothing, also of servers that were killed, and of directories that are
//! gone before it ends. And what is in use stays.

use std::time::Duration;

use rustix::process::Signal;
use stolon_tests::{
    Cluster, ClusterOptions, Weight, eventually,
    postmaster::{self, Segment},
    run,
};

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn shared_memory_of_killed_servers_ends_with_their_scene_and_of_running_ones_stays() {
    run("remains", Weight::Cluster, async |test| {
        let options = ClusterOptions { keepers: 2, sentinels: 1, proxies: 0, ..ClusterOptions::default() };
        let cluster = Cluster::start(test, options).await;
        let data = |index: usize| cluster.keepers[index].data_dir.join("postgres");
        let segments: Vec<Segment> = (0..2).map(|index| Segment::of(&data(index)).unwrap()).collect();
        assert!(cluster.keepers.iter().all(|keeper| keeper.postmaster().is_some()));
        postmaster::release(cluster.test.folder());
        for (keeper, segment) in cluster.keepers.iter().zip(&segments) {
            assert!(segment.attached() > Some(0), "{}'s {segment:?} was taken from it", keeper.uid);
        }

        cluster.keepers.iter().for_each(|keeper| keeper.signal_all(Signal::KILL));
        eventually("killed servers leave their shared memory behind", WAIT, async || {
            let left: Vec<_> = segments.iter().map(Segment::attached).collect();
            if left == [Some(0), Some(0)] { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        std::fs::remove_dir_all(data(1)).unwrap();
        drop(cluster);
        for segment in segments {
            assert_eq!(segment.attached(), None, "{segment:?}");
        }
    });
}
