//! The first database of a cluster. Auto-initialisation happens only over an empty store and empty data directories:
//! an emptied etcd must never lead to initdb over living data.

use stolon::model::{
    ClusterData, ClusterUid, DbUid, Epoch, Generation, KeeperUid, Revision,
    cluster::{Cluster, ClusterStatus, Db, DbInitMode, DbRole, FORMAT_VERSION, Fencing, Phase, Proxies},
    registration::{KeeperInfo, PrimaryKey},
    spec::{Init, Spec, StoredSpec},
};
use stolon::store::Registered;

use super::{
    Action, Case, Commit, Decision, Holder, PrimaryChange, Proof, Step, World, check, choose::Winner, elect, fence,
    specs, status, suspect::Suspicion,
};
use crate::observe::Timer;

/// Absent cluster data: creates them, with the first primary, or says what is missing.
pub fn create(world: &World<'_>, plan: &mut Decision, fresh: &mut dyn FnMut() -> String) {
    let mirror = world.mirror;
    if let Some((epoch, _)) = mirror.highest_epoch {
        plan.because(format!(
            "cluster data are absent, but key `epoch` says that there were primaries up to epoch {epoch}: nothing is \
             initialised. Restore the cluster data, or remove key `epoch` if that cluster is gone for good"
        ));
        return;
    }
    let stored = world.initial.cloned().unwrap_or_else(StoredSpec::automatic);
    let spec = match stored.resolve() {
        Ok(spec) => spec,
        Err(bad) => return plan.because(format!("{bad} (--initial-cluster-spec); nothing is initialised")),
    };
    let keeper = match first_keeper(world, &spec.init) {
        Ok(keeper) => keeper,
        Err(reason) => return plan.because(reason),
    };
    let (Ok(cluster), Ok(db)) = (ClusterUid::parse(fresh()), DbUid::parse(fresh())) else { return };
    plan.because(format!("keeper {} initialises the cluster", keeper.info.uid));
    let next = first_data(&stored, &spec, cluster, &db, &keeper.info);
    let change = PrimaryChange {
        key: PrimaryKey { keeper: keeper.info.uid.clone(), db, epoch: Epoch(1), traceparent: String::new() },
        lease: keeper.lease,
        registered: keeper.created,
        holder: Holder::Absent,
        epoch_at: Revision(0),
        proof: Proof::First,
    };
    let commit = Commit { step: Step::Initialise, next, from: Revision(0), change: Some(change) };
    match check::first(&commit, mirror) {
        Ok(()) => plan.actions.push(Action::Commit(Box::new(commit))),
        Err(problem) => plan.because(format!("refused by the own check: {problem}")),
    }
}

/// Which keeper begins: for a new database the one that registered first.
fn first_keeper<'a>(world: &World<'a>, init: &Init) -> Result<&'a Registered<KeeperInfo>, String> {
    let keepers = &world.mirror.keepers;
    if let Some(held) = &world.mirror.primary {
        return Err(format!("cluster data are absent, but keeper {} still holds key `primary`", held.value.keeper));
    }
    match init {
        Init::Existing(uid) => match keepers.get(uid) {
            None => Err(format!("waiting for keeper {uid}, whose database is to become the cluster's")),
            Some(keeper) if keeper.info.data.is_none() => {
                Err(format!("keeper {uid} is to bring an existing database, but its data directory holds none"))
            }
            Some(keeper) => Ok(keeper),
        },
        Init::New(_) => {
            let holding: Vec<String> =
                keepers.values().filter(|k| k.info.data.is_some()).map(|k| k.info.uid.to_string()).collect();
            if !holding.is_empty() {
                return Err(format!(
                    "nothing is initialised: the data directories of keepers {} hold databases. To use one, start a \
                     sentinel with --initial-cluster-spec holding {{\"initMode\":\"existing\",\"existingConfig\":\
                     {{\"keeperUID\":\"{}\"}}}}; else stop these keepers and move their data directories away",
                    holding.join(", "),
                    holding[0]
                ));
            }
            let fit =
                keepers.values().filter(|k| k.info.can_be_master && !k.info.leaving && k.info.cluster_uid.is_none());
            fit.min_by_key(|keeper| keeper.created)
                .ok_or_else(|| "cannot choose initial primary: no keeper that may be one is registered".to_owned())
        }
    }
}

fn first_data(stored: &StoredSpec, spec: &Spec, cluster: ClusterUid, db: &DbUid, info: &KeeperInfo) -> ClusterData {
    let mut keeper = status::new_keeper(&info.uid);
    status::describe(&mut keeper, info);
    keeper.status.healthy = true;
    let object = first_db(stored, spec, db, &info.uid);
    ClusterData {
        format_version: FORMAT_VERSION,
        change_time: String::new(),
        cluster: Cluster {
            uid: cluster,
            generation: Generation(1),
            change_time: String::new(),
            spec: stored.clone(),
            status: ClusterStatus {
                current_generation: Generation(0),
                phase: Phase::Initializing,
                master: Some(db.clone()),
                epoch: Epoch(1),
                fencing: None,
                handover: None,
                history: Vec::new(),
                extra: Default::default(),
            },
            extra: Default::default(),
        },
        keepers: [(info.uid.clone(), keeper)].into(),
        dbs: [(db.clone(), object)].into(),
        proxy: Proxies { generation: Generation(1), ..Proxies::default() },
        extra: Default::default(),
    }
}

