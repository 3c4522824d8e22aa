//! Clients that write as fast as they are told, remember which rows were acknowledged and when, and find the server again
//! by themselves. Knows addresses, no cluster. A row whose wait for synchronous replication was cancelled was not
//! acknowledged, although its CommandComplete came.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use stolon_tests::{
    eventually,
    sql::{self, Target},
};
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// One acknowledged row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack {
    pub id: u64,
    pub writer: usize,
    pub acked: Instant,
    /// The server's timeline: grows with each promotion.
    pub timeline: u32,
}

/// How clients write, and where.
#[derive(Clone, Debug)]
pub struct Style {
    /// Tried in turn, from the first.
    pub targets: Vec<Target>,
    pub writers: usize,
    /// Between two statements of one writer.
    pub pause: Duration,
}

/// Clients at work, until `stop`.
pub struct Load {
    record: Arc<Record>,
    tasks: JoinSet<()>,
    first_id: u64,
}

#[derive(Default)]
struct Record {
    acks: Mutex<Vec<Ack>>,
    last_error: Mutex<String>,
    stop: AtomicBool,
}

/// Longer than any failover measured: neither an answer nor an error in this time is a client that hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts to connect, or to write to a server that only reads: what gaps are exact to.
const AGAIN: Duration = Duration::from_millis(2);
const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS bench (id bigint PRIMARY KEY, at timestamptz DEFAULT now())";
const CANCELLED: &str = "wait for synchronous replication";
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Load {
    /// Makes the table when there is none; returns when each writer has had `warm` rows acknowledged.
    pub async fn start(style: &Style, warm: usize) -> Load {
        eventually("the writers' table", PATIENCE, async || style.targets[0].query(TABLE).await).await;
        let record = Arc::new(Record::default());
        let first_id = NEXT.load(Ordering::SeqCst);
        let mut tasks = JoinSet::new();
        for writer in 0..style.writers {
            tasks.spawn(write(style.clone(), writer, record.clone()));
        }
        let load = Load { record, tasks, first_id };
        load.flows(style.writers, warm, Instant::now()).await;
        load
    }

    /// Waits until each writer has had so many rows acknowledged since `from`.
    pub async fn flows(&self, writers: usize, rows: usize, from: Instant) {
        eventually("every writer's rows are acknowledged", PATIENCE, async || {
            let mut counts = vec![0; writers];
            self.record.acks().iter().filter(|ack| ack.acked > from).for_each(|ack| counts[ack.writer] += 1);
            let error = self.record.last_error.lock().unwrap_or_else(|e| e.into_inner()).clone();
            if counts.iter().all(|count| *count >= rows) { Ok(()) } else { Err(format!("{counts:?}, {error}")) }
        })
        .await;
    }

    /// Waits until a server of a later timeline than `old` acknowledges.
    pub async fn moves_on(&self, old: u32, bound: Duration) {
        eventually(&format!("rows acknowledged on a timeline after {old}"), bound, async || {
            let newest = self.timeline();
            let error = self.record.last_error.lock().unwrap_or_else(|e| e.into_inner()).clone();
            if newest > old { Ok(()) } else { Err(format!("timeline {newest}, last error: {error}")) }
        })
        .await;
    }

    pub fn timeline(&self) -> u32 {
        self.record.acks().last().map_or(0, |ack| ack.timeline)
    }

    /// Ends the writers; what was acknowledged, in the order of the acknowledgements.
    pub async fn stop(mut self) -> Written {
        self.record.stop.store(true, Ordering::SeqCst);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            panic!("a client hangs: neither an answer nor a closed connection in {} s", PATIENCE.as_secs());
        }
        Written { acks: self.record.acks().clone(), first_id: self.first_id }
    }
}

/// What a load has written.
pub struct Written {
    pub acks: Vec<Ack>,
    first_id: u64,
}

impl Written {
    /// How many acknowledged rows the server does not have.
    pub async fn lost(&self, server: &Target) -> usize {
        let sql = format!("SELECT id FROM bench WHERE id >= {}", self.first_id);
        let rows = eventually("the rows written", PATIENCE, async || server.query(&sql).await).await;
        let present: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
        self.acks.iter().filter(|ack| !present.contains(&ack.id)).count()
    }
}

impl Record {
    fn acks(&self) -> MutexGuard<'_, Vec<Ack>> {
        self.acks.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn failed(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(|e| e.into_inner()) = error;
    }
}

async fn write(style: Style, writer: usize, record: Arc<Record>) {
    let mut targets = style.targets.iter().cycle();
    while !record.stop.load(Ordering::SeqCst) {
        let Some(target) = targets.next() else { return };
        match connect(target).await {
            Ok((client, cancelled)) => session(&client, &cancelled, &style, writer, &record).await,
            Err(error) => record.failed(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Writes until the connection ends.
async fn session(client: &Client, cancelled: &AtomicU64, style: &Style, writer: usize, record: &Record) {
    while !record.stop.load(Ordering::SeqCst) {
        let (id, before) = (NEXT.fetch_add(1, Ordering::SeqCst), cancelled.load(Ordering::SeqCst));
        let sql = format!("INSERT INTO bench VALUES ({id}) RETURNING {TIMELINE}");
        match sql::rows(client, &sql, PATIENCE).await {
            Ok(_) if cancelled.load(Ordering::SeqCst) != before => {
                record.failed("a wait for synchronous replication was cancelled".into());
            }
            Ok(rows) => {
                let hex = rows.first().and_then(|row| row.first());
                let timeline = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
                record.acks().push(Ack { id, writer, acked: Instant::now(), timeline });
            }
            Err(error) => {
                record.failed(error);
                if client.is_closed() {
                    return;
                }
                // A standby: it may become the primary under this very connection.
                tokio::time::sleep(AGAIN).await;
            }
        }
        if !style.pause.is_zero() {
            tokio::time::sleep(style.pause).await;
        }
    }
}

/// A connection, and the number of cancelled waits that the server told about on it.
async fn connect(target: &Target) -> Result<(Client, Arc<AtomicU64>), String> {
    let mut config = Config::new();
    config.host(&target.host).port(target.port).user(&target.user).dbname("postgres");
    if let Some(password) = &target.password {
        config.password(password);
    }
    let attempt = tokio::time::timeout(PATIENCE, config.connect(NoTls)).await;
    let (client, mut connection) =
        attempt.map_err(|_| "no connection in time".to_owned())?.map_err(|error| error.to_string())?;
    let cancelled = Arc::new(AtomicU64::new(0));
    let count = cancelled.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(&message, AsyncMessage::Notice(notice) if notice.message().contains(CANCELLED)) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    Ok((client, cancelled))
}
