//! The streams of a keeper to small sentinels.

use std::{collections::BTreeMap, time::Instant};

use tokio::sync::watch;

use super::*;
use crate::{
    model::{
        ClusterData, ClusterName, KeeperUid, LeaseId, Revision, SentinelUid, registration::SentinelInfo,
        report::ProbeResult, view::KeeperView,
    },
    rpc::{FromSentinel, KeeperTalk, Reports, Streams, Urge},
    store::{Mirror, Registered},
    wire::{Down, Identity, Probe},
};

struct Keeper {
    mirror: watch::Sender<Option<Arc<Mirror>>>,
    identity: watch::Sender<Identity>,
    revision: watch::Sender<i64>,
    urge: Urge,
    events: mpsc::Receiver<FromSentinel<KeeperView>>,
    streams: Streams<KeeperTalk>,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), String>>,
}

/// Registered one after another, in this order.
fn mirror(sentinels: &[(&str, &str)]) -> Option<Arc<Mirror>> {
    let registered = sentinels.iter().zip(5..).map(|((uid, address), at)| {
        let uid = SentinelUid::parse(*uid).unwrap();
        let info = SentinelInfo { uid: uid.clone(), grpc_address: (*address).into(), extra: BTreeMap::new() };
        (uid, Registered { info, lease: LeaseId(1), created: Revision(at), modified: Revision(at) })
    });
    Some(Arc::new(Mirror { sentinels: registered.collect(), ..Mirror::default() }))
}