fn first_db(stored: &StoredSpec, spec: &Spec, db: &DbUid, keeper: &KeeperUid) -> Db {
    let mode = if matches!(spec.init, Init::New(_)) { DbInitMode::New } else { DbInitMode::Existing };
    let mut object = specs::new_db(spec, stored, db.clone(), keeper, mode, DbRole::Master);
    object.spec.include_config = spec.merge_parameters;
    if let Init::New(config) = &spec.init {
        object.spec.new_config = Some(config.clone());
    }
    object
}

/// Phase `initializing`: once the first primary serves, its parameters are merged and normal life begins.
pub fn finish(case: &Case<'_>, next: &mut ClusterData, plan: &mut Decision) {
    let Some((uid, db)) = case.master() else { return };
    let facts = case.keeper(&db.spec.keeper_uid);
    if !facts.failure().is_empty() {
        plan.because(format!("keeper {} can't initialise: {}", db.spec.keeper_uid, facts.failure()));
    }
    let Some(since) = case.since(Timer::Ready(case.epoch())) else {
        plan.because(format!("waiting for keeper {} to initialise the cluster", db.spec.keeper_uid));
        return;
    };
    if db.spec.include_config {
        let told = facts.report().map(|report| &report.postgres.parameters).filter(|told| !told.is_empty());
        let written =
            facts.info().and_then(|info| info.postgres_state.as_ref()).map(|postgres| &postgres.pg_parameters);
        match told.or(written.filter(|written| !written.is_empty())) {
            Some(parameters) => merge(next, parameters),
            None if !plan.waited(case.now, since, case.spec.convergence_timeout) => {
                plan.because("waiting for the parameters of the new server (mergePgParameters)");
                return;
            }
            None => {}
        }
    }
    if let Some(object) = next.dbs.get_mut(uid) {
        object.spec.init_mode = DbInitMode::None;
        object.spec.include_config = false;
        object.spec.new_config = None;
    }
    next.cluster.status.phase = Phase::Normal;
}

/// What the specification says already wins.
fn merge(next: &mut ClusterData, parameters: &std::collections::BTreeMap<String, String>) {
    let merged = next.cluster.spec.pg_parameters.get_or_insert_default();
    for (name, value) in parameters {
        merged.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let merged = merged.clone();
    for db in next.dbs.values_mut() {
        db.spec.pg_parameters.clone_from(&merged);
    }
}

/// Marks a first primary that does not come up, when another keeper could begin anew and nothing was ever served.
pub fn mark(case: &Case<'_>, suspicion: &Suspicion, plan: &mut Decision) -> bool {
    plan.because(suspicion.cause.clone());
    if suspicion.planned {
        return false;
    }
    if let Err(refusal) = may_choose_again(case) {
        plan.because(format!("no other keeper is chosen: {refusal}"));
        return false;
    }
    fence::write_mark(case, suspicion, plan);
    true
}

fn may_choose_again<'a>(case: &Case<'a>) -> Result<&'a KeeperUid, String> {
    let (_, db) = case.master().ok_or("there is no primary")?;
    let first = &db.spec.keeper_uid;
    if !matches!(case.spec.init, Init::New(_)) {
        return Err(format!("keeper {first} is named by the specification (existingConfig)"));
    }
    if case.seen.ready_seen >= case.epoch() || case.mirror.ready.is_some() {
        return Err(format!("keeper {first} may hold written data already"));
    }
    let facts = case.keeper(first);
    let here = facts.registered.is_some();
    if here && facts.info().is_some_and(|info| info.data.is_some()) {
        return Err(format!("the data directory of keeper {first} holds a database already"));
    }
    if !here && case.seen.witnessed < case.epoch() {
        return Err(format!("this sentinel can't know whether keeper {first} has served: bring it back"));
    }
    let others = case.mirror.keepers.iter().filter(|(uid, k)| {
        *uid != first && k.info.can_be_master && !k.info.leaving && k.info.data.is_none() && case.hears(uid)
    });
    others.min_by_key(|(_, keeper)| keeper.created).map(|(uid, _)| uid).ok_or_else(|| "none is free".to_owned())
}

/// Under a mark: the next first primary, with a new db.
pub fn choose_again(
    case: &Case<'_>,
    mark: &Fencing,
    proof: Proof,
    plan: &mut Decision,
    fresh: &mut dyn FnMut() -> String,
) {
    let keeper = match may_choose_again(case) {
        Ok(keeper) => keeper.clone(),
        Err(refusal) => return plan.because(format!("no other keeper is chosen: {refusal}")),
    };
    let Ok(db) = DbUid::parse(fresh()) else { return };
    let winner =
        Winner { db: db.clone(), keeper: keeper.clone(), position: None, why: "begins the cluster anew".to_owned() };
    let Some(change) = elect::change(case, mark, &winner, proof) else { return };
    let mut next = case.data.clone();
    next.keepers.entry(keeper.clone()).or_insert_with(|| status::new_keeper(&keeper));
    next.dbs = [(db.clone(), first_db(&case.data.cluster.spec, &case.spec, &db, &keeper))].into();
    next.cluster.status.master = Some(db.clone());
    next.cluster.status.epoch = change.key.epoch;
    next.cluster.status.fencing = None;
    next.cluster.status.extra.remove(super::REVOKED);
    plan.because(format!("keeper {keeper} begins the cluster anew"));
    plan.commit(case, Step::Elect { db, keeper, why: winner.why }, next, Some(change));
}
