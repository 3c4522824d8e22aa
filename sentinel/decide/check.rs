//! The last look at each commit before it is made, independent of the reasoning that led to it: what must hold of any
//! cluster data, and of any step from one to the next. A refusal here is a defect elsewhere.

use stolon::{
    model::{
        ClusterData, DbUid, Epoch,
        cluster::{Db, Phase},
    },
    store::Mirror,
};

use super::{Commit, Holder, PrimaryChange, Proof, REVOKED, Step};
use crate::observe::Observations;

/// What must hold of cluster data whoever wrote them.
pub fn sound(data: &ClusterData, mirror: &Mirror) -> Result<(), String> {
    data.consistent()?;
    let highest = mirror.highest_epoch.map_or(Epoch::NONE, |(epoch, _)| epoch);
    if highest > data.epoch() {
        return Err(format!(
            "they are of epoch {}, but key `epoch` says that epoch {highest} was reached: they were restored from an \
             older copy",
            data.epoch()
        ));
    }
    if highest < data.epoch() {
        return Err(format!("they are of epoch {}, but key `epoch` says {highest}", data.epoch()));
    }
    Ok(())
}

/// The very first commit.
pub fn first(commit: &Commit, mirror: &Mirror) -> Result<(), String> {
    commit.next.consistent()?;
    let change = commit.change.as_ref().ok_or("a first commit without a primary")?;
    let empty = mirror.cluster.is_none() && mirror.highest_epoch.is_none() && mirror.primary.is_none();
    if !empty || change.key.epoch != Epoch(1) || commit.next.epoch() != Epoch(1) {
        return Err("an initialisation over an existing cluster".into());
    }
    names(commit, change)
}

/// Whether a commit may follow `prev`.
pub fn allowed(commit: &Commit, prev: &ClusterData, mirror: &Mirror, seen: &Observations) -> Result<(), String> {
    let next = &commit.next;
    next.consistent()?;
    if next.cluster.uid != prev.cluster.uid {
        return Err("the cluster's uid changed".into());
    }
    if !next.cluster.status.history.starts_with(&prev.cluster.status.history) {
        return Err("recorded lineage was lost".into());
    }
    match &commit.change {
        Some(change) => elected(commit, change, prev, mirror, seen),
        None => kept(commit, prev),
    }
}

/// A commit that changes no primary.
fn kept(commit: &Commit, prev: &ClusterData) -> Result<(), String> {
    let (before, after) = (&prev.cluster.status, &commit.next.cluster.status);
    if before.epoch != after.epoch || before.master != after.master {
        return Err("the primary changed without its key".into());
    }
    match (&before.fencing, &after.fencing) {
        (Some(_), None) => return Err("the mark went without an election".into()),
        (Some(old), Some(new))
            if new.stage < old.stage || new.reason != old.reason || new.planned != old.planned || new.to != old.to =>
        {
            return Err("the mark changed".into());
        }
        (Some(_), Some(_)) if commit.next.dbs != prev.dbs || commit.next.keepers != prev.keepers => {
            return Err("members changed under a mark".into());
        }
        _ => {}
    }
    listed(commit, prev)?;
    for (uid, db) in &commit.next.dbs {
        if let Some(old) = prev.dbs.get(uid)
            && (old.spec != db.spec) != (old.generation != db.generation)
        {
            return Err(format!("generation and specification of db {uid} do not change together"));
        }
    }
    Ok(())
}

/// R18, once more: who becomes electable was named before, and who is electable is named.
fn listed(commit: &Commit, prev: &ClusterData) -> Result<(), String> {
    let (Some((uid, before)), Some((_, after))) = (prev.primary(), commit.next.primary()) else { return Ok(()) };
    let named = |db: &Db, uid: &DbUid| db.spec.synchronous_standbys.iter().flatten().any(|name| name == uid);
    for standby in after.status.synchronous_standbys.iter().flatten() {
        if !named(before, standby) || !named(after, standby) {
            return Err(format!("db {standby} would be electable, and commits of db {uid} need not wait for it (R18)"));
        }
    }
    if before.spec.synchronous_replication && !after.spec.synchronous_replication && !unlisted(before) {
        return Err("synchronous replication would end while somebody is electable (R18)".into());
    }
    Ok(())
}

fn unlisted(db: &Db) -> bool {
    db.spec.synchronous_standbys.iter().flatten().next().is_none()
}

