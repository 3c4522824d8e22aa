//! A client that writes through the proxy in a loop, others that write directly to each server, and what their run comes to.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, JoinSet};

use crate::{
    acks::{self, Ack, Overlap},
    runner::report,
    series::{ROWS, Series, TABLE},
    sql::Target,
    wait::eventually,
};

pub struct Writer {
    series: Series,
    task: JoinHandle<()>,
    /// Not through a proxy.
    direct: Vec<Series>,
    /// Those of them that were started here.
    running: JoinSet<()>,
}

/// Between two statements, and between two attempts to connect: the gaps measured are exact to about this.
const PAUSE: Duration = Duration::from_millis(2);
/// The same for direct series: several servers are asked, of which one takes rows.
const DIRECT: Duration = Duration::from_millis(20);
/// From the moment when a frozen primary wakes up until it is told or finds out that it is none any more (R12).
const AWAKE: Duration = Duration::from_secs(3);

impl Writer {
    /// Makes the table when there is none, and writes until stopped.
    pub async fn start(target: Target) -> Writer {
        eventually("the writer's table", Duration::from_secs(20), async || target.query(TABLE).await).await;
        let series = Series::new(target, PAUSE);
        let task = tokio::spawn(series.clone().run());
        let writer = Writer { series, task, direct: Vec::new(), running: JoinSet::new() };
        writer.flows().await;
        writer
    }

    /// Also writes directly to each of these servers, as series apart: one client alone meets one server at a time, and would
    /// find two primaries only when it is led to and fro.
    pub async fn beside(mut self, servers: Vec<Target>) -> Writer {
        for server in servers {
            let series = Series::new(server, DIRECT);
            self.running.spawn(series.clone().run());
            self.direct.push(series);
        }
        eventually("rows are acknowledged directly", Duration::from_secs(20), async || {
            let count: usize = self.direct.iter().map(|series| series.record().acks.len()).sum();
            if count > 0 {
                Ok(())
            } else {
                Err(self.direct.iter().map(|one| one.record().last_error.clone()).collect::<String>())
            }
        })
        .await;
        self
    }

    /// Takes in what others write, on another host for instance.
    pub fn take_in(&mut self, direct: &[Series]) {
        self.direct.extend_from_slice(direct);
    }

    /// Waits for 20 rows acknowledged from now on.
    pub async fn flows(&self) {
        let start = self.count();
        eventually("rows are acknowledged again", Duration::from_secs(30), async || match self.count() - start {
            20.. => Ok(()),
            n => Err(format!("{n} rows; last error: {}", self.series.record().last_error)),
        })
        .await;
    }

    /// Waits until a server other than `old` acknowledges; gives that server.
    pub async fn moves_from(&self, old: &str, bound: Duration) -> String {
        eventually(&format!("rows acknowledged by another server than {old}"), bound, async || {
            let record = self.series.record();
            match record.acks.last() {
                Some(ack) if ack.server != old => Ok(ack.server.clone()),
                _ => Err(format!("last error: {}", record.last_error)),
            }
        })
        .await
    }

    pub fn server(&self) -> String {
        self.series.record().acks.last().map(|ack| ack.server.clone()).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.series.record().acks.len()
    }

    pub fn cut(&self) -> u64 {
        self.series.record().cut
    }

    /// The longest time without an acknowledged row since `from`.
    pub fn gap(&self, from: Instant) -> Duration {
        acks::gap(&self.series.record().acks, from, Instant::now())
    }

    /// Prints the gap for people and for programs that collect it.
    pub fn report_gap(&self, kind: &str, from: Instant) -> Duration {
        let gap = self.gap(from);
        report(&format!("GAP {kind} {}", gap.as_millis()));
        gap
    }

