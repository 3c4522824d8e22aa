//! A client that writes through the proxy in a loop, and what its run comes to.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

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
}

/// Between two statements, and between two attempts to connect: the gaps measured are exact to about this.
const PAUSE: Duration = Duration::from_millis(2);

impl Writer {
    /// Makes the table when there is none, and writes until stopped.
    pub async fn start(target: Target) -> Writer {
        eventually("the writer's table", Duration::from_secs(20), async || target.query(TABLE).await).await;
        let series = Series::new(target, PAUSE);
        let task = tokio::spawn(series.clone().run());
        let writer = Writer { series, task };
        writer.flows().await;
        writer
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
        let target = &self.series.target;
        let rows = eventually("the table's rows", Duration::from_secs(20), async || target.query(ROWS).await).await;
        let present: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        let record = self.series.record();
        Verdict {
            acknowledged: record.acks.len(),
            lost: acks::lost(&record.acks, &present),
            overlaps: acks::overlaps(&record.acks),
            hung: record.hung.len(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a writer's run comes to.
#[derive(Debug)]
pub struct Verdict {
    pub acknowledged: usize,
    pub lost: Vec<Ack>,
    pub overlaps: Vec<Overlap>,
    pub hung: usize,
}

impl Verdict {
    /// Nothing acknowledged is missing, nobody hung, and never were there two primaries.
    pub fn is_clean(&self) {
        self.is_clean_but_for(0);
    }

    /// As `is_clean`, with at most so many acknowledged rows lost.
    pub fn is_clean_but_for(&self, lost: usize) {
        assert!(self.overlaps.is_empty(), "two primaries acknowledged at the same time: {:?}", self.overlaps);
        assert_eq!(self.hung, 0, "the client hung: its connection was not cut");
        assert!(self.lost.len() <= lost, "{} acknowledged rows are gone: {:?}", self.lost.len(), self.lost);
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
        };
        let clean = |verdict: Verdict| std::panic::catch_unwind(move || verdict.is_clean_but_for(1)).is_ok();
        assert!(clean(verdict(&[1], vec![], 0)));
        assert!(!clean(verdict(&[1, 2], vec![], 0)));
        assert!(!clean(verdict(&[], vec![overlap], 0)));
        assert!(!clean(verdict(&[], vec![], 1)));
    }
}
