//! On which branch of the cluster's history a data directory lies (R11). PostgreSQL knows timelines by number alone;
//! two promotions that both made, say, timeline 2 are told apart by their epochs (execution 18).

use stolon::model::{WalPosition, cluster::Lineage, registration::ReadyKey};

use crate::journal::Branch;

/// How a directory stands to a primary that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All its WAL is part of the primary's history: it can follow.
    Follows,
    /// It has WAL past the point where the primary's history left its own.
    Ahead,
    /// It lies on a promotion that the cluster's history does not contain.
    OtherLineage,
    /// Its own position is not known.
    Unknown,
}

/// `branch`: the promotion that the data last followed (or made); `None` for data older than this record, which
/// PostgreSQL's own timelines must place.
pub fn fit(branch: Option<Branch>, position: Option<WalPosition>, lineage: &[Lineage], ready: &ReadyKey) -> Fit {
    let Some(branch) = branch else {
        return match position {
            None => Fit::Unknown,
            Some(position) if position.timeline == ready.timeline => Fit::Follows,
            Some(position) => before_switch(position, ready.switch_lsn),
        };
    };
    if branch.epoch == ready.epoch {
        return if branch.timeline == ready.timeline { Fit::Follows } else { Fit::OtherLineage };
    }
    let Some(own) = lineage.iter().find(|l| l.epoch == branch.epoch && l.timeline == branch.timeline) else {
        return Fit::OtherLineage;
    };
    let later = lineage.iter().filter(|l| l.epoch > branch.epoch && l.epoch < ready.epoch);
    let later = later.map(|l| (l.timeline, l.switch_lsn, &l.db)).chain([(ready.timeline, ready.switch_lsn, &ready.db)]);
    let mut left: Option<stolon::model::Lsn> = None;
    for (timeline, switch, db) in later {
        if timeline > branch.timeline {
            // A later winner that was behind left the history even earlier.
            left = Some(left.map_or(switch, |before| before.min(switch)));
        } else if timeline < branch.timeline || *db != own.db {
            // The same primary may go on in its timeline; whoever else reached no higher number left the history before it.
            return Fit::OtherLineage;
        }
    }
    match (left, position) {
        (None, _) => Fit::Follows,
        (Some(_), None) => Fit::Unknown,
        (Some(switch), Some(position)) => before_switch(position, switch),
    }
}

fn before_switch(position: WalPosition, switch: stolon::model::Lsn) -> Fit {
    if position.lsn <= switch { Fit::Follows } else { Fit::Ahead }
}

#[cfg(test)]
mod tests {
    use stolon::model::{DbUid, Epoch, KeeperUid, Lsn};

    use super::*;

    fn ready(epoch: u64, timeline: u32, switch: u64) -> ReadyKey {
        ReadyKey {
            keeper: KeeperUid::parse("k2").unwrap(),
            db: DbUid::parse("db2").unwrap(),
            epoch: Epoch(epoch),
            address: "127.0.0.1".into(),
            port: 5432,
            timeline,
            switch_lsn: Lsn(switch),
            traceparent: String::new(),
        }
    }

    fn line(epoch: u64, timeline: u32, switch: u64) -> Lineage {
        Lineage { epoch: Epoch(epoch), timeline, switch_lsn: Lsn(switch), db: DbUid::parse("db").unwrap() }
    }

    fn at(timeline: u32, lsn: u64) -> Option<WalPosition> {
        Some(WalPosition { timeline, lsn: Lsn(lsn) })
    }

    fn on(epoch: u64, timeline: u32) -> Option<Branch> {
        Some(Branch { epoch: Epoch(epoch), timeline })
    }

    #[test]
    fn a_standby_behind_the_switch_follows_and_one_past_it_does_not() {
        let lineage = [line(1, 1, 0)];
        assert_eq!(fit(on(1, 1), at(1, 100), &lineage, &ready(2, 2, 100)), Fit::Follows);
        assert_eq!(fit(on(1, 1), at(1, 101), &lineage, &ready(2, 2, 100)), Fit::Ahead);
        assert_eq!(fit(on(1, 1), None, &lineage, &ready(2, 2, 100)), Fit::Unknown);
    }

    #[test]
    fn the_first_switch_after_the_branch_counts_not_the_last() {
        let lineage = [line(1, 1, 0), line(2, 2, 100)];
        assert_eq!(fit(on(1, 1), at(1, 150), &lineage, &ready(3, 3, 300)), Fit::Ahead);
        assert_eq!(fit(on(2, 2), at(2, 300), &lineage, &ready(3, 3, 300)), Fit::Follows);
    }

    #[test]
    fn two_timelines_with_one_number_are_told_apart_by_their_epochs() {
        // Epoch 2 made a timeline 2 that was lost; epoch 3 made another timeline 2 (execution 18).
        let lineage = [line(1, 1, 0)];
        assert_eq!(fit(on(2, 2), at(2, 90), &lineage, &ready(3, 2, 100)), Fit::OtherLineage);
    }

    #[test]
    fn a_timeline_number_that_another_db_used_again_is_another_lineage_though_both_are_recorded() {
        let lineage = [line(1, 1, 0), line(2, 2, 100), Lineage { db: DbUid::parse("db2").unwrap(), ..line(3, 2, 100) }];
        assert_eq!(fit(on(2, 2), at(2, 150), &lineage[..2], &ready(3, 2, 100)), Fit::OtherLineage);
        assert_eq!(fit(on(2, 2), at(2, 90), &lineage, &ready(4, 3, 300)), Fit::OtherLineage);
        assert_eq!(fit(on(3, 2), at(2, 150), &lineage, &ready(4, 3, 300)), Fit::Follows);
        assert_eq!(fit(on(1, 1), at(1, 100), &lineage, &ready(4, 3, 300)), Fit::Follows);
    }

    #[test]
    fn a_winner_that_was_behind_makes_a_number_again_and_ends_what_came_between() {
        // The winner of epoch 4 had nothing of timelines 2 and 3, and made another timeline 2.
        let other = |epoch, timeline, switch, db: &str| Lineage {
            db: DbUid::parse(db).unwrap(),
            ..line(epoch, timeline, switch)
        };
        let lineage = [line(1, 1, 0), other(2, 2, 100, "b"), other(3, 3, 300, "c")];
        assert_eq!(fit(on(2, 2), at(2, 250), &lineage, &ready(4, 2, 80)), Fit::OtherLineage);
        assert_eq!(fit(on(3, 3), at(3, 350), &lineage, &ready(4, 2, 80)), Fit::OtherLineage);
        assert_eq!(fit(on(1, 1), at(1, 90), &lineage, &ready(4, 2, 80)), Fit::Ahead);
        assert_eq!(fit(on(1, 1), at(1, 80), &lineage, &ready(4, 2, 80)), Fit::Follows);
    }

    #[test]
    fn an_epoch_that_kept_the_timeline_is_no_switch() {
        let mut lineage = [line(1, 1, 0)];
        lineage[0].db = DbUid::parse("db2").unwrap();
        assert_eq!(fit(on(1, 1), at(1, 500), &lineage, &ready(2, 1, 0)), Fit::Follows);
    }

    #[test]
    fn data_without_a_record_is_placed_by_its_timeline() {
        assert_eq!(fit(None, at(2, 500), &[], &ready(2, 2, 100)), Fit::Follows);
        assert_eq!(fit(None, at(1, 500), &[], &ready(2, 2, 100)), Fit::Ahead);
    }
}
