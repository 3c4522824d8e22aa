//! What stands in the way of a cluster, or what it waits for: one line each, for people. Pure.

use stolon::{model::ClusterData, store::Mirror};

use crate::decide::check;

/// Why nothing can be decided from what is stored; `None` when it can, or when nothing is stored.
pub fn unusable(mirror: &Mirror) -> Option<String> {
    let stored = mirror.cluster.as_ref()?;
    let data = match &stored.data {
        Ok(data) => data,
        Err(problem) => return Some(format!("{problem}; nothing is changed until it can be read")),
    };
    if let Err(bad) = data.cluster.spec.resolve() {
        return Some(format!("{bad}; nothing is changed until it is corrected"));
    }
    let impossible = check::sound(data, mirror).err()?;
    Some(format!("cluster data are in an impossible state: {impossible}; nothing is changed"))
}

/// All that the mirror alone tells, without the reasons of the leader's decisions.
pub fn visible(mirror: &Mirror) -> Vec<String> {
    let mut found: Vec<String> = unusable(mirror).into_iter().collect();
    match mirror.data() {
        Some((data, _)) => found.extend(primary(mirror, data).into_iter().chain(absent(mirror, data))),
        None if mirror.cluster.is_none() => {
            found.push("the cluster is not initialised: there are no cluster data".into())
        }
        None => {}
    }
    if mirror.leader().is_none() {
        found.push("no sentinel leads".into());
    }
    found.extend(mirror.malformed.iter().map(|(key, problem)| format!("key {key}: {problem}")));
    found
}

/// True when the primary wrote that it serves in the present epoch, and no change is in progress (R10).
pub fn available(mirror: &Mirror, data: &ClusterData) -> bool {
    data.fencing().is_none() && holds(mirror, data) && serves(mirror, data)
}

fn holds(mirror: &Mirror, data: &ClusterData) -> bool {
    let uid = data.cluster.status.master.as_ref();
    mirror.primary.as_ref().is_some_and(|held| held.value.epoch == data.epoch() && Some(&held.value.db) == uid)
}

fn serves(mirror: &Mirror, data: &ClusterData) -> bool {
    let uid = data.cluster.status.master.as_ref();
    mirror.ready.as_ref().is_some_and(|ready| ready.value.epoch == data.epoch() && Some(&ready.value.db) == uid)
}

fn primary(mirror: &Mirror, data: &ClusterData) -> Option<String> {
    let epoch = data.epoch();
    if let Some(mark) = data.fencing() {
        return Some(format!("the primary is being changed, epoch {} ends: {}", mark.epoch, mark.reason));
    }
    let Some((_, db)) = data.primary() else { return Some("there is no primary".into()) };
    let keeper = &db.spec.keeper_uid;
    if !holds(mirror, data) {
        return Some(format!("keeper {keeper} has no authority for epoch {epoch}: key `primary` is gone"));
    }
    (!serves(mirror, data)).then(|| format!("keeper {keeper} does not serve yet as the primary of epoch {epoch}"))
}

fn absent<'a>(mirror: &'a Mirror, data: &'a ClusterData) -> impl Iterator<Item = String> + 'a {
    let absent = data.keepers.keys().filter(|uid| !mirror.keepers.contains_key(*uid));
    absent.map(|uid| format!("keeper {uid} is not registered in etcd: it does not run, or can't reach etcd"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stolon::{
        model::{Epoch, Revision},
        store::Stored,
    };

    use super::*;

    const CAPTURED: &[u8] = include_bytes!("../../src/model/testdata/clusterdata.json");

    fn mirror(bytes: &[u8]) -> Mirror {
        let data = ClusterData::parse(bytes).map(Arc::new);
        let stored = Stored { revision: Revision(4), bytes: Arc::new(bytes.to_vec()), data };
        Mirror { cluster: Some(stored), ..Mirror::default() }
    }

    fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Mirror {
        let mut document = serde_json::from_slice(CAPTURED).unwrap();
        edit(&mut document);
        mirror(document.to_string().as_bytes())
    }

    #[test]
    fn damaged_cluster_data_are_named_by_what_is_wrong_with_them() {
        for (mirror, words) in [
            (mirror(b"\xff{not json"), "not the JSON document"),
            (edited(|d| d["formatVersion"] = 2.into()), "format version 2"),
            (edited(|d| d["cluster"]["status"]["master"] = "nobody".into()), "nobody"),
            (edited(|d| d["cluster"]["spec"]["failInterval"] = "-1s".into()), "failInterval"),
            (edited(|d| d["cluster"]["spec"]["initMode"] = "pitr".into()), "pitr"),
        ] {
            let found = visible(&mirror);
            assert!(found.iter().any(|line| line.contains(words) && !line.contains('\n')), "{words}: {found:?}");
        }
    }

    #[test]
    fn a_cluster_without_its_keys_says_which_are_missing() {
        let mut mirror = edited(|_| {});
        assert_eq!(unusable(&mirror), None);
        mirror.malformed.insert("k".into(), "nonsense".into());
        let found = visible(&mirror).join("\n");
        for words in
            ["key `primary` is gone", "keeper keeper0 is not registered", "no sentinel leads", "key k: nonsense"]
        {
            assert!(found.contains(words), "{words}: {found}");
        }
        mirror.highest_epoch = Some((Epoch(7), Revision(3)));
        assert!(unusable(&mirror).is_some_and(|text| text.contains("older copy")));
    }
}
