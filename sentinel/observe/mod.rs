//! What one sentinel has seen and when: reports, streams, probes, and since when each condition of the mirror holds.
//! Folds events into memory; draws no conclusion from it and must not know how failovers are decided.

mod timers;

use std::{collections::BTreeMap, time::Duration};

use stolon::model::{
    DbUid, Epoch, KeeperUid, LeaseId, Moment, ProxyUid, WalPosition,
    report::{KeeperReport, ProbeResult, ProxyReport},
};

pub use timers::Timer;

/// One peer's stream and its latest report.
#[derive(Clone, Debug)]
pub struct Peer<R> {
    pub connected: bool,
    /// Begin of the present state of the stream.
    pub since: Moment,
    /// Latest report, with the time of its arrival.
    pub report: Option<(R, Moment)>,
}

/// Outcome of a probe made by this sentinel itself; `result` is unset while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub asked: Moment,
    pub result: Option<ProbeResult>,
}

/// One question to all observers about one keeper's PostgreSQL (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub target: KeeperUid,
    pub asked: Moment,
    pub deadline: Moment,
    /// The leader's own knock.
    pub own: Option<ProbeResult>,
    /// By observer: a keeper's or a proxy's uid.
    pub others: BTreeMap<String, Option<ProbeResult>>,
}

impl Round {
    pub fn complete(&self, now: Moment) -> bool {
        now >= self.deadline || self.own.is_some() && self.others.values().all(Option::is_some)
    }
}

/// Movement of WAL at a standby: between two samples, both dated by this sentinel's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub from: Moment,
    pub to: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    advances: u64,
    at: Moment,
}

/// The memory. Uids are those of the store; what was never seen has no entry.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// Since when this sentinel leads, by its own count; unset while it does not.
    pub leading_since: Option<Moment>,
    pub keepers: BTreeMap<KeeperUid, Peer<KeeperReport>>,
    pub proxies: BTreeMap<ProxyUid, Peer<ProxyReport>>,
    /// Connection attempts to a keeper's gRPC address after its stream ended (R14).
    pub redials: BTreeMap<KeeperUid, Probe>,
    /// Knocks at a keeper's PostgreSQL.
    pub knocks: BTreeMap<KeeperUid, Probe>,
    pub round: Option<Round>,
    /// Highest epoch that a proxy ever acknowledged as fenced; irrevocable (R7).
    pub fenced: BTreeMap<ProxyUid, Epoch>,
    /// Last time that a keeper's walreceiver was reported as streaming.
    pub streamed: BTreeMap<KeeperUid, Moment>,
    pub flows: BTreeMap<KeeperUid, Flow>,
    /// Highest position that was ever reported of a db.
    pub highest: BTreeMap<DbUid, WalPosition>,
    /// Granted TTL of leases that were measured; zero for one that was gone.
    pub ttls: BTreeMap<LeaseId, Duration>,
    /// The highest epoch for which the `ready` key was seen.
    pub ready_seen: Epoch,
    /// The epoch whose begin this sentinel saw in its mirror.
    pub witnessed: Epoch,
    samples: BTreeMap<KeeperUid, Sample>,
    last_epoch: Option<Epoch>,
    timers: BTreeMap<Timer, Moment>,
}

impl Observations {
    /// The memory of a sentinel that begins to lead now and has seen nothing.
    pub fn leading(now: Moment) -> Observations {
        Observations { leading_since: Some(now), ..Observations::default() }
    }

    pub fn keeper_connected(&mut self, now: Moment, uid: &KeeperUid) {
        let report = self.keepers.remove(uid).and_then(|peer| peer.report);
        self.keepers.insert(uid.clone(), Peer { connected: true, since: now, report });
        self.redials.remove(uid);
        self.knocks.remove(uid);
        self.samples.remove(uid);
    }

    pub fn proxy_connected(&mut self, now: Moment, uid: &ProxyUid) {
        let report = self.proxies.remove(uid).and_then(|peer| peer.report);
        self.proxies.insert(uid.clone(), Peer { connected: true, since: now, report });
    }

