//! Initialisation by itself happens once: never over living data, however empty etcd is.

use std::time::Duration;

use stolon_tests::{Cluster, ClusterOptions, Weight, cluster::BASE, during, eventually, run};

const WAIT: Duration = Duration::from_secs(30);

#[test]
fn an_emptied_etcd_never_leads_to_initdb_over_living_data() {
    run("init-refused", Weight::Cluster, async |test| {
        let options = ClusterOptions { keepers: 2, sentinels: 1, ..Default::default() };
        let mut cluster = Cluster::start(test, options.clone()).await;
        let (primary, _) = cluster.primary().await;
        let keys = cluster.keys().await.unwrap();
        assert_eq!(keys.data.unwrap().cluster.spec.use_pgrewind, Some(true), "as the automatic specification says");
        cluster.proxy().query("CREATE TABLE kept AS SELECT 42 AS answer").await.unwrap();
        cluster.streaming(1).await;

        cluster.etcd.delete(BASE, true).await;
        nothing_initialised(&cluster, "under running daemons").await;
        for keeper in 0..2 {
            cluster.keepers[keeper].daemon.process().kill();
        }
        cluster.sentinels[0].process().kill();
        cluster.etcd.delete(BASE, true).await;
        (0..2).for_each(|keeper| cluster.start_keeper(keeper));
        let Cluster { sentinels, test, .. } = &mut cluster;
        sentinels[0].start(test);
        eventually("the sentinel says why it doesn't initialise", WAIT, async || {
            let log = cluster.sentinels[0].log();
            let line = log.lines().rev().find(|line| line.contains("postgres0") && line.contains("postgres1"));
            line.map(str::to_owned).ok_or("no line names both keepers")
        })
        .await;
        nothing_initialised(&cluster, "after a restart").await;

        // The way out: name the keeper whose data is the cluster's.
        let uid = cluster.keepers[primary].uid.clone();
        let spec = serde_json::json!({"initMode": "existing", "existingConfig": {"keeperUID": uid}});
        cluster.sentinels[0].process().kill();
        cluster.add_sentinel(&ClusterOptions { spec: Some(spec), ..options });
        let answer = eventually("the old data is served again", Duration::from_secs(60), async || {
            cluster.proxy().value("SELECT answer FROM kept").await
        })
        .await;
        assert_eq!(answer, "42");
        assert_eq!(cluster.primary().await.0, primary);
    });
}

async fn nothing_initialised(cluster: &Cluster, when: &str) {
    during(&format!("no new cluster {when}"), Duration::from_secs(8), async || {
        let keys = cluster.keys().await?;
        if keys.data.is_some() {
            return Err("cluster data was written".to_owned());
        }
        let whole = |data: &std::path::Path| data.join("postgres/base").is_dir();
        let gone = cluster.keepers.iter().find(|keeper| !whole(&keeper.data_dir));
        gone.map_or(Ok(()), |keeper| Err(format!("the data of {} is gone", keeper.uid)))
    })
    .await;
}
