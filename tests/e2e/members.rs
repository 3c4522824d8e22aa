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

/// The longest that a reading may fail: an election of etcd's own, after a question to a member that is frozen (2 s).
const UNREADABLE: Duration = Duration::from_secs(5);

/// Every reading shows the same primary, serving in the same epoch, and there are readings.
async fn undisturbed(cluster: &Cluster, expected: &(String, u64), what: &str, span: Duration) {
    let (mut last, mut readings) = (Instant::now(), 0);
    during(&format!("no failover while {what}"), span, async || {
        let keys = match cluster.keys().await {
            Ok(keys) => keys,
            Err(error) if last.elapsed() > UNREADABLE => {
                return Err(format!("no reading for {:.1} s: {error}", last.elapsed().as_secs_f64()));
            }
            Err(_) => return Ok(()),
        };
        (last, readings) = (Instant::now(), readings + 1);
        let now = keys.serving()?;
        if now == *expected { Ok(()) } else { Err(format!("{now:?} instead of {expected:?}")) }
    })
    .await;
    assert!(readings > 0, "no reading at all while {what}");
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
