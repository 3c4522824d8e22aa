//! What clients were told was done, and by whom; and what follows from comparing it: rows that are gone, and two primaries
//! that acknowledged at once. Values only.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// One acknowledged insert.
#[derive(Clone, Debug)]
pub struct Ack {
    pub id: u64,
    pub sent: Instant,
    pub acked: Instant,
    /// The server's own address and port.
    pub server: String,
    /// Its timeline at that time: grows with each promotion.
    pub timeline: u32,
}

/// Rows that were acknowledged and are not `present`.
pub fn lost(acks: &[Ack], present: &BTreeSet<u64>) -> Vec<Ack> {
    acks.iter().filter(|ack| !present.contains(&ack.id)).cloned().collect()
}

/// Two primaries that acknowledged at the same time.
#[derive(Clone, Debug)]
pub struct Overlap {
    /// Who, on which timelines.
    pub text: String,
    /// The first acknowledgement of the later one.
    pub from: Instant,
    /// When the rows were sent that the earlier one acknowledged although they were sent after `from`; never empty.
    pub late: Vec<Instant>,
}

impl Overlap {
    pub fn span(&self) -> Duration {
        self.late.iter().max().map_or(Duration::ZERO, |last| last.saturating_duration_since(self.from))
    }
}

/// All that one server acknowledged on one timeline. A number alone tells nothing: two servers may take the same one.
struct Reign<'a> {
    server: &'a str,
    timeline: u32,
    first_acked: Instant,
    sent: Vec<Instant>,
}

impl Reign<'_> {
    /// The rows that this one still took after `other` had acknowledged its first.
    fn after(&self, other: &Reign<'_>) -> Overlap {
        let name = |reign: &Reign<'_>| format!("{} on timeline {}", reign.server, reign.timeline);
        Overlap {
            text: format!("{} after {}", name(self), name(other)),
            from: other.first_acked,
            late: self.sent.iter().filter(|sent| **sent > other.first_acked).copied().collect(),
        }
    }
}

/// Of any two reigns one must be over before the other acknowledges, and timelines never fall. A row counts for the moment
/// when it was sent: it may have been committed before its answer arrived.
pub fn overlaps(acks: &[Ack]) -> Vec<Overlap> {
    let mut reigns: BTreeMap<(&str, u32), Reign<'_>> = BTreeMap::new();
    for ack in acks {
        let fresh = Reign { server: &ack.server, timeline: ack.timeline, first_acked: ack.acked, sent: Vec::new() };
        let reign = reigns.entry((&ack.server, ack.timeline)).or_insert(fresh);
        reign.first_acked = reign.first_acked.min(ack.acked);
        reign.sent.push(ack.sent);
    }
    let mut in_order: Vec<_> = reigns.into_values().collect();
    in_order.sort_by_key(|reign| reign.timeline);
    let mut found = Vec::new();
    for (at, older) in in_order.iter().enumerate() {
        for newer in &in_order[at + 1..] {
            let mut overlap = older.after(newer);
            if older.timeline == newer.timeline {
                // Nobody knows which of them was to be first: the one that had less left to say.
                overlap = [overlap, newer.after(older)].into_iter().min_by_key(Overlap::span).expect("two");
            }
            if !overlap.late.is_empty() {
                found.push(overlap);
            }
        }
    }
    found
}

/// The longest time without an acknowledgement since `from`, up to `until`.
pub fn gap(acks: &[Ack], from: Instant, until: Instant) -> Duration {
    let mut times: Vec<Instant> = acks.iter().map(|ack| ack.acked).filter(|at| *at > from && *at < until).collect();
    times.push(until);
    times.sort_unstable();
    let mut last = from;
    let mut longest = Duration::ZERO;
    for at in times {
        longest = longest.max(at.saturating_duration_since(last));
        last = at;
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Server, timeline, milliseconds of sending; acknowledged a millisecond later.
    fn acks(of: &[(&str, u32, u64)]) -> Vec<Ack> {
        let zero = Instant::now();
        let at = |ms: u64| zero + Duration::from_millis(ms);
        let ack = |(server, timeline, sent): &(&str, u32, u64)| Ack {
            id: *sent,
            sent: at(*sent),
            acked: at(sent + 1),
            server: (*server).to_owned(),
            timeline: *timeline,
        };
        of.iter().map(ack).collect()
    }

    /// Text, and milliseconds, of each overlap.
    fn found(of: &[(&str, u32, u64)]) -> Vec<(String, u128)> {
        overlaps(&acks(of)).iter().map(|overlap| (overlap.text.clone(), overlap.span().as_millis())).collect()
    }

    #[test]
    fn primaries_one_after_the_other_do_not_overlap() {
        assert_eq!(found(&[("a", 1, 0), ("a", 1, 2), ("b", 2, 4), ("a", 3, 6)]), []);
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn an_old_primary_that_answers_after_its_successor_is_an_overlap() {
        let text = "a on timeline 1 after b on timeline 2";
        assert_eq!(found(&[("a", 1, 0), ("b", 2, 4), ("a", 1, 10), ("b", 2, 12)]), [(text.to_owned(), 5)]);
        // Also when the new one never answers again.
        assert_eq!(found(&[("b", 2, 4), ("a", 1, 10)]), [(text.to_owned(), 5)]);
        assert_eq!(overlaps(&acks(&[("a", 1, 0), ("b", 2, 4), ("a", 1, 10), ("a", 1, 12)]))[0].late.len(), 2);
    }

    #[test]
    fn two_servers_on_one_timeline_are_two_primaries_only_when_they_take_turns() {
        assert_eq!(found(&[("a", 2, 0), ("a", 2, 2), ("b", 2, 4)]), []);
        assert_eq!(found(&[("b", 2, 0), ("a", 2, 4)]), []);
        let text = "a on timeline 2 after b on timeline 2";
        assert_eq!(found(&[("a", 2, 0), ("b", 2, 4), ("a", 2, 8), ("b", 2, 90)]), [(text.to_owned(), 3)]);
        assert_eq!(found(&[("b", 2, 0), ("a", 2, 4), ("b", 2, 8)]).len(), 1);
    }

    #[test]
    fn a_row_that_was_under_way_during_the_change_is_no_overlap() {
        let mut all = acks(&[("a", 1, 0), ("b", 2, 4)]);
        all[0].acked = all[1].acked + Duration::from_millis(3);
        assert!(overlaps(&all).is_empty());
    }

    #[test]
    fn the_longest_pause_counts_also_at_both_ends() {
        let all = acks(&[("a", 1, 99), ("a", 1, 109), ("a", 1, 129)]);
        let at = |ms: u64| all[0].acked + Duration::from_millis(ms);
        assert_eq!(gap(&all, at(0), at(31)), Duration::from_millis(20));
        assert_eq!(gap(&all, at(0), at(90)), Duration::from_millis(60));
        assert_eq!(gap(&all, at(40), at(90)), Duration::from_millis(50));
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let all = acks(&[("a", 1, 0), ("a", 1, 2)]);
        let ids = |acks: Vec<Ack>| acks.iter().map(|ack| ack.id).collect::<Vec<_>>();
        assert_eq!(ids(lost(&all, &BTreeSet::from([2, 9]))), [0]);
    }
}
