//! A client that writes unique rows, one after the other, and remembers which were acknowledged, when, and by which
//! server. It connects again at once when it is cut, and never gives a connection up by itself.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    convert::Infallible,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::playground::{plan::Plan, sql::Session};

/// Between two rows, and between two attempts to connect: the gap is exact to about this.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Default)]
pub struct Record {
    next: u64,
    acks: Vec<Ack>,
    killed: Option<Instant>,
    last_error: String,
}

struct Ack {
    id: u64,
    at: Instant,
    /// When its connection was made.
    connected: Instant,
    /// Port of the server that acknowledged.
    port: u16,
}

impl Record {
    pub fn acknowledged(&self) -> usize {
        self.acks.len()
    }

    pub fn last_error(&self) -> String {
        self.last_error.clone()
    }

    pub fn killed_now(&mut self) {
        self.killed = Some(Instant::now());
    }

    /// Port of the server that acknowledged on the first connection made after the kill.
    pub fn next_server(&self) -> Option<u16> {
        let killed = self.killed?;
        self.acks.iter().find(|ack| ack.connected >= killed).map(|ack| ack.port)
    }

    /// The longest time between two acknowledgements, of which the later came after the kill.
    pub fn gap(&self) -> Duration {
        let Some(killed) = self.killed else { return Duration::ZERO };
        let pairs = self.acks.windows(2).filter(|pair| pair[1].at >= killed);
        pairs.map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }

    /// Acknowledged rows that are not among those that are there.
    pub fn missing(&self, there: &BTreeSet<u64>) -> Vec<u64> {
        self.acks.iter().map(|ack| ack.id).filter(|id| !there.contains(id)).collect()
    }
}

/// Writes for as long as it is polled.
pub async fn write(plan: &Plan, record: &RefCell<Record>) -> Infallible {
    loop {
        let error = match Session::connect(plan).await {
            Ok(session) => rows(&session, record).await,
            Err(error) => error,
        };
        record.borrow_mut().last_error = format!("{error:#}");
        sleep(PAUSE).await;
    }
}

/// Writes on one connection until it fails.
async fn rows(session: &Session, record: &RefCell<Record>) -> anyhow::Error {
    let connected = Instant::now();
    loop {
        let id = {
            let mut record = record.borrow_mut();
            record.next += 1;
            record.next
        };
        let sql = format!("INSERT INTO demo (id) VALUES ({id}) RETURNING inet_server_port()");
        match session.value(&sql).await {
            Ok(port) => {
                let ack = Ack { id, at: Instant::now(), connected, port: port.parse().unwrap_or(0) };
                record.borrow_mut().acks.push(ack);
            }
            Err(error) => return error,
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_counted_from_the_last_row_before_the_kill() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let ack = |id, ms, connected, port| Ack { id, at: at(ms), connected: at(connected), port };
        let acks =
            vec![ack(1, 0, 0, 1), ack(2, 500, 0, 1), ack(3, 520, 0, 1), ack(5, 710, 600, 2), ack(6, 715, 600, 2)];
        let record = Record { acks, killed: Some(at(515)), ..Record::default() };
        assert_eq!(record.gap(), Duration::from_millis(190));
        assert_eq!(record.next_server(), Some(2), "the old server's last word doesn't count");
        assert_eq!(record.missing(&[1, 2, 5, 6].into()), [3]);
    }
}