    pub fn keeper_ended(&mut self, now: Moment, uid: &KeeperUid) {
        if let Some(peer) = self.keepers.get_mut(uid) {
            (peer.connected, peer.since) = (false, now);
        }
    }

    pub fn proxy_ended(&mut self, now: Moment, uid: &ProxyUid) {
        if let Some(peer) = self.proxies.get_mut(uid) {
            (peer.connected, peer.since) = (false, now);
        }
    }

    /// Takes a heartbeat in; true when it says something new that a decision may depend on.
    pub fn keeper_report(&mut self, now: Moment, uid: &KeeperUid, report: KeeperReport) -> bool {
        self.sample_wal(now, uid, &report);
        if report.postgres.wal_streaming {
            self.streamed.insert(uid.clone(), now);
        }
        if let (Some(db), Some(position)) = (&report.postgres.db, report.postgres.position) {
            let highest = self.highest.entry(db.clone()).or_insert(position);
            *highest = position.max(*highest);
        }
        let Some(peer) = self.keepers.get_mut(uid) else { return false };
        let was_silent = peer.report.as_ref().is_none_or(|(_, at)| now.since(*at) > Duration::from_millis(500));
        let news = was_silent || peer.report.as_ref().is_none_or(|(old, _)| essence(old) != essence(&report));
        peer.report = Some((report, now));
        news
    }

    pub fn proxy_report(&mut self, now: Moment, uid: &ProxyUid, report: ProxyReport) -> bool {
        let Some(peer) = self.proxies.get_mut(uid) else { return false };
        let fenced = self.fenced.entry(uid.clone()).or_default();
        let news = report.fenced_epoch > *fenced || peer.report.is_none();
        *fenced = report.fenced_epoch.max(*fenced);
        peer.report = Some((report, now));
        news
    }

    pub fn witness(&mut self, target: &KeeperUid, asked: Moment, observer: &str, result: ProbeResult) {
        if let Some(round) = self.round.as_mut().filter(|round| &round.target == target && round.asked == asked)
            && let Some(answer) = round.others.get_mut(observer)
        {
            *answer = Some(result);
        }
    }

    pub fn own_witness(&mut self, target: &KeeperUid, asked: Moment, result: ProbeResult) {
        if let Some(round) = self.round.as_mut().filter(|round| &round.target == target && round.asked == asked) {
            round.own = Some(result);
        }
    }

    /// A registered keeper from which a heartbeat came within `window`, on an open stream.
    pub fn hears(&self, now: Moment, uid: &KeeperUid, window: Duration) -> bool {
        self.keepers.get(uid).is_some_and(|peer| fresh(peer, now, window))
    }

    pub fn hears_proxy(&self, now: Moment, uid: &ProxyUid, window: Duration) -> bool {
        self.proxies.get(uid).is_some_and(|peer| fresh(peer, now, window))
    }

    fn sample_wal(&mut self, now: Moment, uid: &KeeperUid, report: &KeeperReport) {
        let sample = Sample { advances: report.postgres.wal_advances, at: now - report.postgres.position_age };
        match self.samples.insert(uid.clone(), sample) {
            Some(old) if old.advances != sample.advances && report.postgres.wal_streaming => {
                self.flows.insert(uid.clone(), Flow { from: old.at, to: sample.at });
            }
            _ => {}
        }
    }
}

fn fresh<R>(peer: &Peer<R>, now: Moment, window: Duration) -> bool {
    peer.connected && peer.report.as_ref().is_some_and(|(_, at)| now.since(*at) <= window)
}

/// The report without what changes from heartbeat to heartbeat.
fn essence(report: &KeeperReport) -> KeeperReport {
    let mut report = report.clone();
    let settled = report.postgres.position.is_some();
    report.postgres.position = settled.then(WalPosition::default);
    report.postgres.position_age = Duration::ZERO;
    report.postgres.probe_age = report.postgres.probe_age.map(|_| Duration::ZERO);
    report.postgres.wal_advances = 0;
    report.view_revision = Default::default();
    if let Some(authority) = &mut report.authority {
        authority.remaining = Duration::ZERO;
    }
    report
}