    /// Stops, and compares with what the cluster holds now.
    pub async fn finish(mut self) -> Verdict {
        self.series.stop();
        let _ = (&mut self.task).await;
        // Who hangs on a server that is gone stays without an answer.
        self.running.shutdown().await;
        let target = &self.series.target;
        let rows = eventually("the table's rows", Duration::from_secs(20), async || target.query(ROWS).await).await;
        let present: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        let record = self.series.record();
        let direct: Vec<Ack> = self.direct.iter().flat_map(|series| series.record().acks.clone()).collect();
        let everything: Vec<Ack> = record.acks.iter().chain(&direct).cloned().collect();
        Verdict {
            acknowledged: record.acks.len(),
            lost: acks::lost(&record.acks, &present),
            overlaps: acks::overlaps(&record.acks),
            hung: record.hung.len(),
            lost_direct: acks::lost(&direct, &present),
            overlaps_direct: acks::overlaps(&everything),
            servers: direct.into_iter().map(|ack| ack.server).collect(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a writer's run comes to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub lost: Vec<Ack>,
    /// Two primaries as the proxy's client met them.
    pub overlaps: Vec<Overlap>,
    pub hung: usize,
    /// Acknowledged on a direct connection, and gone.
    pub lost_direct: Vec<Ack>,
    /// Two primaries as all clients together saw them.
    pub overlaps_direct: Vec<Overlap>,
    /// Those that acknowledged something directly.
    pub servers: BTreeSet<String>,
}

impl Verdict {
    /// Nothing acknowledged through the proxy is missing, nobody hung, and the proxy never led back to a former primary.
    pub fn is_clean(&self) {
        self.is_clean_but_for(0);
    }

    /// As `is_clean`, with at most so many acknowledged rows lost.
    pub fn is_clean_but_for(&self, lost: usize) {
        assert!(self.overlaps.is_empty(), "two primaries acknowledged at the same time: {:?}", self.overlaps);
        assert_eq!(self.hung, 0, "the client hung: its connection was not cut");
        assert!(self.lost.len() <= lost, "{} acknowledged rows are gone: {:?}", self.lost.len(), self.lost);
    }

    /// Never were there two primaries, whatever way clients went, but for what an asynchronous one still took when it woke up
    /// at one of these moments (R12). Says nothing, and fails, when no two servers acknowledged anything directly.
    pub fn had_one_primary(&self, woken: &[Instant]) {
        assert!(self.servers.len() > 1, "direct clients saw no change of the primary: {:?}", self.servers);
        let just_awake = |sent: &Instant| woken.iter().any(|at| (*at..=*at + AWAKE).contains(sent));
        for overlap in &self.overlaps_direct {
            let wrong = overlap.late.iter().filter(|sent| !just_awake(sent)).count();
            assert_eq!(wrong, 0, "two primaries: rows by {}, for {:?}", overlap.text, overlap.span());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_with_losses_or_overlaps_is_not_clean() {
        let now = Instant::now();
        let ack = |id| Ack { id, sent: now, acked: now, server: "a".into(), timeline: 1 };
        let overlap = Overlap { text: "a after b".into(), from: now, late: vec![now] };
        let verdict = |lost: &[u64], overlaps: Vec<Overlap>, hung| Verdict {
            acknowledged: 3,
            lost: lost.iter().map(|id| ack(*id)).collect(),
            overlaps,
            hung,
            ..Verdict::default()
        };
        let clean = |verdict: Verdict| std::panic::catch_unwind(move || verdict.is_clean_but_for(1)).is_ok();
        assert!(clean(verdict(&[1], vec![], 0)));
        assert!(!clean(verdict(&[1, 2], vec![], 0)));
        assert!(!clean(verdict(&[], vec![overlap], 0)));
        assert!(!clean(verdict(&[], vec![], 1)));
    }

    #[test]
    fn two_primaries_that_only_direct_clients_saw_are_two_primaries() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let one_primary = |servers: &[&str], late: &[u64], woken: &[u64]| {
            let late: Vec<Instant> = late.iter().map(|seconds| at(*seconds)).collect();
            let overlaps_direct =
                if late.is_empty() { vec![] } else { vec![Overlap { text: "a".into(), from: now, late }] };
            let servers = servers.iter().map(|server| (*server).to_owned()).collect();
            let (verdict, woken) = (Verdict { overlaps_direct, servers, ..Verdict::default() }, woken.to_vec());
            std::panic::catch_unwind(move || verdict.had_one_primary(&woken.into_iter().map(at).collect::<Vec<_>>()))
                .is_ok()
        };
        assert!(one_primary(&["a", "b"], &[], &[]));
        assert!(one_primary(&["a", "b"], &[20, 22], &[20]));
        assert!(!one_primary(&["a", "b"], &[20, 24], &[20]));
        assert!(!one_primary(&["a", "b"], &[19], &[20]));
        assert!(!one_primary(&["a", "b"], &[1], &[]));
        assert!(!one_primary(&["a"], &[], &[]), "one server alone shows nothing");
    }
}
