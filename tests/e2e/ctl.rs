//! `stolonctl` against a running cluster: what it prints is what is.

use std::time::Duration;

use serde_json::Value;
use stolon_tests::{Cluster, ClusterOptions, Weight, cluster::BASE, cluster::CLUSTER, process::complete, run};

fn ctl(cluster: &Cluster, args: &[&str]) -> String {
    let mut command = cluster.test.command("stolonctl");
    command.args(args).args(["--cluster-name", CLUSTER, "--store-endpoints", &cluster.etcd.endpoints()]);
    let outcome = complete(cluster.test.folder(), &mut command, Duration::from_secs(10));
    assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
    outcome.out
}

#[test]
fn status_cluster_data_and_specification_are_printed_as_they_are() {
    run("ctl", Weight::Cluster, async |test| {
        let spec = serde_json::json!({
            "initMode": "new", "usePgrewind": true, "failInterval": "7s", "pgParameters": {"max_connections": "77"}
        });
        let options = ClusterOptions { keepers: 2, spec: Some(spec), ..Default::default() };
        let cluster = Cluster::start(test, options).await;
        let (primary, epoch) = cluster.primary().await;
        // The initial specification is in force.
        assert_eq!(cluster.proxy().value("SHOW max_connections").await.as_deref(), Ok("77"));

        let text = ctl(&cluster, &["status"]);
        for uid in ["postgres0", "postgres1"] {
            assert!(text.contains(uid), "{text}");
        }
        assert!(text.contains(&epoch.to_string()), "{text}");
        let status: Value = serde_json::from_str(&ctl(&cluster, &["status", "-f", "json"])).unwrap();
        let text = status.to_string();
        assert!(text.contains(&cluster.keepers[primary].uid), "{text}");
        assert!(text.contains(&cluster.keys().await.unwrap().election[0]), "the leading sentinel: {text}");

        let printed: Value = serde_json::from_str(&ctl(&cluster, &["clusterdata", "read"])).unwrap();
        let stored = cluster.etcd.range(&format!("{BASE}clusterdata")).await.unwrap();
        assert_eq!(printed, serde_json::from_slice::<Value>(stored[0].value()).unwrap());
        let spec: Value = serde_json::from_str(&ctl(&cluster, &["spec"])).unwrap();
        assert_eq!(spec["failInterval"], "7s", "{spec}");
        let all: Value = serde_json::from_str(&ctl(&cluster, &["spec", "--defaults"])).unwrap();
        assert_eq!(all["sleepInterval"], "5s", "{all}");
        let mut version = cluster.test.command("stolonctl");
        let version = complete(cluster.test.folder(), version.arg("version"), Duration::from_secs(10));
        assert!(version.code == Some(0) && version.out.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    });
}
