//! The probe and the sampler.

use rustix::process::Signal;
use stolon::task::Shutdown;
use tokio::sync::watch;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Sampling {
    sampler: Sampler,
    samples: watch::Receiver<Option<Sample>>,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), String>>,
}

impl Sampling {
    fn of(node: &Node, every: Duration) -> Sampling {
        let (sampler, shutdown) = (Sampler::new(node.instance.clone(), every), Shutdown::new());
        let task = tokio::spawn(sampler.clone().run(shutdown.clone()));
        Sampling { samples: sampler.watch(), sampler, shutdown, task }
    }

    async fn wait(&mut self, what: &str, wanted: impl Fn(&Sample) -> bool) -> Sample {
        let wanted = |sample: &Option<Sample>| sample.as_ref().is_some_and(&wanted);
        within(what, self.samples.wait_for(wanted)).await.unwrap().clone().unwrap()
    }

    async fn end(self) {
        self.shutdown.trigger();
        within("the sampler's end", self.task).await.unwrap().unwrap();
    }
}

const OFTEN: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_writes_on_a_primary_and_reads_on_a_standby() {
    let (one, _first) = Node::primary("a").await;
    let (two, _second) = Node::standby("b", &one).await;
    let before = one.lsn("pg_current_wal_insert_lsn()").await;
    let probed = one.instance.probe(PATIENCE).await.unwrap().unwrap();
    let flushed = one.lsn("pg_current_wal_flush_lsn()").await;
    assert!(before < probed && probed <= flushed, "{before} < {probed} <= {flushed}");
    assert_eq!(two.instance.probe(PATIENCE).await.unwrap(), None);
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        one.instance.probe(PATIENCE).await.unwrap();
        times.push(began.elapsed());
    }
    figure("probe of a primary", times);
}

/// Commits that wait for a standby are no fault of this server.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_does_not_wait_for_synchronous_standbys() {
    let (node, postmaster) = Node::primary("a").await;
    node.configure_sync(ConfRole::Primary, "nobody");
    postmaster.reload().await.unwrap();
    node.wait_sql("SHOW synchronous_standby_names", "nobody").await;
    assert!(node.instance.probe(Duration::from_secs(5)).await.unwrap().is_some());
}

/// Who has shown no password yet takes a place, too; the sampler's session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_place_for_the_probe_says_that_it_lives() {
    let mut node = Node::copied("a");
    node.settings.parameters.insert("max_connections".into(), "10".into());
    let _postmaster = node.start(ConfRole::Primary).await;
    let mut silent = Vec::new();
    let answer = loop {
        match node.instance.probe(PATIENCE).await {
            Ok(_) => silent.push(half_a_login(&node).await),
            Err(error) => break error,
        }
        assert!(silent.len() < 100, "every probe found a place");
    };
    assert!(matches!(answer, PgError::Full { .. }), "{answer}");
}