impl Keeper {
    fn start(sentinels: &[(&str, &str)]) -> Keeper {
        let identity = Identity {
            cluster_name: ClusterName::parse("c").unwrap(),
            cluster_uid: None,
            uid: "keeper0".into(),
            lease: LeaseId(7),
        };
        let (revision, of_report) = watch::channel(1);
        let (reports, urge) = Reports::new(move || {
            let view_revision = Revision(*of_report.borrow());
            KeeperReport { view_revision, ..KeeperReport::default() }
        });
        let (mirror, mirrored) = watch::channel(mirror(sentinels));
        let (identity, identified) = watch::channel(identity);
        let (sender, events) = mpsc::channel(1);
        let dialer = Dialer::new(&loopback()).unwrap();
        let streams = Streams::<KeeperTalk>::new(dialer, mirrored, identified, reports, sender);
        let shutdown = Shutdown::new();
        let task = tokio::spawn(streams.clone().run(shutdown.clone()));
        Keeper { mirror, identity, revision, urge, events, streams, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        soon("the streams end", self.task).await.unwrap().unwrap();
    }

    async fn until(&self, what: &str, good: impl Fn(&[v1::StreamStatus]) -> bool) -> Vec<v1::StreamStatus> {
        soon(what, async {
            loop {
                let status = self.streams.status();
                if good(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

fn revision_of(message: &(Up<KeeperReport>, String)) -> Option<i64> {
    match &message.0 {
        Up::Report(report) => Some(report.view_revision.0),
        _ => None,
    }
}

fn view(revision: i64) -> v1::KeeperStreamResponse {
    let data = ClusterData::parse(include_bytes!("../../model/testdata/clusterdata.json")).unwrap();
    let view = KeeperView::derive(&data, Revision(revision), &KeeperUid::parse("keeper0").unwrap()).unwrap();
    v1::KeeperStreamResponse::from((&Down::View(view), "00-a-b-01"))
}

#[tokio::test]
async fn hello_comes_first_then_heartbeats_and_a_change_at_once() {
    let mut sentinel = Serving::start(&loopback(), 0);
    let keeper = Keeper::start(&[("s0", &sentinel.address)]);
    let (first, _) = sentinel.hear().await;
    assert!(matches!(&first, Up::Hello(identity) if identity.uid == "keeper0" && identity.lease == LeaseId(7)));
    assert_eq!(revision_of(&sentinel.hear().await), Some(1));
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(revision_of(&sentinel.hear().await), Some(1), "only heartbeats while nothing changes");
    }
    assert!((400..900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    // Right after a heartbeat the next is 100 ms off; the change doesn't wait for it.
    let mut fastest = Duration::MAX;
    for revision in 2..6 {
        sentinel.hear().await;
        let asked = Instant::now();
        keeper.revision.send_replace(revision);
        keeper.urge.now("00-cause-01".into());
        let message = sentinel.hear().await;
        assert_eq!((revision_of(&message), message.1.as_str()), (Some(revision), "00-cause-01"));
        fastest = fastest.min(asked.elapsed());
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    assert_eq!(sentinel.hear().await.1, "", "the cause is told once");
    keeper.stop().await;
    sentinel.stop().await;
}

#[tokio::test]
async fn every_registered_sentinel_gets_a_stream_and_none_that_is_gone() {
    let (mut one, mut two) = (Serving::start(&loopback(), 0), Serving::start(&loopback(), 0));
    let keeper = Keeper::start(&[("s0", &one.address), ("s2", "")]);
    assert!(matches!(one.hear().await.0, Up::Hello(_)));
    let status = keeper.until("s0 is up", |all| all.len() == 2 && all[0].connected).await;
    assert!(status[1].error.contains("no gRPC address"), "{status:?}");
    keeper.mirror.send_replace(mirror(&[("s0", &one.address), ("s1", &two.address)]));
    assert!(matches!(two.hear().await.0, Up::Hello(_)));
    keeper.until("both are up", |all| all.len() == 2 && all.iter().all(|line| line.connected)).await;
    keeper.mirror.send_replace(mirror(&[("s1", &two.address)]));
    keeper.until("s0 is gone", |all| all.len() == 1 && all[0].peer == "s1").await;
    let peers = one.peers.clone();
    soon("s0 sees the end", async {
        while !peers.status().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    keeper.stop().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn of_two_sentinels_at_one_address_the_newer_gets_the_stream() {
    let sentinel = Serving::start(&loopback(), 0);
    let keeper = Keeper::start(&[("old", &sentinel.address), ("new", &sentinel.address), ("x", ""), ("y", "")]);
    let status = keeper.until("the stream is up", |all| all.iter().any(|line| line.connected)).await;
    let peers: Vec<_> = status.iter().map(|line| line.peer.as_str()).collect();
    assert_eq!(peers, ["new", "x", "y"], "an address that is missing is not one and the same");
    keeper.stop().await;
    sentinel.stop().await;
}

#[tokio::test]
async fn a_restarted_sentinel_is_found_again_and_a_new_hello_opens_anew() {
    let mut sentinel = Serving::start(&loopback(), 0);
    let (port, address) = (sentinel.port, sentinel.address.clone());
    let keeper = Keeper::start(&[("s0", &address)]);
    assert!(matches!(sentinel.hear().await.0, Up::Hello(_)));
    keeper.identity.send_modify(|identity| identity.lease = LeaseId(8));
    loop {
        if let Up::Hello(identity) = sentinel.hear().await.0 {
            assert_eq!(identity.lease, LeaseId(8));
            break;
        }
    }
    sentinel.stop().await;
    let status = keeper.until("the loss is told", |all| !all[0].connected && all[0].error.contains("refused")).await;
    assert!(!status[0].error.contains('\n') && status[0].error.contains(&port.to_string()), "{status:?}");
    let mut sentinel = Serving::start(&loopback(), port);
    assert!(matches!(sentinel.hear().await.0, Up::Hello(_)));
    assert_eq!(revision_of(&sentinel.hear().await), Some(1));
    keeper.until("it is up again", |all| all[0].connected && all[0].error.is_empty()).await;
    keeper.stop().await;
    sentinel.stop().await;
}

#[tokio::test]
async fn views_come_out_newest_last_and_probes_are_answered_while_the_reader_sleeps() {
    let mut sentinel = Serving::start(&loopback(), 0);
    let mut keeper = Keeper::start(&[("s0", &sentinel.address)]);
    assert!(matches!(sentinel.hear().await.0, Up::Hello(_)));
    keeper.until("it is up", |all| all[0].connected).await;
    for revision in 1..=9 {
        sentinel.say.send(view(revision)).unwrap();
    }
    let probe = Probe { id: 42, host: "127.0.0.1".into(), port: refusing(), deadline: SOON };
    sentinel.say.send(v1::KeeperStreamResponse::from((&Down::<KeeperView>::Probe(probe), ""))).unwrap();
    loop {
        if let Up::Probe { id, result } = sentinel.hear().await.0 {
            assert_eq!((id, result), (42, ProbeResult::Refused));
            break;
        }
    }
    let mut last = FromSentinel {
        sentinel: SentinelUid::parse("s0").unwrap(),
        view: match Down::try_from(view(0)).unwrap() {
            Down::View(view) => view,
            other => panic!("{other:?}"),
        },
        traceparent: String::new(),
    };
    while last.view.revision < Revision(9) {
        let next = soon("a view", keeper.events.recv()).await.unwrap();
        assert!(next.view.revision > last.view.revision && next.traceparent == "00-a-b-01");
        last = next;
    }
    keeper.stop().await;
    sentinel.stop().await;
}

/// A port where nothing listens.
fn refusing() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_sentinel_that_sends_nonsense_loses_the_stream_and_the_reason_is_told() {
    let mut sentinel = Serving::start(&loopback(), 0);
    let mut keeper = Keeper::start(&[("s0", &sentinel.address)]);
    assert!(matches!(sentinel.hear().await.0, Up::Hello(_)));
    keeper.until("it is up", |all| all[0].connected).await;
    let mut nonsense = view(3);
    if let Some(v1::keeper_stream_response::Message::View(view)) = &mut nonsense.message {
        view.cluster_uid = "../x".into();
    }
    sentinel.say.send(nonsense).unwrap();
    keeper.until("the reason is told", |all| all[0].error.contains("cluster_uid")).await;
    loop {
        if matches!(sentinel.hear().await.0, Up::Hello(_)) {
            break;
        }
    }
    assert!(keeper.events.try_recv().is_err(), "nothing of it came out");
    keeper.stop().await;
    sentinel.stop().await;
}

/// Forwards one connection to `address` until it is told to hold its breath: neither bytes nor an end come through then,
/// as with a host that lost its power.
async fn relay(address: String, alive: watch::Receiver<bool>) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = socket.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut near, _)) = socket.accept().await {
            let mut alive = alive.clone();
            let mut far = tokio::net::TcpStream::connect(&address).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = alive.wait_for(|alive| !alive) => held.push((near, far)),
            }
        }
    });
    own
}

#[tokio::test]
async fn a_sentinel_that_falls_silent_is_noticed_in_three_seconds() {
    let mut sentinel = Serving::start(&loopback(), 0);
    let (alive, state) = watch::channel(true);
    let keeper = Keeper::start(&[("s0", &relay(sentinel.address.clone(), state).await)]);
    assert!(matches!(sentinel.hear().await.0, Up::Hello(_)));
    keeper.until("it is up", |all| all[0].connected).await;
    alive.send_replace(false);
    let silent = Instant::now();
    keeper.until("the silence is noticed", |all| !all[0].connected).await;
    assert!((900..4000).contains(&silent.elapsed().as_millis()), "{:?}", silent.elapsed());
    keeper.stop().await;
    sentinel.stop().await;
}
