//! The right to be primary, as this keeper may believe it (R1, R3). Pure: readings of etcd and lease deadlines come in,
//! the epoch and the local deadline come out. Only a linearizable read grants; the watch can only take away.

use stolon::{
    model::{DbUid, Epoch, KeeperUid, LeaseId, Moment, Revision},
    store::{LeaseState, Mirror},
};

/// Authority that a linearizable read has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    epoch: Epoch,
    db: DbUid,
    lease: LeaseId,
    confirmed: Revision,
}

/// Authority at one moment: for `epoch`, until `deadline` on the local clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub epoch: Epoch,
    pub db: DbUid,
    /// The lease that carries the key.
    pub lease: LeaseId,
    pub deadline: Moment,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Authority {
    me: KeeperUid,
    held: Option<Held>,
}

impl Authority {
    pub fn new(me: KeeperUid) -> Authority {
        Authority { me, held: None }
    }

    /// What the key `primary` says of this keeper, if it hangs on the keeper's present lease.
    fn claim(&self, mirror: &Mirror, lease: &LeaseState) -> Option<Held> {
        let key = mirror.primary.as_ref()?;
        let mine = key.value.keeper == self.me && key.lease == lease.id;
        mine.then(|| Held {
            epoch: key.value.epoch,
            db: key.value.db.clone(),
            lease: key.lease,
            confirmed: mirror.revision,
        })
    }

    /// True when the watch shows a claim that no linearizable read has confirmed yet.
    pub fn needs_reading(&self, mirror: &Mirror, lease: Option<&LeaseState>) -> bool {
        let claim = lease.and_then(|lease| self.claim(mirror, lease));
        claim.is_some_and(|claim| self.held.as_ref().is_none_or(|held| !held.same_right(&claim)))
    }

    /// A linearizable read, answered while `lease` was held.
    pub fn read(&mut self, mirror: &Mirror, lease: &LeaseState) {
        self.held = self.claim(mirror, lease);
    }

    /// The watch moved on, or the lease changed: takes away what they no longer show.
    pub fn observe(&mut self, mirror: &Mirror, lease: Option<&LeaseState>) {
        let Some(held) = &self.held else { return };
        let Some(lease) = lease.filter(|lease| lease.id == held.lease) else {
            self.held = None;
            return;
        };
        let newer = mirror.revision > held.confirmed;
        if newer && self.claim(mirror, lease).is_none_or(|claim| !held.same_right(&claim)) {
            self.held = None;
        }
    }

    /// Time has passed: an authority whose deadline is over is gone, and no late answer revives it (R3).
    pub fn lapse(&mut self, now: Moment, lease: Option<&LeaseState>) {
        if self.held.is_some() && self.at(now, lease).is_none() {
            self.held = None;
        }
    }

    /// The authority at `now`, with its deadline. A lease that changed since ends it (execution 2).
    pub fn at(&self, now: Moment, lease: Option<&LeaseState>) -> Option<Grant> {
        let held = self.held.as_ref()?;
        let lease = lease.filter(|lease| lease.id == held.lease && now < lease.deadline)?;
        Some(Grant { epoch: held.epoch, db: held.db.clone(), lease: held.lease, deadline: lease.deadline })
    }
}

impl Held {
    fn same_right(&self, other: &Held) -> bool {
        self.epoch == other.epoch && self.lease == other.lease && self.db == other.db
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stolon::{model::registration::PrimaryKey, store::Held as Key};

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(millis))
    }

    fn lease(id: i64, deadline: u64) -> LeaseState {
        LeaseState {
            id: LeaseId(id),
            deadline: at(deadline),
            granted: Duration::from_secs(5),
            registered_at: Revision(1),
        }
    }

    fn mirror(revision: i64, primary: Option<(&str, u64, i64)>) -> Mirror {
        let primary = primary.map(|(keeper, epoch, lease)| Key {
            value: PrimaryKey {
                keeper: KeeperUid::parse(keeper).unwrap(),
                db: DbUid::parse("db1").unwrap(),
                epoch: Epoch(epoch),
                traceparent: String::new(),
            },
            lease: LeaseId(lease),
            modified: Revision(revision),
        });
        Mirror { revision: Revision(revision), primary, ..Mirror::default() }
    }

    fn holder() -> Authority {
        let mut authority = Authority::new(KeeperUid::parse("k1").unwrap());
        authority.read(&mirror(10, Some(("k1", 3, 77))), &lease(77, 5000));
        authority
    }

    #[test]
    fn authority_lasts_until_the_deadline_of_the_lease_that_carries_the_key() {
        let authority = holder();
        assert_eq!(authority.at(at(4999), Some(&lease(77, 5000))).unwrap().epoch, Epoch(3));
        assert_eq!(authority.at(at(5000), Some(&lease(77, 5000))), None);
        assert_eq!(authority.at(at(100), None), None);
    }

    #[test]
    fn a_new_lease_of_the_same_keeper_is_no_authority() {
        let mut authority = holder();
        assert_eq!(authority.at(at(100), Some(&lease(78, 9000))), None, "execution 2");
        authority.read(&mirror(12, Some(("k1", 3, 77))), &lease(78, 9000));
        assert_eq!(authority.at(at(100), Some(&lease(78, 9000))), None);
    }

    #[test]
    fn the_watch_alone_grants_nothing_but_asks_for_a_reading() {
        let mut authority = Authority::new(KeeperUid::parse("k1").unwrap());
        let seen = mirror(10, Some(("k1", 3, 77)));
        authority.observe(&seen, Some(&lease(77, 5000)));
        assert_eq!(authority.at(at(1), Some(&lease(77, 5000))), None);
        assert!(authority.needs_reading(&seen, Some(&lease(77, 5000))));
        assert!(!authority.needs_reading(&mirror(10, Some(("k2", 3, 77))), Some(&lease(77, 5000))));
    }

    #[test]
    fn the_watch_takes_away_when_the_key_goes_or_names_another() {
        for gone in [mirror(11, None), mirror(11, Some(("k2", 4, 78))), mirror(11, Some(("k1", 4, 77)))] {
            let mut authority = holder();
            authority.observe(&gone, Some(&lease(77, 5000)));
            assert_eq!(authority.at(at(1), Some(&lease(77, 5000))), None, "{gone:?}");
        }
    }

    #[test]
    fn a_renewal_after_the_deadline_revives_nothing() {
        let mut authority = holder();
        authority.lapse(at(4999), Some(&lease(77, 5000)));
        assert!(authority.at(at(4999), Some(&lease(77, 5000))).is_some());
        authority.lapse(at(5000), Some(&lease(77, 5000)));
        assert_eq!(authority.at(at(5001), Some(&lease(77, 9000))), None);
        assert!(authority.needs_reading(&mirror(12, Some(("k1", 3, 77))), Some(&lease(77, 9000))));
    }

    #[test]
    fn a_snapshot_older_than_the_reading_takes_nothing_away() {
        let mut authority = holder();
        authority.observe(&mirror(9, None), Some(&lease(77, 5000)));
        assert!(authority.at(at(1), Some(&lease(77, 5000))).is_some());
    }
}
