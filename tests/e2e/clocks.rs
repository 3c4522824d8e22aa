//! A wall clock that jumps by an hour on one host after the other, forth and back: nobody notices, for no duration is
//! counted by it. The jump is made by a library that is loaded before the daemons' own, and before PostgreSQL's.

use std::{path::Path, process::Command, time::Duration};

use stolon_tests::{Cluster, ClusterOptions, Weight, during, run, writer::Writer};

/// Longer than a lease.
const WATCH: Duration = Duration::from_secs(6);

/// While the file that the environment names is there, the wall clock is an hour ahead.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long ahead(void) {
    const char *file = getenv("STOLON_TEST_JUMP");
    return file && access(file, F_OK) == 0 ? 3600 : 0;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, at);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += ahead();
    return result;
}
int gettimeofday(struct timeval *at, void *zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(at, zone);
    at->tv_sec += ahead();
    return result;
}
"#;

fn library(folder: &Path) -> String {
    let (source, built) = (folder.join("jump.c"), folder.join("jump.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let out = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&built).arg(&source).arg("-ldl").output();
    let out = out.expect("cc can be run (it links every Rust program)");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    built.display().to_string()
}

#[test]
fn a_wall_clock_that_jumps_by_an_hour_on_any_host_changes_nothing() {
    run("clocks", Weight::Cluster, async |test| {
        let (folder, library) = (test.folder().to_owned(), library(test.folder()));
        let jumping = |name: &str| ClusterOptions {
            env: vec![
                ("LD_PRELOAD".into(), library.clone()),
                ("STOLON_TEST_JUMP".into(), folder.join(name).display().to_string()),
            ],
            ..ClusterOptions::default()
        };
        let none = ClusterOptions { keepers: 0, sentinels: 0, proxies: 0, ..ClusterOptions::default() };
        let mut cluster = Cluster::launch(test, none).await;
        cluster.add_keeper(&jumping("keeper0"));
        cluster.add_keeper(&jumping("keeper1"));
        cluster.add_sentinel(&jumping("sentinel"));
        cluster.add_proxy(&jumping("proxy"));
        let (primary, epoch) = cluster.settled().await;
        let postmaster = cluster.keepers[primary].postmaster();
        let writer = Writer::start(cluster.proxy()).await;
        let keepers = cluster.keepers.iter().map(|keeper| &keeper.daemon);
        for daemon in keepers.chain(&cluster.sentinels).chain(&cluster.proxies) {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
            assert!(maps.contains("jump.so"), "{} has the machine's clock", daemon.name);
        }
        let [ours, theirs] = [primary, 1 - primary].map(|index| format!("keeper{index}"));
        for (names, server) in [([ours.as_str(), "sentinel"], primary), ([theirs.as_str(), "proxy"], 1 - primary)] {
            for ahead in [true, false] {
                let change = |name: &&str| match ahead {
                    true => std::fs::write(folder.join(name), "").unwrap(),
                    false => std::fs::remove_file(folder.join(name)).unwrap(),
                };
                names.iter().for_each(change);
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let felt = format!("SELECT extract(epoch FROM clock_timestamp()) > {}", now + 1800);
                let answer = cluster.keepers[server].target().value(&felt).await;
                assert_eq!(answer.as_deref(), Ok(if ahead { "t" } else { "f" }), "{names:?}");
                during(&format!("no change while {names:?} jump (ahead: {ahead})"), WATCH, async || {
                    let seen = cluster.keys().await.and_then(|keys| keys.serving());
                    let same = seen == Ok((cluster.keepers[primary].uid.clone(), epoch));
                    if same { Ok(()) } else { Err(format!("{seen:?}")) }
                })
                .await;
                writer.flows().await;
            }
        }
        assert_eq!(cluster.keepers[primary].postmaster(), postmaster, "PostgreSQL was started anew");
        cluster.streaming(1).await;
        writer.finish().await.is_clean();
    });
}