/// R2, once more.
fn elected(
    commit: &Commit,
    change: &PrimaryChange,
    prev: &ClusterData,
    mirror: &Mirror,
    seen: &Observations,
) -> Result<(), String> {
    names(commit, change)?;
    let mark = prev.fencing().ok_or("an election without a mark")?;
    if change.key.epoch != mark.epoch.next() || commit.next.fencing().is_some() {
        return Err("an election must end the marked epoch and begin the next".into());
    }
    if !matches!(commit.step, Step::Elect { .. }) {
        return Err("a change of primary under another name".into());
    }
    let lease = mirror.keepers.get(&change.key.keeper).map(|keeper| keeper.lease);
    if lease != Some(change.lease) {
        return Err("the winner's lease is not that of its registration".into());
    }
    let holder = mirror.primary.as_ref().map_or(Holder::Absent, |held| Holder::Fenced(held.modified));
    if change.holder != holder {
        return Err("the primary key is not what the proof is about".into());
    }
    in_sync(change, prev)?;
    proven(change, prev, mirror, seen)?;
    for uid in mirror.proxies.keys() {
        if acknowledged(uid, mirror, seen) < mark.epoch {
            return Err(format!("proxy {uid} is registered and has not acknowledged (R7)"));
        }
    }
    consented(commit, change, prev, mirror, seen)
}

fn proven(change: &PrimaryChange, prev: &ClusterData, mirror: &Mirror, seen: &Observations) -> Result<(), String> {
    let epoch = prev.epoch();
    match change.proof {
        Proof::First => Err("there was a primary before".into()),
        Proof::KeyGone => match change.holder {
            Holder::Absent => Ok(()),
            Holder::Fenced(_) => Err("the primary key is not gone".into()),
        },
        Proof::Promised => {
            let keeper = prev.primary().map(|(_, db)| &db.spec.keeper_uid).ok_or("no old primary")?;
            if promised(keeper, mirror, seen) < epoch {
                return Err(format!("keeper {keeper} has not promised"));
            }
            Ok(())
        }
        // The winner is in sync (`in_sync`), and its promise is looked at below.
        Proof::ListBlocked => match prev.primary() {
            Some((uid, db)) if db.spec.synchronous_replication && *uid != change.key.db => Ok(()),
            _ => Err("no synchronous list is blocked".into()),
        },
        Proof::ProxiesFenced => {
            let strict = prev.cluster.spec.strict_fencing.unwrap_or(false);
            let lapsed = prev.proxy.spec.enabled_proxies.iter().any(|uid| acknowledged(uid, mirror, seen) < epoch);
            let synchronous = prev.primary().is_some_and(|(_, db)| db.spec.synchronous_replication);
            if strict || lapsed || synchronous {
                return Err("the proxies' acknowledgements are no proof here (R2 iv)".into());
            }
            Ok(())
        }
    }
}

/// R9: after a synchronous primary comes that primary again, or who was named and seen in sync.
fn in_sync(change: &PrimaryChange, prev: &ClusterData) -> Result<(), String> {
    let Some((uid, master)) = prev.primary().filter(|(_, db)| db.spec.synchronous_replication) else { return Ok(()) };
    let among = |list: &Option<Vec<DbUid>>| list.iter().flatten().any(|name| *name == change.key.db);
    if *uid == change.key.db || among(&master.spec.synchronous_standbys) && among(&master.status.synchronous_standbys) {
        return Ok(());
    }
    Err(format!("db {} was not in sync with the synchronous primary (R9)", change.key.db))
}

/// R2: the winner consented to this epoch; a keeper with a new, empty database needs no consent.
fn consented(
    commit: &Commit,
    change: &PrimaryChange,
    prev: &ClusterData,
    mirror: &Mirror,
    seen: &Observations,
) -> Result<(), String> {
    if !prev.dbs.contains_key(&change.key.db) {
        return match prev.cluster.status.phase {
            Phase::Initializing if prev.cluster.status.history.is_empty() => Ok(()),
            _ => Err("the winner's db is new to a cluster that has data".into()),
        };
    }
    if promised(&change.key.keeper, mirror, seen) < prev.epoch() {
        return Err(format!("keeper {} has not consented to epoch {}", change.key.keeper, commit.next.epoch()));
    }
    Ok(())
}

fn names(commit: &Commit, change: &PrimaryChange) -> Result<(), String> {
    let status = &commit.next.cluster.status;
    let keeper = commit.next.primary().map(|(_, db)| &db.spec.keeper_uid);
    let same = status.master.as_ref() == Some(&change.key.db) && keeper == Some(&change.key.keeper);
    if !same || status.epoch != change.key.epoch || status.extra.contains_key(REVOKED) {
        return Err("cluster data and `primary` key name different primaries".into());
    }
    Ok(())
}

fn promised(keeper: &stolon::model::KeeperUid, mirror: &Mirror, seen: &Observations) -> Epoch {
    let told = seen.keepers.get(keeper).and_then(|peer| peer.report.as_ref()).map_or(Epoch::NONE, |r| r.0.promised);
    told.max(mirror.keepers.get(keeper).map_or(Epoch::NONE, |registered| registered.info.promised))
}

fn acknowledged(proxy: &stolon::model::ProxyUid, mirror: &Mirror, seen: &Observations) -> Epoch {
    let told = seen.fenced.get(proxy).copied().unwrap_or_default();
    told.max(mirror.proxies.get(proxy).map_or(Epoch::NONE, |registered| registered.info.fenced_epoch))
}
