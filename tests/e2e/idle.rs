//! A cluster that nothing happens to costs nothing: no write to etcd, hardly any processor time.

use std::time::Duration;

use stolon_tests::{Cluster, ClusterOptions, Weight, eventually, proc, run, runner::report};

const MINUTE: Duration = Duration::from_secs(60);
/// Two per cent of a core.
const SHARE: f64 = 0.02;

#[test]
fn an_idle_cluster_writes_nothing_to_etcd_and_uses_hardly_any_processor_time() {
    run("idle", Weight::Cluster, async |test| {
        let cluster = Cluster::start(test, ClusterOptions::default()).await;
        let mut seen = (0, std::time::Instant::now());
        eventually("etcd's revision stands still for 5 s", Duration::from_secs(40), async || {
            let revision = cluster.etcd.revision().await?;
            if revision != seen.0 {
                seen = (revision, std::time::Instant::now());
            }
            if seen.1.elapsed() > Duration::from_secs(5) { Ok(()) } else { Err(format!("revision {revision}")) }
        })
        .await;
        let keepers = cluster.keepers.iter().map(|keeper| &keeper.daemon);
        let daemons = keepers.chain(&cluster.sentinels).chain(&cluster.proxies);
        let daemons = daemons.map(|daemon| (daemon.name.clone(), daemon.pid()));
        let guards =
            cluster.keepers.iter().filter_map(|keeper| Some((format!("guard of {}", keeper.uid), keeper.guard()?)));
        let daemons: Vec<_> = daemons.chain(guards).collect();
        assert_eq!(daemons.len(), 3 + 2 + 1 + 3, "each keeper has a guard: {daemons:?}");
        let used = |pid: u32| proc::cpu(pid).unwrap_or_else(|| panic!("process {pid} is gone"));
        let before: Vec<Duration> = daemons.iter().map(|(_, pid)| used(*pid)).collect();
        let (revision, keys) = (cluster.etcd.revision().await.unwrap(), cluster.etcd.range("").await.unwrap());
        tokio::time::sleep(MINUTE).await;
        let after = cluster.etcd.revision().await.unwrap();
        let changed = || async {
            let now = cluster.etcd.range("").await.unwrap();
            let new = now.iter().filter(|kv| !keys.iter().any(|old| old.mod_revision() == kv.mod_revision()));
            new.map(|kv| kv.key_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(after, revision, "writes in an idle minute, the last ones to {:?}", changed().await);
        let mut greedy = Vec::new();
        for ((name, pid), before) in daemons.iter().zip(before) {
            let share = (used(*pid) - before).as_secs_f64() / MINUTE.as_secs_f64();
            report(&format!("IDLE {name} {:.2} %, {}", share * 100.0, proc::memory(*pid)));
            if share >= SHARE {
                greedy.push(format!("{name} {:.2} %", share * 100.0));
            }
        }
        assert!(greedy.is_empty(), "more than {} % of a core while idle: {greedy:?}", SHARE * 100.0);
    });
}
