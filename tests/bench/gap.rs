//! The gap that clients saw, from their acknowledgements alone. Knows no cluster.

use std::time::{Duration, Instant};

use crate::client::Ack;

/// Between two acknowledgements, whoever wrote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    pub from: Instant,
    pub to: Instant,
}

impl Gap {
    pub fn length(&self) -> Duration {
        self.to - self.from
    }
}

/// Around a change of the primary: from the last acknowledgement of the former one to the first of the next. Without a
/// change (a restart in place), the longest one that ended after `struck`. `None` when nothing was acknowledged before or
/// after.
pub fn gap(acks: &[Ack], struck: Instant) -> Option<Gap> {
    let before = acks.iter().rfind(|ack| ack.acked <= struck)?;
    if let Some(first) = acks.iter().find(|ack| ack.acked > struck && ack.timeline > before.timeline) {
        let last = acks.iter().rfind(|ack| ack.timeline <= before.timeline && ack.acked <= first.acked)?;
        return Some(Gap { from: last.acked, to: first.acked });
    }
    longest(acks, struck)
}

/// The longest time without an acknowledgement of anybody that ended after `since`.
pub fn longest(acks: &[Ack], since: Instant) -> Option<Gap> {
    let pairs = acks.windows(2).filter(|pair| pair[1].acked > since);
    pairs.map(|pair| Gap { from: pair[0].acked, to: pair[1].acked }).max_by_key(Gap::length)
}

/// Of all writers, the longest gap that a single one saw; what the slowest to come back waited.
pub fn slowest(acks: &[Ack], writers: usize, struck: Instant) -> Option<Duration> {
    let own = |writer: usize| acks.iter().filter(|ack| ack.writer == writer).copied().collect::<Vec<_>>();
    (0..writers).filter_map(|writer| gap(&own(writer), struck)).map(|gap| gap.length()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acks(zero: Instant, of: &[(u64, usize, u32)]) -> Vec<Ack> {
        let at = |ms: u64| zero + Duration::from_millis(ms);
        of.iter()
            .map(|(ms, writer, timeline)| Ack { id: *ms, writer: *writer, acked: at(*ms), timeline: *timeline })
            .collect()
    }

    #[test]
    fn the_gap_lies_between_the_last_of_one_primary_and_the_first_of_the_next() {
        let zero = Instant::now();
        // The old primary acknowledges once more after the strike; a later hiccup of the new one does not count.
        let acks = acks(zero, &[(0, 0, 1), (10, 0, 1), (25, 0, 1), (130, 0, 2), (900, 0, 2)]);
        let found = gap(&acks, zero + Duration::from_millis(20)).unwrap();
        assert_eq!(found.length(), Duration::from_millis(105));
    }

    #[test]
    fn without_a_change_of_the_primary_it_is_the_longest_after_the_strike() {
        let zero = Instant::now();
        let acks = acks(zero, &[(0, 0, 1), (500, 0, 1), (600, 0, 1), (900, 0, 1), (950, 0, 1)]);
        assert_eq!(gap(&acks, zero + Duration::from_millis(610)).unwrap().length(), Duration::from_millis(300));
        assert_eq!(gap(&acks[..1], zero + Duration::from_millis(10)), None, "nobody came back");
        assert_eq!(gap(&acks[1..], zero), None, "nothing was acknowledged before");
    }

    #[test]
    fn the_slowest_of_several_writers_is_told_apart() {
        let zero = Instant::now();
        let acks = acks(zero, &[(0, 0, 1), (1, 1, 1), (50, 0, 2), (300, 1, 2)]);
        let struck = zero + Duration::from_millis(2);
        assert_eq!(gap(&acks, struck).unwrap().length(), Duration::from_millis(49));
        assert_eq!(slowest(&acks, 2, struck), Some(Duration::from_millis(299)));
    }
}
