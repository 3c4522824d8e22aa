//! The loop over a real etcd (which must be in PATH) and real streams: from nothing to a primary, from a dead primary to
//! the next one, by another sentinel, too; and who leads.

mod world;

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{Epoch, KeeperUid, Revision},
    store::{Begin, Mirror, Registration, Store},
    task::{Shutdown, Tasks, clock},
};

use self::world::{Etcd, Fake};
use crate::{election::Election, run::new_uid};

const BOUND: Duration = Duration::from_secs(30);

/// Waits until the mirror is as wanted.
async fn until(store: &Store, what: &str, wanted: impl Fn(&Mirror) -> bool) -> Arc<Mirror> {
    let mut mirror = store.mirror();
    let there = mirror.wait_for(|mirror| mirror.as_ref().is_some_and(|mirror| wanted(mirror)));
    match tokio::time::timeout(BOUND, there).await {
        Ok(found) => found.unwrap().clone().unwrap(),
        Err(_) => panic!("never came true: {what}: {:#?}", store.mirror().borrow()),
    }
}

fn serves(mirror: &Mirror, keeper: &str, epoch: u64) -> bool {
    let held = mirror.primary.as_ref().zip(mirror.ready.as_ref());
    held.is_some_and(|(held, ready)| {
        held.value.keeper.as_str() == keeper && held.value.epoch == Epoch(epoch) && ready.value.epoch == Epoch(epoch)
    })
}

/// Two pretended keepers, the first one primary, the second one following it.
async fn cluster(etcd: &Etcd, tasks: &mut Tasks) -> (Store, Fake, Fake) {
    let store = etcd.store();
    tasks.spawn("watch", store.clone().watch(Shutdown::new()));
    let first = Fake::start(etcd, "k1", tasks);
    until(&store, "k1 serves", |mirror| serves(mirror, "k1", 1)).await;
    let second = Fake::start(etcd, "k2", tasks);
    let standing = |mirror: &Mirror| {
        mirror.data().is_some_and(|(data, _)| data.dbs.len() == 2 && data.dbs.values().all(|db| db.status.healthy))
    };
    until(&store, "k2 follows", standing).await;
    (store, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_forms_and_its_dead_primary_is_replaced() {
    let (etcd, mut tasks) = (Etcd::start(), Tasks::new());
    let sentinel = etcd.sentinel(&mut tasks);
    let (store, first, _second) = cluster(&etcd, &mut tasks).await;
    first.die();
    let mirror = until(&store, "k2 serves", |mirror| serves(mirror, "k2", 2)).await;
    let (data, _) = mirror.data().unwrap();
    let lease = mirror.keepers[&KeeperUid::parse("k2").unwrap()].lease;
    assert_eq!(mirror.primary.as_ref().map(|held| held.lease), Some(lease), "on the winner's lease");
    assert_eq!(mirror.highest_epoch.map(|(epoch, _)| epoch), Some(Epoch(2)));
    assert!(data.fencing().is_none() && !data.change_time.is_empty());
    // Nothing is written once all is done.
    let calm = |mirror: &Mirror| mirror.data().is_some_and(|(data, _)| data.dbs.values().all(|db| db.status.healthy));
    until(&store, "the old primary follows", calm).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let revision = |store: &Store| store.mirror().borrow().as_ref().map_or(Revision(0), |mirror| mirror.revision);
    let before = revision(&store);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(revision(&store), before);
    // The end in good order takes the registration and the key of the election away.
    sentinel.trigger();
    until(&store, "nobody leads", |mirror| mirror.candidates.is_empty() && mirror.sentinels.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sentinel_takes_over_and_finishes_what_it_finds() {
    let (etcd, mut tasks) = (Etcd::start(), Tasks::new());
    let sentinel = etcd.sentinel(&mut tasks);
    let (store, first, _second) = cluster(&etcd, &mut tasks).await;
    let leader = until(&store, "a leader", |mirror| mirror.leader().is_some()).await.leader().unwrap().uid.clone();
    let _other = etcd.sentinel(&mut tasks);
    until(&store, "two candidates", |mirror| mirror.candidates.len() == 2).await;
    sentinel.trigger();
    first.die();
    until(&store, "the other leads", |mirror| mirror.leader().is_some_and(|now| now.uid != leader)).await;
    until(&store, "k2 serves", |mirror| serves(mirror, "k2", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resigns_lets_another_lead_and_stands_again() {
    let (etcd, mut tasks) = (Etcd::start(), Tasks::new());
    let candidate = |tasks: &mut Tasks| {
        let (store, uid, shutdown) = (etcd.store(), new_uid(), Shutdown::new());
        let value = serde_json::json!({ "UID": uid }).to_string().into_bytes();
        let registration = Registration::new(&store, store.keys().sentinel(&uid), |_| BOUND, value, Begin::Anew);
        let election = Election::new(&store, &uid, &registration);
        tasks.spawn("watch", store.clone().watch(shutdown.clone()));
        tasks.spawn("registration", registration.run(shutdown.clone()));
        tasks.spawn("election", election.clone().run(shutdown));
        (store, uid, election)
    };
    let (store, first, election) = candidate(&mut tasks);
    let mirror = until(&store, "the first one leads", |mirror| mirror.candidates.len() == 1).await;
    let term = election.leadership(clock::now(), &mirror).expect("it leads");
    let (_, second, _) = candidate(&mut tasks);
    until(&store, "two candidates", |mirror| mirror.candidates.len() == 2).await;
    election.resign();
    assert_eq!(election.leadership(clock::now(), &mirror), None, "at once");
    until(&store, "the second one leads", |mirror| mirror.leader().is_some_and(|now| now.uid == second)).await;
    let order = [&second, &first];
    let again = |mirror: &Mirror| mirror.candidates.iter().map(|candidate| &candidate.uid).eq(order);
    let mirror = until(&store, "the first one stands again", again).await;
    assert_eq!(election.leadership(clock::now(), &mirror), None);
    // Its key of the election is put back when somebody deletes it.
    let key = mirror.candidates[0].key.clone();
    store.transact(&stolon::store::Txn::new().delete(key.as_str())).await.unwrap();
    let mirror = until(&store, "the first one leads again", |mirror| {
        mirror.candidates.len() == 2 && mirror.leader().is_some_and(|now| now.uid == first)
    })
    .await;
    assert!(!election.leadership(clock::now(), &mirror).expect("it leads").continues(&term), "another term");
}
