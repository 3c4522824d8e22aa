//! How long a change of primary takes, told when it is over: from the mark, as this leader first saw it, until the winner
//! says that it serves. For people at night, who have no trace at hand. Decides nothing.

use std::time::Duration;

use stolon::{
    model::{Epoch, KeeperUid, Moment},
    store::Mirror,
};

#[derive(Default)]
pub struct Outage {
    /// The epoch that ends, and since when that is known here.
    marked: Option<(Epoch, Moment)>,
}

/// A change of primary that is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    pub epoch: Epoch,
    pub keeper: KeeperUid,
    pub took: Duration,
}

impl Outage {
    /// To be called at each turn of a leader; answers once for each change.
    pub fn follow(&mut self, now: Moment, mirror: &Mirror) -> Option<Over> {
        let (data, _) = mirror.data()?;
        if let Some(mark) = data.fencing() {
            if self.marked.is_none_or(|(epoch, _)| epoch != mark.epoch) {
                self.marked = Some((mark.epoch, now));
            }
            return None;
        }
        let ready = &mirror.ready.as_ref()?.value;
        let (_, since) = self.marked.filter(|(ended, _)| ready.epoch > *ended && ready.epoch == data.epoch())?;
        self.marked = None;
        Some(Over { epoch: ready.epoch, keeper: ready.keeper.clone(), took: now.since(since) })
    }

    /// Another sentinel leads, and tells it.
    pub fn forget(&mut self) {
        self.marked = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stolon::{
        model::{
            ClusterData, LeaseId, Lsn, Revision,
            cluster::{Fencing, Stage},
            registration::ReadyKey,
        },
        store::{Held, Stored},
    };

    use super::*;

    fn world(epoch: u64, marked: bool, ready: u64) -> Mirror {
        let mut data = ClusterData::parse(include_bytes!("../../src/model/testdata/clusterdata.json")).unwrap();
        data.cluster.status.epoch = Epoch(epoch);
        data.cluster.status.fencing = marked.then(|| Fencing {
            epoch: Epoch(epoch),
            stage: Stage::Fence,
            planned: false,
            to: None,
            reason: "test".into(),
            traceparent: String::new(),
        });
        let (db, keeper) = data.primary().map(|(uid, db)| (uid.clone(), db.spec.keeper_uid.clone())).unwrap();
        let (epoch, address) = (Epoch(ready), "127.0.0.1".to_owned());
        let value = ReadyKey {
            keeper,
            db,
            epoch,
            address,
            port: 5432,
            timeline: 2,
            switch_lsn: Lsn(0),
            traceparent: String::new(),
        };
        let ready = Some(Held { value, modified: Revision(5), lease: LeaseId(1) });
        let cluster = Some(Stored { revision: Revision(4), bytes: Arc::default(), data: Ok(Arc::new(data)) });
        Mirror { cluster, ready, ..Mirror::default() }
    }

    #[test]
    fn a_change_is_over_once_and_only_when_its_winner_serves() {
        let at = |ms: u64| Moment::from_boot(Duration::from_millis(1_000 + ms));
        let mut outage = Outage::default();
        assert_eq!(outage.follow(at(0), &world(4, false, 4)), None, "nothing was marked");
        assert_eq!(outage.follow(at(10), &world(4, true, 4)), None);
        assert_eq!(outage.follow(at(20), &world(4, true, 4)), None);
        assert_eq!(outage.follow(at(30), &world(5, false, 4)), None, "elected, and not there yet");
        let over = outage.follow(at(110), &world(5, false, 5)).unwrap();
        assert_eq!((over.epoch, over.took), (Epoch(5), Duration::from_millis(100)));
        assert_eq!(outage.follow(at(120), &world(5, false, 5)), None);
    }
}
