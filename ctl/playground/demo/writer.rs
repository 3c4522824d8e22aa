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

/// Acknowledged rows that are gone.
#[derive(Debug, PartialEq)]
pub enum Lost {
    Nothing,
    /// The last ones that the old primary acknowledged. Asynchronous replication can lose these.
    Tail {
        ids: Vec<u64>,
        /// When the first of them was acknowledged, in milliseconds from the kill; negative for before it.
        from_kill: f64,
    },
    /// Rows that were acknowledged before others which are there, or by the new primary: nothing may lose these.
    Holes {
        ids: Vec<u64>,
    },
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

    /// Compares what was acknowledged with the rows that are there.
    pub fn lost(&self, there: &BTreeSet<u64>) -> Lost {
        let gone = |ack: &&Ack| !there.contains(&ack.id);
        let ids: Vec<u64> = self.acks.iter().filter(gone).map(|ack| ack.id).collect();
        let killed = self.killed.unwrap_or_else(Instant::now);
        let Some(first) = self.acks.iter().find(gone) else { return Lost::Nothing };
        // The old server's acknowledgements from the first missing one on: all of them, and no other, are its tail.
        let tail = self.acks.iter().filter(|ack| ack.connected < killed && ack.id >= first.id).map(|ack| ack.id);
        match tail.eq(ids.iter().copied()) {
            true => Lost::Tail { ids, from_kill: millis_from(killed, first.at) },
            false => Lost::Holes { ids },
        }
    }
}

fn millis_from(start: Instant, at: Instant) -> f64 {
    let (after, before) = (at.saturating_duration_since(start), start.saturating_duration_since(at));
    (after.as_secs_f64() - before.as_secs_f64()) * 1000.0
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
    }

    #[test]
    fn only_the_old_servers_last_rows_may_be_lost_to_asynchronous_replication() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let ack = |id, ms, connected, port| Ack { id, at: at(ms), connected: at(connected), port };
        let acks =
            vec![ack(1, 0, 0, 1), ack(2, 510, 0, 1), ack(3, 520, 0, 1), ack(5, 710, 600, 2), ack(6, 715, 600, 2)];
        let record = Record { acks, killed: Some(at(515)), ..Record::default() };
        let lost = |there: &[u64]| record.lost(&there.iter().copied().collect());
        assert_eq!(lost(&[1, 2, 3, 4, 5, 6]), Lost::Nothing);
        let tail = |ids: &[u64], from_kill| Lost::Tail { ids: ids.to_vec(), from_kill };
        assert_eq!(lost(&[1, 2, 5, 6]), tail(&[3], 5.0));
        assert_eq!(lost(&[1, 5, 6]), tail(&[2, 3], -5.0));
        for (there, ids) in [(&[1, 3, 5, 6][..], &[2][..]), (&[1, 2, 3, 6], &[5]), (&[1, 2, 6], &[3, 5])] {
            assert_eq!(lost(there), Lost::Holes { ids: ids.to_vec() });
        }
    }
}
