//! Wall-clock times in the cluster data, for people: whatever changed since the last version gets the present time.

use stolon::model::ClusterData;

/// Dates what differs between `before` and `next`.
pub fn stamp(before: Option<&ClusterData>, next: &mut ClusterData, time: &str) {
    let time = || time.to_owned();
    next.change_time = time();
    if before.is_none_or(|before| before.cluster != next.cluster) {
        next.cluster.change_time = time();
    }
    if before.is_none_or(|before| before.proxy != next.proxy) {
        next.proxy.change_time = time();
    }
    for (uid, db) in &mut next.dbs {
        if before.and_then(|before| before.dbs.get(uid)) != Some(&*db) {
            db.change_time = time();
        }
    }
    for (uid, keeper) in &mut next.keepers {
        let old = before.and_then(|before| before.keepers.get(uid));
        if old != Some(&*keeper) {
            keeper.change_time = time();
            if keeper.status.healthy || old.is_some_and(|old| old.status.healthy) {
                keeper.status.last_healthy_time = time();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_gets_a_new_time() {
        let text = include_bytes!("../src/model/testdata/clusterdata.json");
        let before = ClusterData::parse(text).unwrap();
        let mut next = before.clone();
        let uid = next.dbs.keys().next().unwrap().clone();
        next.dbs.get_mut(&uid).unwrap().spec.max_standbys += 1;
        stamp(Some(&before), &mut next, "now");
        assert_eq!((next.change_time.as_str(), next.dbs[&uid].change_time.as_str()), ("now", "now"));
        assert_eq!(next.cluster.change_time, before.cluster.change_time);
        assert_eq!(next.keepers, before.keepers);
    }
}
