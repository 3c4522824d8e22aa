//! `stolonctl playground`: a whole cluster from one command, gone without a trace on Ctrl-C.

use std::time::Duration;

use rustix::process::Signal;
use stolon_tests::{Weight, eventually, proc, run};

#[test]
fn the_playground_starts_answers_and_leaves_no_process_behind() {
    run("playground", Weight::Cluster, async |test| {
        let folder = test.subfolder("playground");
        let args = ["playground", "--folder", &folder.display().to_string()].map(str::to_owned);
        let mut playground = test.spawn("playground", "stolonctl", &args, &[]);
        let psql = eventually("a psql line", Duration::from_secs(90), async || {
            let log = playground.log_text();
            let line = log.lines().find(|line| line.contains("psql ") && line.contains("--port"));
            line.map(str::to_owned).ok_or(log.clone())
        })
        .await;
        let port: u16 = psql.split("--port").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        let proxy = stolon_tests::sql::Target::loopback(port);
        assert_eq!(proxy.value("SELECT pg_is_in_recovery()").await.as_deref(), Ok("f"), "ready means that it answers");
        let members = proc::tree(playground.pid());
        let named = |name: &str| members.iter().filter(|pid| proc::command_line(**pid).contains(name)).count();
        assert!(named("stolon-keeper") >= 3 && named("stolon-sentinel") >= 2 && named("stolon-proxy") >= 1);
        playground.signal(Signal::INT);
        let status = playground.ended(Duration::from_secs(30));
        assert!(status.success(), "{status}");
        let left: Vec<_> =
            members.iter().filter(|pid| proc::alive(**pid)).map(|pid| proc::command_line(*pid)).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert!(proc::within(&folder).is_empty(), "something still works in {}", folder.display());
    });
}
