//! A client that writes through the proxy in a loop: unique rows, remembering which were acknowledged, when, and by which
//! server. It reconnects at once and never gives up a connection by itself, so that it hangs when nobody cuts it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    runner::report,
    sql::{self, Target},
    wait::eventually,
};

/// One acknowledged insert.
#[derive(Clone, Debug)]
pub struct Ack {
    pub id: u64,
    pub sent: Instant,
    pub acked: Instant,
    /// The server's own address and port.
    pub server: String,
    /// Its timeline at that time: grows with each promotion.
    pub timeline: u32,
}

#[derive(Default)]
struct Record {
    acks: Vec<Ack>,
    last_error: String,
    /// Connections that the writer lost after they had worked.
    cut: u64,
    /// Statements without any answer for `HANG`.
    hung: u64,
}

pub struct Writer {
    target: Target,
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// No statement may take longer: neither an answer nor a cut connection in this time is a hanging client.
const HANG: Duration = Duration::from_secs(20);
/// Between two statements, and between two attempts to connect: the gaps measured are exact to about this.
const PAUSE: Duration = Duration::from_millis(2);
const SERVER: &str = "host(inet_server_addr()) || ':' || inet_server_port()";
const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Writer {
    /// Makes the table when there is none, and writes until stopped.
    pub async fn start(target: Target) -> Writer {
        eventually("the writer's table", Duration::from_secs(20), async || {
            target.query("CREATE TABLE IF NOT EXISTS e2e (id bigint PRIMARY KEY, at timestamptz DEFAULT now())").await
        })
        .await;
        let (record, stop) = (Arc::new(Mutex::new(Record::default())), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(write(target.clone(), record.clone(), stop.clone()));
        let writer = Writer { target, record, stop, task };
        writer.flows().await;
        writer
    }

    /// Waits for 20 rows acknowledged from now on.
    pub async fn flows(&self) {
        let start = self.count();
        eventually("rows are acknowledged again", Duration::from_secs(30), async || match self.count() - start {
            20.. => Ok(()),
            n => Err(format!("{n} rows; last error: {}", self.lock().last_error)),
        })
        .await;
    }

    /// Waits until a server other than `old` acknowledges; gives that server.
    pub async fn moves_from(&self, old: &str, bound: Duration) -> String {
        eventually(&format!("rows acknowledged by another server than {old}"), bound, async || {
            let record = self.lock();
            match record.acks.last() {
                Some(ack) if ack.server != old => Ok(ack.server.clone()),
                _ => Err(format!("last error: {}", record.last_error)),
            }
        })
        .await
    }

    pub fn server(&self) -> String {
        self.lock().acks.last().map(|ack| ack.server.clone()).unwrap_or_default()
    }

    pub fn count(&self) -> usize {
        self.lock().acks.len()
    }

    pub fn cut(&self) -> u64 {
        self.lock().cut
    }

    /// The longest time without an acknowledged row since `from`.
    pub fn gap(&self, from: Instant) -> Duration {
        let record = self.lock();
        let mut last = from;
        let mut longest = Duration::ZERO;
        for ack in record.acks.iter().filter(|ack| ack.acked > from) {
            longest = longest.max(ack.acked - last);
            last = ack.acked;
        }
        longest.max(last.elapsed())
    }

    /// Prints the gap for people and for programs that collect it.
    pub fn report_gap(&self, kind: &str, from: Instant) -> Duration {
        let gap = self.gap(from);
        report(&format!("GAP {kind} {}", gap.as_millis()));
        gap
    }

    /// Stops, and compares with what the cluster holds now.
    pub async fn finish(mut self) -> Verdict {
        self.stop.store(true, Ordering::SeqCst);
        let _ = (&mut self.task).await;
        let target = &self.target;
        let rows =
            eventually("the table's rows", Duration::from_secs(20), async || target.query("SELECT id FROM e2e").await)
                .await;
        let present: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        let record = self.lock();
        let lost = record.acks.iter().filter(|ack| !present.contains(&ack.id)).cloned().collect();
        Verdict { acknowledged: record.acks.len(), lost, overlaps: overlaps(&record.acks), hung: record.hung }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(|e| e.into_inner())
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
    /// Acknowledgements by a primary whose successor had acknowledged before.
    pub overlaps: Vec<String>,
    pub hung: u64,
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

/// Rows acknowledged on an older timeline than a row that was acknowledged before they were sent.
fn overlaps(acks: &[Ack]) -> Vec<String> {
    let mut newest: Option<&Ack> = None;
    let mut found = Vec::new();
    for ack in acks {
        match newest {
            Some(newest) if newest.timeline > ack.timeline && ack.sent > newest.acked => {
                found.push(format!(
                    "{} on timeline {} after {} on {}",
                    ack.server, ack.timeline, newest.server, newest.timeline
                ));
            }
            Some(newest) if newest.timeline >= ack.timeline => {}
            _ => newest = Some(ack),
        }
    }
    found
}

async fn write(target: Target, record: Arc<Mutex<Record>>, stop: Arc<AtomicBool>) {
    let lock = || record.lock().unwrap_or_else(|e| e.into_inner());
    while !stop.load(Ordering::SeqCst) {
        let client = match target.connect(Duration::from_secs(3)).await {
            Ok(client) => client,
            Err(error) => {
                lock().last_error = error;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while !stop.load(Ordering::SeqCst) {
            let (id, sent) = (NEXT.fetch_add(1, Ordering::SeqCst), Instant::now());
            let sql = format!("INSERT INTO e2e VALUES ({id}) RETURNING {SERVER}, {TIMELINE}");
            match sql::rows(&client, &sql, HANG).await {
                Ok(rows) => {
                    let mut columns = rows.into_iter().next().unwrap_or_default().into_iter();
                    let server = columns.next().unwrap_or_default();
                    let timeline =
                        columns.next().and_then(|hex| u32::from_str_radix(&hex, 16).ok()).unwrap_or_default();
                    lock().acks.push(Ack { id, sent, acked: Instant::now(), server, timeline });
                }
                Err(error) => {
                    let mut record = lock();
                    record.cut += 1;
                    record.hung += u64::from(sent.elapsed() >= HANG);
                    record.last_error = error;
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(of: &[(u32, u64, u64)]) -> Vec<Ack> {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        of.iter()
            .map(|(timeline, sent, acked)| Ack {
                id: *sent,
                sent: at(*sent),
                acked: at(*acked),
                server: format!("server of {timeline}"),
                timeline: *timeline,
            })
            .collect()
    }

    #[test]
    fn an_old_primary_that_answers_after_its_successor_is_an_overlap() {
        assert!(overlaps(&acks(&[(1, 0, 1), (1, 2, 3), (2, 4, 5), (3, 6, 7)])).is_empty());
        assert_eq!(overlaps(&acks(&[(1, 0, 1), (2, 4, 5), (1, 6, 7), (2, 8, 9)])).len(), 1);
    }

    #[test]
    fn a_verdict_with_losses_or_overlaps_is_not_clean() {
        let verdict = |lost, overlaps: &[&str], hung| Verdict {
            acknowledged: 3,
            lost,
            overlaps: overlaps.iter().map(|text| (*text).to_owned()).collect(),
            hung,
        };
        let clean = |verdict: Verdict| std::panic::catch_unwind(move || verdict.is_clean_but_for(1)).is_ok();
        assert!(clean(verdict(acks(&[(1, 0, 1)]), &[], 0)));
        assert!(!clean(verdict(acks(&[(1, 0, 1), (1, 2, 3)]), &[], 0)));
        assert!(!clean(verdict(vec![], &["a and b"], 0)));
        assert!(!clean(verdict(vec![], &[], 1)));
    }
}
