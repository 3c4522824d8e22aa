//! The store against a real etcd: registrations live and end as they should, transactions compare what they say, the
//! mirror misses nothing when members come and go, and a store that is not the one that was known is refused.

use std::time::Duration;

use clap::Parser;
use stolon::{
    cli::StoreArgs,
    model::{KeeperUid, LeaseId, Revision, SentinelUid},
    store::{Begin, LeaseState, Outcome, Registration, Store, StoreError, Txn},
    task::{Shutdown, Tasks, clock},
};
use stolon_tests::{Test, Weight, etcd::Etcd, etcd::Place, eventually, run};

const WAIT: Duration = Duration::from_secs(20);
const TTL: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    store: StoreArgs,
}

fn store(etcd: &Etcd) -> Store {
    let line = ["x", "--cluster-name", "c", "--store-endpoints", &etcd.endpoints()].map(str::to_owned);
    Store::new(&Line::parse_from(line).store).unwrap()
}

/// A store with its watch, and the tasks that end with the test.
struct Watched {
    store: Store,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Watched {
    fn new(etcd: &Etcd) -> Watched {
        let (store, shutdown, mut tasks) = (store(etcd), Shutdown::new(), Tasks::new());
        tasks.spawn("watch", store.clone().watch(shutdown.clone()));
        Watched { store, tasks, shutdown }
    }

    fn register(&mut self, uid: &str, value: &str, begin: Begin) -> Registration {
        let key = self.store.keys().keeper(&KeeperUid::parse(uid).unwrap());
        let registration = Registration::new(&self.store, key, |_| TTL, keeper(uid, value), begin);
        self.tasks.spawn("registration", registration.clone().run(self.shutdown.clone()));
        registration
    }

    async fn seen(&self, what: &str, look: impl Fn(&stolon::store::Mirror) -> bool) {
        let mut mirror = self.store.mirror();
        let there = mirror.wait_for(|seen| seen.as_ref().is_some_and(|seen| look(seen)));
        let seen = tokio::time::timeout(WAIT, there).await;
        assert!(seen.is_ok(), "waited for: {what}");
    }
}

fn keeper(uid: &str, boot: &str) -> Vec<u8> {
    let info = serde_json::json!({"infoUID": "x", "uid": uid, "bootUUID": boot,
        "postgresBinaryVersion": {"Maj": 15, "Min": 1}});
    serde_json::to_vec(&info).unwrap()
}

async fn held(registration: &Registration) -> LeaseState {
    let mut lease = registration.lease();
    let state = tokio::time::timeout(WAIT, lease.wait_for(Option::is_some)).await.expect("registered in time").unwrap();
    state.clone().unwrap()
}

fn k0() -> KeeperUid {
    KeeperUid::parse("k0").unwrap()
}

fn boot(mirror: &stolon::store::Mirror) -> Option<&str> {
    mirror.keepers.get(&k0()).map(|keeper| keeper.info.boot_uuid.as_str())
}

#[test]
fn a_registration_lives_is_rewritten_put_back_and_given_up() {
    run("store-registration", Weight::Light, async |test: Test| {
        let etcd = Etcd::start(&test, 1).await;
        let mut one = Watched::new(&etcd);
        let registration = one.register("k0", "first", Begin::Anew);
        let first = held(&registration).await;
        one.seen("the registration", |m| m.keepers.get(&k0()).is_some_and(|k| k.lease == first.id)).await;
        registration.set(keeper("k0", "second"));
        one.seen("the new value", |m| boot(m) == Some("second")).await;

        // Longer than the lease: it is kept alive, and its deadline moves.
        tokio::time::sleep(TTL + Duration::from_secs(2)).await;
        let later = held(&registration).await;
        assert!(later.id == first.id && later.deadline > first.deadline + Duration::from_secs(5));
        assert!(later.deadline > clock::now() && later.deadline < clock::now() + TTL);

        etcd.delete(&one.store.keys().keeper(&k0()), false).await;
        one.seen("it is put back on the same lease", |m| {
            m.keepers.get(&k0()).is_some_and(|k| k.lease == first.id && k.created > first.registered_at)
        })
        .await;
        eventually("and counts from then", WAIT, async || {
            let at = registration.lease().borrow().as_ref().map(|lease| lease.registered_at);
            if at > Some(first.registered_at) { Ok(()) } else { Err(format!("{at:?}")) }
        })
        .await;

        registration.end().await.unwrap();
        one.seen("it is gone at once", |m| m.keepers.is_empty()).await;
        assert_eq!(*registration.lease().borrow(), None);
        assert_eq!(one.store.granted_ttl(first.id).await, Ok(None), "its lease is revoked");
    });
}

#[test]
fn an_id_is_registered_once_and_a_living_lease_can_be_taken_over() {
    run("store-one-id", Weight::Light, async |test: Test| {
        let etcd = Etcd::start(&test, 1).await;
        let (mut one, mut two) = (Watched::new(&etcd), Watched::new(&etcd));
        let first = held(&one.register("k0", "one", Begin::Anew)).await;
        let second = two.register("k0", "two", Begin::Anew);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(*second.lease().borrow(), None, "the id is taken");

        // The first process dies; its lease is taken over by whoever knows it.
        one.shutdown.trigger();
        let mut heir = Watched::new(&etcd);
        let adopted = held(&heir.register("k0", "heir", Begin::Adopt(first.id))).await;
        assert_eq!(adopted.id, first.id);
        heir.seen("the heir's value", |m| boot(m) == Some("heir")).await;
        tokio::time::sleep(TTL).await;
        assert_eq!(*second.lease().borrow(), None, "the lease was kept alive");

        // It dies too, and nobody inherits: the lease runs out, and the waiting one gets in.
        heir.shutdown.trigger();
        let late = held(&second).await;
        assert_ne!(late.id, first.id);
        let mut again = Watched::new(&etcd);
        let key = again.store.keys().sentinel(&SentinelUid::parse("s").unwrap());
        let gone = Registration::new(&again.store, key, |_| TTL, b"{}".to_vec(), Begin::Adopt(first.id));
        again.tasks.spawn("registration", gone.clone().run(again.shutdown.clone()));
        assert_ne!(held(&gone).await.id, first.id, "a lease that is gone is not adopted");
    });
}

#[test]
fn transactions_compare_and_leases_of_others_prove_nothing() {
    run("store-txn", Weight::Light, async |test: Test| {
        let etcd = Etcd::start(&test, 1).await;
        let mut one = Watched::new(&etcd);
        let lease = held(&one.register("k0", "x", Begin::Anew)).await;
        let (store, keys) = (&one.store, one.store.keys().clone());
        let create = Txn::new().when_created(keys.epoch(), Revision(0)).put(keys.epoch(), "1");
        let Outcome::Done(revision) = store.transact(&create).await.unwrap() else { panic!("created") };
        assert_eq!(store.transact(&create).await, Ok(Outcome::Conflict));
        let raise = Txn::new().when_revision(keys.epoch(), revision).put(keys.epoch(), "2");
        assert!(matches!(store.transact(&raise).await, Ok(Outcome::Done(_))));
        assert_eq!(store.transact(&raise).await, Ok(Outcome::Conflict));
        let foreign = Txn::new().when_lease(keys.keeper(&k0()), LeaseId(7)).delete(keys.epoch());
        assert_eq!(store.transact(&foreign).await, Ok(Outcome::Conflict));
        let own = Txn::new().when_lease(keys.keeper(&k0()), lease.id).put_on(lease.id, keys.ready(), "{}");
        assert!(matches!(store.transact(&own).await, Ok(Outcome::Done(_))));
        let read = store.read().await.unwrap();
        assert_eq!(read.highest_epoch.map(|(epoch, _)| epoch.0), Some(2));
        assert!(read.malformed.contains_key(&keys.ready()), "a value that can't be read is named: {read:?}");
        store.revoke(lease.id).await.unwrap();
        store.revoke(lease.id).await.unwrap();
        assert!(!store.read().await.unwrap().malformed.contains_key(&keys.ready()), "it went with the lease");
    });
}

#[test]
fn the_mirror_misses_nothing_while_members_freeze_and_die() {
    run("store-members", Weight::Cluster, async |test: Test| {
        let mut etcd = Etcd::start(&test, 3).await;
        let mut one = Watched::new(&etcd);
        let registration = one.register("k0", "0", Begin::Anew);
        let lease = held(&registration).await.id;
        let mut count = 0;
        for member in 0..3 {
            for freeze in [true, false] {
                if freeze {
                    etcd.freeze(member)
                } else {
                    etcd.kill_member(member)
                }
                for _ in 0..4 {
                    count += 1;
                    registration.set(keeper("k0", &count.to_string()));
                    one.seen("each value", |m| boot(m) == Some(count.to_string().as_str())).await;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                if freeze {
                    etcd.thaw(member)
                } else {
                    etcd.start_member(member)
                }
                eventually("etcd has a leader", WAIT, async || etcd.leader().await).await;
            }
        }
        let state = registration.lease().borrow().clone().expect("registered");
        assert!(state.id == lease && state.deadline > clock::now(), "the same lease, and in time: {state:?}");
    });
}

#[test]
fn the_watch_leaves_a_frozen_member_as_soon_as_a_call_has_found_it_out() {
    run("store-watch-moves", Weight::Light, async |test: Test| {
        let mut etcd = Etcd::start(&test, 3).await;
        // A frozen leader would hold etcd itself up: one that follows comes first.
        let leader = eventually("etcd has a leader", WAIT, async || etcd.leader().await).await;
        etcd.members.rotate_left((leader + 1) % 3);
        let one = Watched::new(&etcd);
        let (store, key) = (&one.store, one.store.keys().epoch());
        let epoch = |wanted| move |m: &stolon::store::Mirror| m.highest_epoch.is_some_and(|(now, _)| now.0 == wanted);
        one.seen("a first reading", |_| true).await;
        store.transact(&Txn::new().put(key.as_str(), "1")).await.unwrap();
        one.seen("what was written, by the watch", epoch(1)).await;
        etcd.freeze(0);
        let frozen = clock::now();
        assert!(matches!(store.transact(&Txn::new().put(key.as_str(), "2")).await, Ok(Outcome::Done(_))));
        one.seen("what was written elsewhere, by a watch elsewhere", epoch(2)).await;
        let took = clock::now().since(frozen);
        etcd.thaw(0);
        // By itself the watch would not have asked its member for a sign of life before 2 s.
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn another_etcd_in_the_place_of_the_known_one_is_refused() {
    run("store-replaced", Weight::Light, async |test: Test| {
        let place = || Place { host: "127.0.0.1".into(), client_port: 0, peer_port: 0, namespace: None, holder: None };
        let (client_port, peer_port) = (stolon_tests::ports::free_port(), stolon_tests::ports::free_port());
        let mut etcd = Etcd::start_at(&test, vec![Place { client_port, peer_port, ..place() }]).await;
        let mut one = Watched::new(&etcd);
        held(&one.register("k0", "x", Begin::Anew)).await;
        one.seen("the registration", |mirror| mirror.keepers.len() == 1).await;
        etcd.kill_member(0);
        std::fs::remove_dir_all(test.folder().join("etcd0.data")).unwrap();
        etcd.start_member(0);
        eventually("the emptied etcd answers", WAIT, async || etcd.revision().await).await;
        let refused = eventually("the store refuses it", WAIT, async || match one.store.read().await {
            Err(StoreError::Refused(problem)) => Ok(problem),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(refused.contains("restart this program"), "{refused}");
        assert!(
            one.store.status(None).error.contains("went back") || one.store.status(None).error.contains("another etcd")
        );
    });
}