/// Asks for a login and never answers the server's challenge.
async fn half_a_login(node: &Node) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", node.port())).await.unwrap();
    let parameters = b"user\0stranger\0database\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap();
    let message = [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), parameters].concat();
    stream.write_all(&message).await.unwrap();
    let kind = within("the challenge", stream.read_u8()).await;
    assert!(matches!(kind, Ok(b'R' | b'E')), "{kind:?}");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_postmaster_fails_the_probe_in_time() {
    let (node, postmaster) = Node::primary("a").await;
    postmaster.signal(Signal::STOP).unwrap();
    let began = Instant::now();
    let error = node.instance.probe(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, PgError::TimedOut { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
    postmaster.signal(Signal::CONT).unwrap();
    node.instance.probe(PATIENCE).await.unwrap();
    postmaster.kill_all().await;
    let error = node.instance.probe(PATIENCE).await.unwrap_err();
    assert!(matches!(error, PgError::Sql { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_show_the_position_the_roles_and_the_followers() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    let (mut primary, mut standby) = (Sampling::of(&one, OFTEN), Sampling::of(&two, OFTEN));
    let sample = primary.wait("a follower", |sample| sample.followers.contains_key("stolon_b")).await;
    assert!(!sample.in_recovery && !sample.streaming && sample.synchronous_standby_names.is_empty());
    assert!(!sample.followers["stolon_b"].in_sync);
    let seen = standby.wait("streaming", |sample| sample.streaming).await;
    assert!(seen.in_recovery && seen.system_id == sample.system_id && seen.position.timeline == 1);
    one.sql("CREATE TABLE t ()").await;
    let flushed = one.lsn("pg_current_wal_flush_lsn()").await;
    let later = standby.wait("the advance", |sample| sample.position.lsn >= flushed).await;
    assert!(later.advances > seen.advances && later.at > seen.at);
    primary.wait("the follower's advance", |s| s.followers.get("stolon_b").is_some_and(|f| f.flushed >= flushed)).await;
    one.configure_sync(ConfRole::Primary, "FIRST 1 (\"stolon_b\")");
    first.reload().await.unwrap();
    // The walsender and the sampler's own backend take the new settings up one after the other.
    let named = |s: &Sample| s.synchronous_standby_names == "FIRST 1 (\"stolon_b\")";
    primary.wait("sync", |s| named(s) && s.followers.get("stolon_b").is_some_and(|f| f.in_sync)).await;
    first.kill_all().await;
    standby.wait("the stream's end", |sample| !sample.streaming).await;
    within("the promotion", second.promote()).await.unwrap();
    let sample = standby.wait("the new role", |sample| !sample.in_recovery).await;
    assert_eq!(sample.position.timeline, 2);
    primary.end().await;
    standby.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_is_survived_and_what_is_forgotten_stays_so() {
    let (node, postmaster) = Node::primary("a").await;
    let mut sampling = Sampling::of(&node, OFTEN);
    let before = sampling.wait("a sample", |_| true).await;
    postmaster.kill_all().await;
    sampling.sampler.forget();
    assert_eq!(*sampling.samples.borrow_and_update(), None);
    tokio::time::sleep(3 * OFTEN).await;
    assert_eq!(*sampling.samples.borrow(), None, "nothing comes of a dead server");
    let postmaster = node.start(ConfRole::Primary).await;
    let after = sampling.wait("a sample of the new server", |_| true).await;
    assert!(after.at > before.at && after.advances >= before.advances, "{before:?}, {after:?}");
    postmaster.signal(Signal::STOP).unwrap();
    assert!(postmaster.kill_all().await.lingering == 0);
    sampling.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_may_be_asked_for_before_its_turn() {
    let (node, _postmaster) = Node::primary("a").await;
    let mut sampling = Sampling::of(&node, Duration::from_secs(3600));
    let first = sampling.wait("a sample", |_| true).await;
    sampling.sampler.hurry();
    sampling.wait("another", |sample| sample.at > first.at).await;
    sampling.end().await;
}

/// `cargo test -- --ignored --nocapture the_cost`: what a second of looking costs this process and PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn the_cost_of_looking() {
    let (one, first) = Node::primary("a").await;
    let (two, second) = Node::standby("b", &one).await;
    for (name, node, postmaster) in [("primary", &one, &first), ("standby", &two, &second)] {
        let sampling = Sampling::of(node, Duration::from_millis(250));
        cost(&format!("{name}: sampling at 250 ms"), postmaster, async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
        })
        .await;
        sampling.end().await;
        cost(&format!("{name}: one probe"), postmaster, async || {
            node.instance.probe(PATIENCE).await.unwrap();
        })
        .await;
    }
}

/// CPU time per turn, own and of the server with all its sessions, those that have ended included.
async fn cost(what: &str, postmaster: &Postmaster, turn: impl AsyncFn()) {
    const TURNS: u32 = 8;
    let server = || {
        let children = proc::children(postmaster.id().pid).into_iter().chain([postmaster.id().pid]);
        children.map(|pid| cpu(pid, pid == postmaster.id().pid)).sum::<Duration>()
    };
    let (own, theirs) = (cpu(std::process::id(), false), server());
    for _ in 0..TURNS {
        turn().await;
    }
    let (own, theirs) = (cpu(std::process::id(), false) - own, server().saturating_sub(theirs));
    println!("{what}: own {:.2?}, server {:.2?}", own / TURNS, theirs / TURNS);
}

/// From /proc/PID/schedstat and, for children that ended, the clock ticks of stat.
fn cpu(pid: u32, with_ended_children: bool) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let running = Duration::from_nanos(tasks.filter_map(of_task).sum());
    if !with_ended_children {
        return running;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: u64 = fields.get(13..15).unwrap_or_default().iter().filter_map(|text| text.parse::<u64>().ok()).sum();
    running + Duration::from_millis(ticks * 10)
}
