//! One stream to one sentinel, kept for as long as the sentinel is registered: hello, then a heartbeat in each interval
//! and at once on an event; views come out, knocks are answered here. Never waits for its reader, a disk or SQL (R13).

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    Channel, Dialer, FromSentinel, Reports, Streams, Talk, explain, knock,
    news::{News, Problem, Tell},
    streams::Line,
};
use crate::{
    model::{SentinelUid, report::ProbeResult},
    task::clock,
    wire::{Down, Identity, Probe, Up},
};

/// Until the sentinel has answered the opening of the stream.
const OPEN: Duration = Duration::from_secs(2);
/// Pauses between attempts grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A stream that lasted this long was a good one: the pauses start anew.
const GOOD: Duration = Duration::from_secs(1);
/// Messages that wait for the network; more would only be older.
const QUEUE: usize = 8;
/// Knocks at once; a sentinel needs one or two.
const KNOCKS: usize = 8;
/// Longest knock.
const LONGEST_KNOCK: Duration = Duration::from_secs(5);

pub(super) struct Session<T: Talk> {
    sentinel: SentinelUid,
    address: String,
    channel: Result<Channel, String>,
    dialer: Dialer,
    identity: watch::Receiver<Identity>,
    reports: Reports<T::Report>,
    events: mpsc::Sender<FromSentinel<T::View>>,
    line: Line,
    news: News,
}

/// Why a stream ended.
enum End {
    /// The hello is no longer true: open anew at once.
    Renamed,
    Lost(String),
    /// The sentinel does not take this process in.
    Refused(String),
}

impl<T: Talk> Session<T> {
    pub fn new(streams: &Streams<T>, sentinel: SentinelUid, address: &str) -> Session<T> {
        let channel = if address.is_empty() {
            Err("it has registered no gRPC address".to_owned())
        } else {
            streams.dialer.channel(address)
        };
        Session {
            line: streams.line(&sentinel, address),
            news: News::default(),
            dialer: streams.dialer.clone(),
            sentinel,
            address: address.to_owned(),
            channel,
            identity: streams.identity.clone(),
            reports: streams.reports.clone(),
            events: streams.events.clone(),
        }
    }

    /// Runs until it is aborted.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = clock::now();
            match self.once().await {
                End::Renamed => continue,
                End::Lost(problem) => self.tell(Problem::Lost, problem),
                End::Refused(problem) => self.tell(Problem::Refused, problem),
            }
            if clock::now().since(began) >= GOOD {
                pause = FIRST_PAUSE;
            }
            // A hello that was refused, for want of a registration say, is made anew when there is another to say.
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = self.identity.changed() => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn tell(&mut self, kind: Problem, problem: String) {
        let (sentinel, address) = (&self.sentinel, &self.address);
        match self.news.failed(kind, clock::now()) {
            _ if self.line.hushed() => {}
            Tell::Nothing => {}
            Tell::Note => {
                tracing::info!(%sentinel, address, problem, "the sentinel does not know this process yet, trying again");
            }
            Tell::Warn => tracing::warn!(%sentinel, address, problem, "no stream to the sentinel"),
        }
        self.line.down(problem);
    }

    async fn once(&mut self) -> End {
        let channel = match &self.channel {
            Ok(channel) => channel.clone(),
            Err(problem) => return End::Lost(problem.clone()),
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let hello = Up::Hello(self.identity.borrow_and_update().clone());
        let _ = sender.try_send(T::request(&hello, ""));
        // The report is made when the stream stands, for its ages count from then.
        let incoming = match timeout(OPEN, T::open(channel, ReceiverStream::new(receiver))).await {
            Ok(Ok(incoming)) => incoming,
            Ok(Err(status)) if refused(&status) => return End::Refused(explain(&status)),
            Ok(Err(status)) => return End::Lost(self.dialer.explain(&status)),
            Err(_) => return End::Lost(format!("no answer within {OPEN:?}")),
        };
        self.line.up();
        self.news.stands();
        tracing::info!(sentinel = %self.sentinel, address = self.address, "stream to the sentinel stands");
        self.reports.urged().mark_unchanged();
        let outgoing = Outgoing { sender, owed: None, next: Instant::now() };
        self.talk(outgoing, incoming).await
    }

    async fn talk(&mut self, mut outgoing: Outgoing<T>, mut incoming: Streaming<T::Response>) -> End {
        let mut knocks: JoinSet<Up<T::Report>> = JoinSet::new();
        let mut newest: Option<FromSentinel<T::View>> = None;
        let events = self.events.clone();
        loop {
            tokio::select! {
                message = incoming.message() => match message.map(|message| message.map(T::response)) {
                    Ok(Some(Ok((Down::View(view), traceparent)))) => {
                        newest = Some(FromSentinel { sentinel: self.sentinel.clone(), view, traceparent });
                    }
                    Ok(Some(Ok((Down::Probe(probe), _)))) if knocks.len() < KNOCKS => { knocks.spawn(answer(probe)); }
                    Ok(Some(Ok((Down::Probe(_), _)))) => {}
                    Ok(Some(Err(bad))) => return End::Lost(format!("the sentinel broke the contract: {bad}")),
                    Ok(None) => return End::Lost("the sentinel closed the stream".into()),
                    Err(status) => return End::Lost(explain(&status)),
                },
                Ok(permit) = events.reserve(), if newest.is_some() => {
                    if let Some(event) = newest.take() {
                        permit.send(event);
                    }
                }
                Ok(()) = self.reports.urged().changed() => {
                    outgoing.owed = Some(self.reports.urged().borrow_and_update().clone());
                    outgoing.report(&self.reports);
                }
                () = sleep_until(outgoing.next) => outgoing.report(&self.reports),
                Some(Ok(outcome)) = knocks.join_next() => {
                    // A full queue means a stuck line: the sentinel will ask again.
                    let _ = outgoing.sender.try_send(T::request(&outcome, ""));
                }
                Ok(()) = self.identity.changed() => return End::Renamed,
            }
        }
    }
}

/// The sentinel's own word, not a connection's trouble: another registration has not reached it yet, or does not at all.
fn refused(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
}

struct Outgoing<T: Talk> {
    sender: mpsc::Sender<T::Request>,
    /// Traceparent of an event that no report has carried yet.
    owed: Option<String>,
    /// When the next heartbeat is due; the first at once.
    next: Instant,
}

impl<T: Talk> Outgoing<T> {
    /// Sends the report of this instant; with no room in the queue it is left to the next beat.
    fn report(&mut self, reports: &Reports<T::Report>) {
        self.next = Instant::now() + reports.every();
        let Ok(permit) = self.sender.try_reserve() else { return };
        let traceparent = self.owed.take().unwrap_or_default();
        permit.send(T::request(&Up::Report(reports.now()), &traceparent));
    }
}

async fn answer<R>(probe: Probe) -> Up<R> {
    let result: ProbeResult = knock(&probe.host, probe.port, probe.deadline.min(LONGEST_KNOCK)).await;
    Up::Probe { id: probe.id, result }
}
