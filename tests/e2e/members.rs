//! etcd with three members: one may die or freeze, also its leader, and clients of the database notice nothing.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stolon_tests::{Cluster, ClusterOptions, Weight, during, eventually, run, writer::Writer};

#[derive(Clone, Copy, Debug)]
enum Whom {
    Leader,
    Follower,
}

async fn pick(cluster: &Cluster, whom: Whom) -> usize {
    let bound = Duration::from_secs(20);
    let leader = eventually("etcd has a leader", bound, async || cluster.etcd.leader().await).await;
    match whom {
        Whom::Leader => leader,
        Whom::Follower => (leader + 1) % cluster.etcd.members.len(),
    }
}

async fn undisturbed(cluster: &Cluster, expected: &(String, u64), what: &str, span: Duration) {
    during(&format!("no failover while {what}"), span, async || {
        // One answer may fail while etcd elects; another primary may never show.
        match cluster.keys().await {
            Ok(keys) if keys.epoch() != expected.1 => Err(format!("epoch {} instead of {}", keys.epoch(), expected.1)),
            Ok(keys) if keys.data.as_ref().is_some_and(|data| data.fencing().is_some()) => {
                Err(format!("fencing: {:?}", keys.data.as_ref().and_then(|data| data.fencing())))
            }
            _ => Ok(()),
        }
    })
    .await;
}

#[test]
fn a_dead_or_frozen_etcd_member_causes_no_failover_and_no_gap() {
    run("etcd-members", Weight::Heavy, async |test| {
        let options = ClusterOptions { etcd: 3, keepers: 2, ..Default::default() };
        let mut cluster = Cluster::start(test, options).await;
        let writer = Writer::start(cluster.proxy()).await;
        let serving = cluster.keys().await.unwrap().serving().unwrap();
        let (cuts, at) = (writer.cut(), Instant::now());
        // Each longer than a registration's lease (5 s) and its margin.
        let span = Duration::from_secs(8);
        for whom in [Whom::Follower, Whom::Leader] {
            let member = pick(&cluster, whom).await;
            cluster.etcd.freeze(member);
            undisturbed(&cluster, &serving, &format!("etcd's {whom:?} is frozen"), span).await;
            // A leader that wakes up deposed may end leases that are alive (etcd #15247, before 3.5.11): it dies frozen, and
            // its successor's death is the next one's.
            if matches!(whom, Whom::Leader) {
                cluster.etcd.kill_member(member);
                cluster.etcd.start_member(member);
                undisturbed(&cluster, &serving, "a frozen leader of etcd was replaced", Duration::from_secs(2)).await;
            } else {
                cluster.etcd.thaw(member);
            }
            let member = pick(&cluster, whom).await;
            cluster.etcd.kill_member(member);
            undisturbed(&cluster, &serving, &format!("etcd's {whom:?} is dead"), span).await;
            cluster.etcd.start_member(member);
            undisturbed(&cluster, &serving, &format!("etcd's {whom:?} comes back"), Duration::from_secs(2)).await;
        }
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        let gap = writer.report_gap("etcd-member", at);
        assert!(gap < Duration::from_secs(1), "{gap:?} without a commit");
        assert_eq!(cluster.settled().await.1, serving.1, "the same epoch at the end");
        writer.finish().await.is_clean();
    });
}

#[test]
fn a_failover_completes_while_one_etcd_member_is_frozen() {
    run("etcd-frozen-failover", Weight::Heavy, async |test| {
        let options = ClusterOptions { etcd: 3, keepers: 2, ..Default::default() };
        let mut cluster = Cluster::start(test, options).await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let (server, member) = (writer.server(), pick(&cluster, Whom::Leader).await);
        let at = Instant::now();
        cluster.etcd.freeze(member);
        // The keeper too: while etcd elects nobody asks for the epoch, and PostgreSQL would start again in place (R17).
        cluster.keepers[old].signal_all(Signal::KILL);
        cluster.keepers[old].daemon.process().kill();
        writer.moves_from(&server, Duration::from_secs(30)).await;
        writer.report_gap("primary-and-etcd-leader", at);
        cluster.start_keeper(old);
        cluster.etcd.thaw(member);
        let (new, next) = cluster.settled().await;
        assert!(new != old && next > epoch, "keeper {new} in epoch {next}");
        writer.finish().await.is_clean_but_for(3);
    });
}
