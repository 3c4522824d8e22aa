//! The guard's process on real PostgreSQL.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use stolon::{
    model::{Epoch, LeaseId},
    task::clock,
};

use super::{
    core::{Armed, Order, Verdict},
    link::{Found, Link, Program},
};
use crate::pg::{
    ConfRole, Postmaster, ProcessId,
    tests::{Node, figure, until, within},
};

/// Late, and much later than ever on a machine that is not overloaded.
const LATE: Duration = Duration::from_millis(500);

/// Not a test: the program that a guard runs as here. Started by hand it returns at once.
#[test]
#[ignore = "is started by other tests"]
fn process() {
    let mut arguments = std::env::args_os().skip_while(|argument| argument != super::ARGUMENT);
    if arguments.next().is_some() {
        super::main(arguments.collect());
    }
}

fn program() -> Program {
    let before = ["--exact", "--ignored", "--nocapture", "guard::real_tests::process"];
    Program { exe: std::env::current_exe().unwrap(), before: before.map(Into::into).to_vec() }
}

async fn start(node: &Node) -> Link {
    let user = node.instance.run_as().map(|user| user.name());
    Link::start(&program(), node.instance.keeper_dir(), user).await.unwrap()
}

fn armed(left: Duration, postmaster: Option<&Postmaster>) -> Armed {
    let until = clock::now() + left;
    Armed { epoch: Epoch(1), lease: LeaseId(5), until, postmaster: postmaster.map(Postmaster::id) }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    let _ = kill_process(pid, signal);
}

/// States of a process's threads, as /proc has them.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stat = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stat.filter_map(|stat| Some(stat.rsplit_once(')')?.1.split_whitespace().next()?.to_owned())).collect()
}

/// Does not outlive a test that fails.
struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        if ProcessId::of(self.0).is_some() {
            signal(self.0, Signal::KILL);
        }
    }
}

async fn tell(link: &mut Link, order: Order) {
    assert_eq!(link.tell(order).await.unwrap().verdict, Verdict::Taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_dies_at_the_deadline_with_its_keeper_gone_and_the_guard_ends() {
    let node = Node::copied("a");
    let mut late = Vec::new();
    for _ in 0..3 {
        let server = node.start(ConfRole::Primary).await;
        let mut link = start(&node).await;
        let guard = ProcessId::of(link.pid).unwrap();
        let order = armed(Duration::from_millis(400), Some(&server));
        tell(&mut link, Order::Arm(order)).await;
        drop(link);
        within("the end", server.exited()).await;
        let now = clock::now();
        assert!(now >= order.until, "{:?} too early", order.until.since(now));
        late.push(now.since(order.until));
        until("the guard ends", async || !guard.lives()).await;
        assert_eq!(node.processes(), [0; 0]);
    }
    figure("the guard's kill, after the deadline", late.clone());
    assert!(late.iter().min().is_some_and(|best| *best < LATE), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_says_nothing_more_changes_nothing_and_one_that_speaks_moves_the_deadline() {
    let (node, server) = Node::primary("a").await;
    let mut link = start(&node).await;
    let first = armed(Duration::from_millis(300), None);
    tell(&mut link, Order::Arm(first)).await;
    let second = armed(Duration::from_millis(900), Some(&server));
    tell(&mut link, Order::Extend(second)).await;
    // The connection stays, as that of a frozen keeper does.
    within("the end", server.exited()).await;
    assert!(clock::now() >= second.until, "it died at the deadline of before");
    let answer = link.tell(Order::Ask).await.unwrap();
    assert_eq!(answer.armed, None, "it is ready for the next server");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_keeper_finds_the_guard_and_its_deadline() {
    let (node, server) = Node::primary("a").await;
    let dir = node.instance.keeper_dir().to_owned();
    assert!(Found::look(&dir).await.is_none());
    let mut link = start(&node).await;
    let guard = link.pid;
    let order = armed(Duration::from_millis(1500), Some(&server));
    tell(&mut link, Order::Arm(order)).await;
    drop(link);
    let mut found = Found::look(&dir).await.unwrap();
    assert_eq!((found.armed, found.link.pid), (Some(order), guard));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.join("guard.sock")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    tell(&mut found.link, Order::Extend(Armed { until: order.until + Duration::from_secs(60), ..order })).await;
    tokio::time::sleep(Duration::from_millis(1700)).await;
    assert!(!server.has_exited(), "the deadline was moved");
    tell(&mut found.link, Order::Disarm).await;
    drop(found);
    until("an idle guard ends with its keeper", async || ProcessId::of(guard).is_none()).await;
    assert!(!server.has_exited());
    assert!(Found::look(&dir).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keeper_the_guard_ends_with_postgres_and_what_outlived_the_postmaster() {
    let (node, server) = Node::primary("a").await;
    let mut link = start(&node).await;
    let guard = link.pid;
    tell(&mut link, Order::Arm(armed(Duration::from_secs(60), Some(&server)))).await;
    drop(link);
    server.signal(Signal::KILL).unwrap();
    until("the guard ends", async || ProcessId::of(guard).is_none()).await;
    assert_eq!(node.processes(), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_guard_is_found_out_and_killed() {
    let (node, server) = Node::primary("a").await;
    let dir = node.instance.keeper_dir().to_owned();
    let mut link = start(&node).await;
    let guard = link.pid;
    tell(&mut link, Order::Arm(armed(Duration::from_secs(60), Some(&server)))).await;
    let frozen = Frozen(guard);
    signal(guard, Signal::STOP);
    // A signal stops one thread after the other.
    until("all its threads stand", async || threads(guard).iter().all(|state| state == "T")).await;
    assert!(link.tell(Order::Ask).await.unwrap_err().contains("no answer"));
    drop(link);
    assert!(Found::look(&dir).await.is_none());
    until("it is dead", async || ProcessId::of(guard).is_none()).await;
    drop(frozen);
    // In its place another one works.
    let mut next = start(&node).await;
    tell(&mut next, Order::Arm(armed(Duration::from_secs(60), Some(&server)))).await;
    assert!(!server.has_exited());
}

#[tokio::test(flavor = "multi_thread")]
async fn arming_takes_far_less_than_a_millisecond_and_the_guard_hardly_any_memory() {
    let node = Node::copied("a");
    let mut link = start(&node).await;
    let mut times = Vec::new();
    for n in 0..200 {
        let began = Instant::now();
        tell(&mut link, Order::Arm(armed(Duration::from_secs(60 + n), None))).await;
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    figure("arming", times.clone());
    let status = std::fs::read_to_string(format!("/proc/{}/status", link.pid)).unwrap();
    let of = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    println!("the guard's memory: {} {}", of("VmRSS"), of("RssAnon"));
    tell(&mut link, Order::Disarm).await;
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(5), "{times:?}");
}
