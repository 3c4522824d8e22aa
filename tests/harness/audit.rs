//! The auditing client: on a host of its own it writes through every proxy and, as series apart, directly to every
//! PostgreSQL; afterwards it compares what was acknowledged, and by whom, with what is there.

use std::{
    collections::BTreeSet,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    acks::{self, Ack, Overlap},
    netns,
    series::Series,
    sql::Target,
};

/// Through a proxy: gaps are exact to about this.
const PROXIED: Duration = Duration::from_millis(5);
/// Directly: three servers are asked, of which one takes rows.
const DIRECT: Duration = Duration::from_millis(20);

pub struct Auditor {
    pub proxied: Vec<Series>,
    pub direct: Vec<Series>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Auditor {
    /// Writes from the namespace until it is finished or dropped. The table must be there.
    pub fn start(namespace: &str, proxies: Vec<Target>, servers: Vec<Target>) -> Auditor {
        let series = |targets: Vec<Target>, pause| targets.into_iter().map(move |to| Series::new(to, pause)).collect();
        let (proxied, direct): (Vec<_>, Vec<_>) = (series(proxies, PROXIED), series(servers, DIRECT));
        let all: Vec<Series> = proxied.iter().chain(&direct).cloned().collect();
        let (end, ended) = oneshot::channel();
        let namespace = namespace.to_owned();
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut running: JoinSet<()> = all.into_iter().map(Series::run).collect();
                tokio::select! {
                    _ = ended => {}
                    Some(broken) = running.join_next() => broken.expect("a series writes until its end"),
                }
            });
        });
        Auditor { proxied, direct, thread: Some((end, thread)) }
    }

    /// Ok when each of the proxies, by index, has had `rows` acknowledged by servers other than `not` that were sent after
    /// `from`; gives how long after `from` the last of them had its first.
    pub fn flows(&self, proxies: &[usize], rows: usize, not: &str, from: Instant) -> Result<Duration, String> {
        let mut slowest = Duration::ZERO;
        for index in proxies {
            let record = self.proxied[*index].record();
            let recent = record.acks.iter().rev().take_while(|ack| ack.sent > from).filter(|ack| ack.server != not);
            let mut recent: Vec<&Ack> = recent.collect();
            recent.reverse();
            if recent.len() < rows {
                let last = record.acks.last().map(|ack| &ack.server);
                return Err(format!(
                    "proxy {index}: {} rows, last by {last:?}, error {}",
                    recent.len(),
                    record.last_error
                ));
            }
            slowest = slowest.max(recent[0].acked - from);
        }
        Ok(slowest)
    }

    /// The longest time without an acknowledgement through one of these proxies.
    pub fn gap(&self, proxies: &[usize], from: Instant) -> Duration {
        let now = Instant::now();
        let of = |index: &usize| acks::gap(&self.proxied[*index].record().acks, from, now);
        proxies.iter().map(of).max().unwrap_or_default()
    }

    /// Rows acknowledged through all proxies so far.
    pub fn count(&self) -> usize {
        self.proxied.iter().map(|series| series.record().acks.len()).sum()
    }

    /// Ends all series; a statement that is under way stays without an answer.
    pub fn stop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            let _ = end.send(());
            // A panic in there is told by libtest already, and shows as rows that do not come.
            let _ = thread.join();
        }
    }

    /// What it comes to, given all rows that are there.
    pub fn account(&self, present: &BTreeSet<u64>) -> Account {
        let gather = |all: &[Series]| all.iter().flat_map(|one| one.record().acks.clone()).collect::<Vec<_>>();
        let (proxied, direct) = (gather(&self.proxied), gather(&self.direct));
        let everything: Vec<Ack> = proxied.iter().chain(&direct).cloned().collect();
        let all = || self.proxied.iter().chain(&self.direct);
        Account {
            lost: acks::lost(&proxied, present),
            lost_direct: acks::lost(&direct, present),
            overlaps: acks::overlaps(&proxied),
            overlaps_direct: acks::overlaps(&everything),
            hung: self.proxied.iter().flat_map(|series| series.record().hung.clone()).collect(),
            astray: self.proxied.iter().map(|series| series.record().read_only).sum(),
            unsynced: all().map(|series| series.record().unsynced).sum(),
            acknowledged: proxied.len(),
            acknowledged_direct: direct.len(),
        }
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an auditor's run comes to.
#[derive(Debug, Default)]
pub struct Account {
    pub acknowledged: usize,
    pub acknowledged_direct: usize,
    /// Acknowledged through a proxy, and gone.
    pub lost: Vec<Ack>,
    /// Acknowledged on a direct connection, and gone.
    pub lost_direct: Vec<Ack>,
    /// Two primaries at once as seen through proxies.
    pub overlaps: Vec<Overlap>,
    /// The same over all clients, direct ones among them.
    pub overlaps_direct: Vec<Overlap>,
    /// When the statements through a proxy were sent that had neither an answer nor a cut connection for long.
    pub hung: Vec<Instant>,
    /// Statements that a proxy led to a standby.
    pub astray: u64,
    /// Commits whose wait for synchronous replication was cancelled.
    pub unsynced: u64,
}
