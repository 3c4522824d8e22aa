//! One client's series of inserts in a loop: unique rows, remembering which were acknowledged, when, and by which server. It
//! reconnects at once and never gives up a connection by itself, so that it hangs when nobody cuts it. A row whose wait for
//! synchronous replication was cancelled is not acknowledged. Doesn't judge.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_postgres::{AsyncMessage, Client, Config, NoTls, error::SqlState};

use crate::{
    acks::Ack,
    sql::{self, Target},
};

/// No statement may take longer: neither an answer nor a cut connection in this time is a hanging client.
pub const HANG: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);
/// Between two statements to a server that only reads.
const READ_ONLY: Duration = Duration::from_millis(50);
const SERVER: &str = "host(inet_server_addr()) || ':' || inet_server_port()";
const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The table that all series of this process write to; ids are unique in the process.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS e2e (id bigint PRIMARY KEY, at timestamptz DEFAULT now())";
/// Every row of it.
pub const ROWS: &str = "SELECT id FROM e2e";

#[derive(Default)]
pub struct Record {
    pub acks: Vec<Ack>,
    pub last_error: String,
    /// Connections that were lost after they had worked.
    pub cut: u64,
    /// When the statements were sent that had no answer at all for `HANG`.
    pub hung: Vec<Instant>,
    /// Commits whose wait for synchronous replication was cancelled: no acknowledgements.
    pub unsynced: u64,
    /// Statements that met a standby.
    pub read_only: u64,
}

#[derive(Clone)]
pub struct Series {
    pub target: Target,
    /// Between two statements, and between two attempts to connect: gaps are exact to about this.
    pub pause: Duration,
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
}

/// What became of one statement.
enum Sent {
    Acked(Ack),
    /// Committed here, known to nobody else for sure.
    Unsynced,
    ReadOnly,
    Failed(String),
}

impl Series {
    pub fn new(target: Target, pause: Duration) -> Series {
        Series { target, pause, record: Arc::default(), stop: Arc::default() }
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// After the statement that is under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Writes until stopped.
    pub async fn run(self) {
        while !self.stopped() {
            match Session::open(&self.target).await {
                Ok(session) => self.through(session).await,
                Err(error) => self.record().last_error = error,
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    /// As long as the connection works.
    async fn through(&self, session: Session) {
        while !self.stopped() {
            let started = Instant::now();
            match session.insert().await {
                Sent::Acked(ack) => self.record().acks.push(ack),
                Sent::Unsynced => self.record().unsynced += 1,
                Sent::ReadOnly => {
                    self.record().read_only += 1;
                    tokio::time::sleep(READ_ONLY).await;
                }
                Sent::Failed(error) => {
                    let mut record = self.record();
                    record.cut += 1;
                    record.hung.extend((started.elapsed() >= HANG).then_some(started));
                    record.last_error = error;
                    return;
                }
            }
            tokio::time::sleep(self.pause).await;
        }
    }
}

/// A connection whose warnings are heard.
struct Session {
    client: Client,
    wait_cancelled: Arc<AtomicBool>,
}

impl Session {
    async fn open(target: &Target) -> Result<Session, String> {
        let config: Config = target.config(CONNECT);
        let opening = tokio::time::timeout(CONNECT, config.connect(NoTls)).await;
        let (client, mut connection) = opening.map_err(|_| "no connection in time".to_owned())?.map_err(sql::chain)?;
        let wait_cancelled = Arc::new(AtomicBool::new(false));
        let heard = wait_cancelled.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                // Comes before the answer of its statement, and is noted before that is passed on.
                if let AsyncMessage::Notice(notice) = message
                    && notice.message().contains("synchronous replication")
                {
                    heard.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Session { client, wait_cancelled })
    }

    async fn insert(&self) -> Sent {
        let (id, sent) = (NEXT.fetch_add(1, Ordering::SeqCst), Instant::now());
        let sql = format!("INSERT INTO e2e VALUES ({id}) RETURNING {SERVER}, {TIMELINE}");
        let answer = match tokio::time::timeout(HANG, self.client.simple_query(&sql)).await {
            Ok(Ok(messages)) => sql::texts(&messages),
            Ok(Err(error)) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => return Sent::ReadOnly,
            Ok(Err(error)) => return Sent::Failed(sql::chain(error)),
            Err(_) => return Sent::Failed(format!("no answer in {} s: {sql}", HANG.as_secs())),
        };
        let acked = Instant::now();
        if self.wait_cancelled.swap(false, Ordering::SeqCst) {
            return Sent::Unsynced;
        }
        let mut columns = answer.into_iter().next().unwrap_or_default().into_iter();
        let server = columns.next().unwrap_or_default();
        let timeline = columns.next().and_then(|hex| u32::from_str_radix(&hex, 16).ok()).unwrap_or_default();
        Sent::Acked(Ack { id, sent, acked, server, timeline })
    }
}
