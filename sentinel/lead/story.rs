//! One failover as one trace. `detected` is its root and lasts until the mark is stored; the mark carries its context,
//! under which whoever leads continues: `fenced` and `chosen` while that takes, then `committed`, whose context goes
//! with the new primary. Reasons that are logged meanwhile are events of the open span. Knows no etcd.

use stolon::{
    model::{
        Epoch,
        cluster::{Fencing, Stage},
    },
    store::Mirror,
    telemetry::{continue_from, traceparent},
};
use tracing::{Span, field::Empty, info_span};

use crate::{
    decide::{Commit, PrimaryChange, Step},
    observe::Observations,
};

/// The open spans of the present failover; all of them end when it does.
#[derive(Default)]
pub struct Story {
    /// Since something speaks against the primary of this epoch, without a mark.
    watched: Option<(Epoch, Span)>,
    detected: Option<(Epoch, Span)>,
    marked: Option<Span>,
    /// The mark that this leader works under.
    mark: Option<Fencing>,
    fenced: Option<Span>,
    chosen: Option<Span>,
    committed: Option<Span>,
}

impl Story {
    /// Brings the spans in line with what is stored; to be called at each turn of a leader.
    pub fn follow(&mut self, mirror: &Mirror, seen: &Observations) {
        let Some((data, _)) = mirror.data() else { return self.end() };
        if self.detected.as_ref().is_some_and(|(epoch, _)| *epoch != data.epoch() || data.fencing().is_some()) {
            (self.detected, self.marked) = (None, None);
        }
        let Some(mark) = data.fencing() else {
            (self.mark, self.fenced, self.chosen, self.committed) = (None, None, None, None);
            return;
        };
        if self.mark.as_ref().is_none_or(|known| known.epoch != mark.epoch || known.traceparent != mark.traceparent) {
            self.begin(mark);
        }
        if mirror.proxies.iter().all(|(uid, proxy)| {
            proxy.info.fenced_epoch.max(seen.fenced.get(uid).copied().unwrap_or_default()) >= mark.epoch
        }) {
            self.fenced = None;
        }
    }

    fn begin(&mut self, mark: &Fencing) {
        let fenced = info_span!(parent: None, "fenced", rule = "R7", epoch = number(mark.epoch), reason = mark.reason);
        let chosen = info_span!(parent: None, "chosen", rule = "R9", epoch = number(mark.epoch.next()), keeper = Empty, db = Empty, why = Empty);
        for span in [&fenced, &chosen] {
            continue_from(span, &mark.traceparent);
        }
        (self.fenced, self.chosen, self.mark) = (Some(fenced), Some(chosen), Some(mark.clone()));
        self.committed = None;
    }

    /// This sentinel leads no longer, or there is nothing to tell about.
    pub fn end(&mut self) {
        *self = Story::default();
    }

    /// Where reasons of this moment belong.
    pub fn present(&self) -> Span {
        let watched = self.watched.as_ref().map(|(_, span)| span.clone());
        self.chosen.clone().or(watched).unwrap_or_else(Span::none)
    }

    /// Why nothing is done against a primary that something speaks against belongs in a trace, too.
    pub fn watch(&mut self, mirror: &Mirror, watching: bool) {
        let primary = mirror.data().filter(|(data, _)| watching && data.fencing().is_none());
        let Some((data, (_, db))) = primary.and_then(|(data, _)| Some((data, data.primary()?))) else {
            self.watched = None;
            return;
        };
        let epoch = data.epoch();
        if self.watched.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let keeper = db.spec.keeper_uid.as_str();
            let span = info_span!(parent: None, "watched", rule = "R15 R16", epoch = number(epoch), keeper);
            self.watched = Some((epoch, span));
        }
    }

    /// Opens the spans of a commit that is about to be sent; asked again for the same step, it goes on with them.
    /// Returns the context that goes with it; empty when it belongs to no failover, or nobody traces.
    pub fn commit(&mut self, commit: &Commit) -> String {
        match (&commit.step, &commit.change, commit.next.fencing()) {
            (Step::Mark, _, Some(mark)) => self.detect(commit, mark),
            (Step::Stage | Step::Lapse, _, Some(mark)) => mark.traceparent.clone(),
            (Step::Elect { why, .. }, Some(change), _) => self.elect(change, why),
            (Step::Initialise, Some(change), _) => {
                let begin = || root("initialised", change);
                traceparent(self.committed.get_or_insert_with(begin))
            }
            _ => String::new(),
        }
    }

    fn detect(&mut self, commit: &Commit, mark: &Fencing) -> String {
        let (db, keeper) = commit
            .next
            .primary()
            .map_or_else(Default::default, |(uid, db)| (uid.to_string(), db.spec.keeper_uid.to_string()));
        let (epoch, reason) = (mark.epoch, &mark.reason);
        let known = self.detected.take().filter(|(known, _)| *known == epoch);
        let (_, detected) = known.unwrap_or_else(|| {
            self.marked = None;
            (
                epoch,
                info_span!(parent: None, "detected", rule = "R14 R15", epoch = number(epoch), keeper, db, reason, planned = mark.planned),
            )
        });
        let context = traceparent(&detected);
        self.marked.get_or_insert_with(|| {
            let recruiting = mark.stage == Stage::Recruit;
            let marked = info_span!(parent: None, "marked", rule = "R6", epoch = number(epoch), keeper, db, recruiting);
            continue_from(&marked, &context);
            marked
        });
        self.detected = Some((epoch, detected));
        context
    }

    fn elect(&mut self, change: &PrimaryChange, why: &str) -> String {
        if let Some(chosen) = self.chosen.take() {
            chosen.record("keeper", change.key.keeper.as_str());
            chosen.record("db", change.key.db.as_str());
            chosen.record("why", why);
        }
        self.fenced = None;
        let mark = self.mark.as_ref().map_or("", |mark| &mark.traceparent);
        let begin = || {
            let span = root("committed", change);
            continue_from(&span, mark);
            span
        };
        traceparent(self.committed.get_or_insert_with(begin))
    }

    /// The commit is stored: its spans end.
    pub fn stored(&mut self, step: &Step) {
        match step {
            Step::Mark => (self.detected, self.marked) = (None, None),
            Step::Elect { .. } | Step::Initialise => self.committed = None,
            _ => {}
        }
    }

    /// Nothing of it was stored.
    pub fn failed(&mut self, step: &Step) {
        // A winner of the next attempt may be another: `committed` tells of one transaction only.
        if !matches!(step, Step::Mark) {
            self.committed = None;
        }
    }
}

/// As exporters want it: unsigned numbers would become text.
fn number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

fn root(name: &'static str, change: &PrimaryChange) -> Span {
    let key = &change.key;
    let (epoch, keeper, db, proof) = (number(key.epoch), key.keeper.as_str(), key.db.as_str(), change.proof);
    info_span!(parent: None, "committed", rule = "R2", otel.name = name, epoch, keeper, db, ?proof)
}

/// The context that views of stored cluster data carry: of the failover in progress, or of the one that made them.
pub fn context(mirror: &Mirror) -> &str {
    let Some((data, revision)) = mirror.data() else { return "" };
    match (data.fencing(), &mirror.primary) {
        (Some(mark), _) => &mark.traceparent,
        (None, Some(held)) if held.modified == revision => &held.value.traceparent,
        _ => "",
    }
}
