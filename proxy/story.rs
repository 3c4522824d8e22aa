//! What the log and the trace tell of the gate: each change of the route, and of the reason for having none, once; and
//! the two spans that are this proxy's part of a failover. Reads news, changes nothing.

use stolon::{
    model::{Epoch, Moment},
    telemetry::continue_from,
};
use tracing::{Span, info_span};

use crate::{
    gate::{Closed, Grant, Mark, Serial},
    gatehouse::News,
};

/// What was told so far.
#[derive(Debug, Default)]
pub struct Story {
    said: Option<Said>,
    /// Highest epoch whose end was acknowledged.
    acknowledged: Epoch,
    fencing: Option<Fencing>,
    routed: Option<Serial>,
}

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Route(Serial),
    Closed(Closed),
}

/// A mark whose connections are being cut; its span ends with it.
#[derive(Debug)]
struct Fencing {
    epoch: Epoch,
    since: Moment,
    connections: u64,
    _span: Span,
}

impl Story {
    /// Highest epoch whose end was told.
    pub fn acknowledged(&self) -> Epoch {
        self.acknowledged
    }

    /// Tells what is new. `inside` is the number of connections just before it was.
    pub fn follow(&mut self, news: &News, inside: u64, now: Moment) {
        if let Some(mark) = &news.mark {
            self.begin(mark, inside, now);
        }
        self.acknowledge(news.acknowledged, now);
        match (&news.grant, &news.closed) {
            (Some(grant), None) => self.open(grant),
            (grant, Some(closed)) => self.close(closed, grant.as_ref()),
            (None, None) => {}
        }
    }

    fn begin(&mut self, mark: &Mark, inside: u64, now: Moment) {
        let known = self.fencing.as_ref().map_or(self.acknowledged, |fencing| fencing.epoch.max(self.acknowledged));
        if mark.epoch <= known {
            return;
        }
        let span = info_span!(parent: None, "fenced", epoch = number(mark.epoch.0), connections = number(inside));
        continue_from(&span, &mark.traceparent);
        span.in_scope(
            || tracing::info!(epoch = %mark.epoch, connections = inside, "the epoch ends, cutting its connections"),
        );
        self.fencing = Some(Fencing { epoch: mark.epoch, since: now, connections: inside, _span: span });
    }

    fn acknowledge(&mut self, epoch: Epoch, now: Moment) {
        self.acknowledged = self.acknowledged.max(epoch);
        if let Some(done) = self.fencing.take_if(|fencing| fencing.epoch <= epoch) {
            let took_ms = now.since(done.since).as_millis();
            done._span.in_scope(
                || tracing::info!(%epoch, connections = done.connections, took_ms, "no connection of the epoch is left"),
            );
        }
    }

    fn open(&mut self, grant: &Grant) {
        if self.said.replace(Said::Route(grant.serial)) == Some(Said::Route(grant.serial)) {
            return;
        }
        let (route, target) = (&grant.route, grant.route.target());
        let new = self.routed.replace(grant.serial) != Some(grant.serial);
        let span = match grant.began && new {
            true => {
                let (epoch, keeper) = (number(route.epoch.0), route.keeper.as_str());
                let span = info_span!(parent: None, "routed", epoch, keeper, target);
                continue_from(&span, &grant.traceparent);
                span
            }
            false => Span::none(),
        };
        span.in_scope(
            || tracing::info!(epoch = %route.epoch, keeper = %route.keeper, target, "routing to the primary"),
        );
    }

    fn close(&mut self, closed: &Closed, kept: Option<&Grant>) {
        if self.said.as_ref() == Some(&Said::Closed(closed.clone())) {
            return;
        }
        let again =
            matches!((&self.said, closed), (Some(Said::Closed(Closed::Outdated { .. })), Closed::Outdated { .. }));
        self.said = Some(Said::Closed(closed.clone()));
        let epoch = kept.map(|grant| grant.route.epoch.0);
        match closed {
            _ if again => {}
            Closed::Refused(_) | Closed::WentBack { .. } | Closed::Unusable(_) => {
                tracing::error!(epoch, "no route: {closed}");
            }
            Closed::Expired | Closed::Unregistered => tracing::warn!(epoch, "no route: {closed}"),
            _ if kept.is_some() => tracing::info!(epoch, "no route for new connections, open ones go on: {closed}"),
            _ => tracing::info!("no route: {closed}"),
        }
    }
}

/// As exporters want it: unsigned numbers would become text.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
