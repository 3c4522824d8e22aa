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
        let span =
            info_span!(parent: None, "fenced", rule = "R7", epoch = number(mark.epoch.0), connections = number(inside));
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
                let span = info_span!(parent: None, "routed", rule = "R10", epoch, keeper, target);
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

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;
    use crate::{
        gate::Gate,
        gatehouse::Gatehouse,
        tests::{facts, lease},
    };

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Event<'a> = &'a dyn Fn(&mut Gate, Moment);

    /// The lines that a story of these events gives; each is followed twice, as news that change nothing for it are.
    fn told(events: &[Event<'_>]) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
        let subscriber = lines.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let (house, mut story, now) = (Gatehouse::default(), Story::default(), stolon::task::clock::now());
            for event in events {
                let inside = house.tell_counting(event);
                for _ in 0..2 {
                    story.follow(&house.news().borrow(), inside, now);
                }
            }
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn each_change_is_told_once_and_the_failovers_steps_in_their_spans() {
        let until = stolon::task::clock::now() + Duration::from_secs(60);
        let lines = told(&[
            &|gate, now| gate.registered(lease(until), now),
            &|gate, now| gate.read(facts(2, 3, Some(5003), None), now),
            &|gate, now| gate.registered(lease(until + Duration::from_secs(1)), now),
            &|gate, now| gate.read(facts(3, 3, Some(5003), Some(3)), now),
            &|gate, now| gate.read(facts(4, 3, Some(5003), Some(3)), now),
            &|gate, now| gate.read(facts(5, 4, None, None), now),
            &|gate, now| gate.read(facts(6, 4, Some(5004), None), now),
            &|gate, now| gate.read(facts(7, 4, None, None), now),
        ]);
        let expected = [
            "INFO no route: nothing has been read from etcd yet",
            "INFO routing to the primary epoch=3 keeper=k3 target=\"127.0.0.1:5003\"",
            "INFO fenced{rule=\"R7\" epoch=3 connections=0}: the epoch ends, cutting its connections epoch=3 connections=0",
            "INFO fenced{rule=\"R7\" epoch=3 connections=0}: no connection of the epoch is left epoch=3 connections=0 took_ms=0",
            "INFO no route: epoch 3 has ended, its successor is being chosen",
            "INFO no route: the primary of epoch 4 does not serve yet",
            "INFO routed{rule=\"R10\" epoch=4 keeper=\"k4\" target=\"127.0.0.1:5004\"}: routing to the primary epoch=4 keeper=k4 target=\"127.0.0.1:5004\"",
            "INFO no route for new connections, open ones go on: the primary of epoch 4 does not serve yet epoch=4",
        ];
        assert_eq!(lines, expected, "{lines:#?}");
    }

    #[test]
    fn a_proxy_that_comes_during_a_failover_tells_its_acknowledgement_too() {
        let until = stolon::task::clock::now() + Duration::from_secs(60);
        let lines = told(&[&|gate, now| gate.read(facts(3, 3, Some(5003), Some(3)), now), &|gate, now| {
            gate.registered(lease(until), now)
        }]);
        assert!(
            lines.iter().any(|line| line.starts_with("INFO fenced{rule=\"R7\" epoch=3") && line.contains("is left")),
            "{lines:#?}"
        );
    }
}
