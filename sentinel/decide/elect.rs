//! The transaction that makes a primary (R2): the proof that the old epoch is over, and the cluster data of the next.

use stolon::model::{
    DbUid,
    cluster::{ClusterData, DbInitMode, DbRole, Fencing, FollowConfig, FollowType},
    registration::PrimaryKey,
};

use super::{
    Case, Decision, Holder, PrimaryChange, Proof, REVOKED, Step, choose::Winner, fence, members, next_epoch, specs,
    synchronous,
};

/// R2: what proves the marked epoch fenced; reasons when nothing does yet.
pub fn proof(case: &Case<'_>, mark: &Fencing, winner: Option<&Winner>, plan: &mut Decision) -> Option<Proof> {
    let (_, db) = case.master()?;
    let keeper = &db.spec.keeper_uid;
    if case.mirror.primary.is_none() {
        return Some(Proof::KeyGone);
    }
    if case.keeper(keeper).promised() >= mark.epoch {
        return Some(Proof::Promised);
    }
    if synchronous::in_force(case) {
        if winner.is_some_and(|winner| synchronous::blocks_all_lists(case, mark, winner)) {
            return Some(Proof::ListBlocked);
        }
        plan.because(format!("keeper {keeper} must promise or lose its lease first: its commits are not blocked (R8)"));
        return None;
    }
    let all = case.data.proxy.spec.enabled_proxies.iter().chain(case.mirror.proxies.keys());
    let lapsed: Vec<_> = all.filter(|uid| fence::fenced(case, uid) < mark.epoch).collect();
    if lapsed.is_empty() && !case.spec.strict_fencing {
        return Some(Proof::ProxiesFenced);
    }
    plan.because(match lapsed.first() {
        Some(uid) => {
            format!("proxy {uid} went without an acknowledgement: keeper {keeper} must promise or lose its lease")
        }
        None => format!("strictFencing: keeper {keeper} must promise or lose its lease first"),
    });
    None
}

pub fn elect(case: &Case<'_>, mark: &Fencing, winner: Winner, proof: Proof, plan: &mut Decision) {
    let next = under(case, mark, &winner);
    let Some(change) = change(case, mark, &winner, proof) else {
        plan.because(format!("keeper {} is no longer registered", winner.keeper));
        return;
    };
    plan.because(format!("db {} on keeper {} wins: {}", winner.db, winner.keeper, winner.why));
    let step = Step::Elect { db: winner.db, keeper: winner.keeper, why: winner.why };
    plan.commit(case, step, next, Some(change));
}

pub fn change(case: &Case<'_>, mark: &Fencing, winner: &Winner, proof: Proof) -> Option<PrimaryChange> {
    let registered = case.mirror.keepers.get(&winner.keeper)?;
    Some(PrimaryChange {
        key: PrimaryKey {
            keeper: winner.keeper.clone(),
            db: winner.db.clone(),
            epoch: next_epoch(mark),
            traceparent: String::new(),
        },
        lease: registered.lease,
        registered: registered.created,
        holder: case.mirror.primary.as_ref().map_or(Holder::Absent, |held| Holder::Fenced(held.modified)),
        epoch_at: case.mirror.highest_epoch.map_or(Default::default(), |(_, revision)| revision),
        proof,
    })
}

/// The cluster data of the next epoch. The old primary's db keeps its role, without followers, until the winner
/// serves; all others follow the winner.
fn under(case: &Case<'_>, mark: &Fencing, winner: &Winner) -> ClusterData {
    let mut next = case.data.clone();
    members::lineage(case, &mut next);
    let followers: Vec<DbUid> = case
        .data
        .dbs
        .iter()
        .filter(|(uid, db)| **uid != winner.db && db.spec.role == DbRole::Standby)
        .map(|(uid, _)| uid.clone())
        .collect();
    for (uid, db) in &mut next.dbs {
        if *uid == winner.db {
            db.spec.role = DbRole::Master;
            db.spec.follow_config = None;
            db.spec.init_mode = DbInitMode::None;
            db.spec.followers = followers.clone();
            if let Some(position) = winner.position {
                db.status.xlog_pos = position.lsn;
                db.status.timeline_id = position.timeline;
            }
        } else if db.spec.role == DbRole::Master {
            db.spec.followers.clear();
        } else {
            db.spec.follow_config = Some(follow(&winner.db));
        }
    }
    synchronous::first_list(case, winner, &mut next);
    if let Some(db) = next.dbs.get_mut(&winner.db).filter(|db| db.status.system_id.is_empty()) {
        db.status.system_id = case.system_id().to_string();
    }
    let status = &mut next.cluster.status;
    status.master = Some(winner.db.clone());
    status.epoch = next_epoch(mark);
    status.fencing = None;
    status.handover = None;
    status.extra.remove(REVOKED);
    next.proxy.spec.master_db_uid = None;
    next.proxy.generation = next.proxy.generation.next();
    specs::bump(case.data, &mut next);
    next
}

pub fn follow(db: &DbUid) -> FollowConfig {
    FollowConfig {
        kind: FollowType::Internal,
        dbuid: Some(db.clone()),
        standby_settings: None,
        archive_recovery_settings: None,
        extra: Default::default(),
    }
}
