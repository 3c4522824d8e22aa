//! Streams over a real socket: who is admitted, what is pushed, who is asked, and what ends a stream.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{ClusterData, KeeperUid, LeaseId, Revision, report::ProbeResult},
    rpc::{Dialer, GrpcArgs, Listener, Services, TlsArgs},
    store::{Mirror, Stored},
    task::{Shutdown, Tasks},
    wire::v1::{
        self, keeper_stream_request::Message as Up, keeper_stream_response::Message as Down,
        sentinel_service_client::SentinelServiceClient, sentinel_service_server::SentinelServiceServer,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{hub::Hub, service::Service};

const DATA: &[u8] = include_bytes!("../src/model/testdata/clusterdata.json");

struct Server {
    hub: Hub,
    address: String,
    _tasks: Tasks,
}

type Answers = Streaming<v1::KeeperStreamResponse>;
type Way = mpsc::Sender<v1::KeeperStreamRequest>;

fn serve() -> Server {
    let args =
        GrpcArgs { grpc_listen_address: "127.0.0.1".into(), grpc_advertise_address: None, tls: TlsArgs::default() };
    let listener = Listener::bind(&args, 0, "--port").unwrap();
    let (hub, address) = (Hub::new(), listener.advertised());
    let service = SentinelServiceServer::new(Service::new(hub.clone(), "c".parse().unwrap()));
    let mut tasks = Tasks::new();
    tasks.spawn("gRPC", listener.serve(Services::new().with(service), Shutdown::new()));
    Server { hub, address, _tasks: tasks }
}

fn data() -> Arc<ClusterData> {
    Arc::new(ClusterData::parse(DATA).unwrap())
}

fn hello(cluster: &str, cluster_uid: &str, uid: &str, lease: i64) -> Up {
    let identity =
        v1::Identity { cluster_name: cluster.into(), cluster_uid: cluster_uid.into(), uid: uid.into(), lease };
    Up::Hello(identity)
}

fn report(state: v1::PostgresState) -> Up {
    let postgres = v1::PostgresReport { state: state.into(), ..Default::default() };
    Up::Report(v1::KeeperReport { postgres: Some(postgres), ..Default::default() })
}

impl Server {
    async fn open(&self, first: Up) -> Result<(Way, Answers), Status> {
        let args = TlsArgs::default();
        let channel = Dialer::with_files(&args).unwrap().channel(&self.address).unwrap();
        let (way, requests) = mpsc::channel(8);
        way.send(message(first)).await.unwrap();
        let answers = SentinelServiceClient::new(channel).keeper_stream(ReceiverStream::new(requests)).await?;
        Ok((way, answers.into_inner()))
    }

    fn heard(&self, uid: &str) -> bool {
        self.hub.lock().keeper_report(&KeeperUid::parse(uid).unwrap()).is_some()
    }
}

fn message(up: Up) -> v1::KeeperStreamRequest {
    v1::KeeperStreamRequest { message: Some(up), traceparent: String::new() }
}

async fn next(answers: &mut Answers) -> Result<Option<v1::KeeperStreamResponse>, Status> {
    timeout(Duration::from_secs(5), answers.message()).await.expect("an answer")
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true");
}

#[tokio::test]
async fn only_members_of_this_cluster_are_admitted() {
    let server = serve();
    let mut mirror = Mirror::default();
    let stored = Stored { revision: Revision(5), bytes: Arc::default(), data: Ok(data()) };
    mirror.cluster = Some(stored);
    server.hub.lock().mirror = Some(Arc::new(mirror));
    for (first, code) in [
        (hello("other", "", "keeper0", 0), Code::FailedPrecondition),
        (hello("c", "another", "keeper0", 0), Code::FailedPrecondition),
        (hello("c", "", "../etc", 0), Code::InvalidArgument),
        (hello("c", "", "Not-A-Keeper", 0), Code::InvalidArgument),
        (report(v1::PostgresState::Primary), Code::InvalidArgument),
    ] {
        let refused = server.open(first.clone()).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), code, "{first:?}: {refused:?}");
        assert!(!refused.message().contains('\n'));
    }
}

#[tokio::test]
async fn a_stream_under_another_lease_than_the_registration_is_refused() {
    let server = serve();
    let info = serde_json::json!({"infoUID": "a", "uid": "keeper0", "bootUUID": "b",
        "postgresBinaryVersion": {"Maj": 15, "Min": 1}});
    let registered = stolon::store::Registered {
        info: serde_json::from_value(info).unwrap(),
        lease: LeaseId(5),
        created: Revision(1),
        modified: Revision(1),
    };
    let keepers = [(KeeperUid::parse("keeper0").unwrap(), registered)].into();
    server.hub.lock().mirror = Some(Arc::new(Mirror { keepers, ..Mirror::default() }));
    assert_eq!(
        server.open(hello("c", "", "keeper0", 7)).await.map(|_| ()).unwrap_err().code(),
        Code::FailedPrecondition
    );
    server.open(hello("c", "", "keeper0", 5)).await.unwrap();
}

#[tokio::test]
async fn reports_are_folded_and_what_breaks_the_contract_ends_only_that_stream() {
    let server = serve();
    let (way, mut answers) = server.open(hello("c", "", "keeper0", 0)).await.unwrap();
    way.send(message(report(v1::PostgresState::Standby))).await.unwrap();
    until(|| server.heard("keeper0")).await;
    way.send(message(report(v1::PostgresState::Unspecified))).await.unwrap();
    assert_eq!(next(&mut answers).await.unwrap_err().code(), Code::InvalidArgument);
    until(|| !server.hub.lock().seen.keepers.values().any(|peer| peer.connected)).await;
    server.open(hello("c", "", "keeper0", 0)).await.unwrap();
}

#[tokio::test]
async fn views_are_pushed_at_once_and_an_older_one_never_follows_a_newer() {
    let server = serve();
    server.hub.push(&data(), Revision(7), "");
    let (_way, mut answers) = server.open(hello("c", "", "keeper0", 0)).await.unwrap();
    let revision = |answer: v1::KeeperStreamResponse| match answer.message {
        Some(Down::View(view)) => view.revision,
        other => panic!("{other:?}"),
    };
    assert_eq!(revision(next(&mut answers).await.unwrap().unwrap()), 7);
    server.hub.push(&data(), Revision(6), "");
    server.hub.push(&data(), Revision(9), "");
    assert_eq!(revision(next(&mut answers).await.unwrap().unwrap()), 9);
}

#[tokio::test]
async fn observers_are_asked_and_their_answers_counted_but_not_the_suspect_itself() {
    let server = serve();
    let (_suspect, mut silent) = server.open(hello("c", "", "keeper0", 0)).await.unwrap();
    let (way, mut answers) = server.open(hello("c", "", "keeper1", 0)).await.unwrap();
    until(|| server.hub.lock().keepers.uids().count() == 2).await;
    let suspect = KeeperUid::parse("keeper0").unwrap();
    server.hub.lock().ask(&suspect, "127.0.0.1", 5432);
    let Some(Down::Probe(probe)) = next(&mut answers).await.unwrap().unwrap().message else { panic!("a question") };
    let result = v1::ProbeResult::TimedOut.into();
    way.send(message(Up::Probe(v1::ProbeOutcome { id: probe.id, result }))).await.unwrap();
    let told = || server.hub.lock().seen.round.clone().unwrap().others["keeper1"];
    until(|| told() == Some(ProbeResult::TimedOut)).await;
    assert!(timeout(Duration::from_millis(100), silent.message()).await.is_err());
}

#[tokio::test]
async fn a_newer_stream_takes_the_older_ones_place_whose_end_then_means_nothing() {
    let server = serve();
    let (old, _answers) = server.open(hello("c", "", "keeper0", 0)).await.unwrap();
    let (new, _more) = server.open(hello("c", "", "keeper0", 0)).await.unwrap();
    drop(old);
    new.send(message(report(v1::PostgresState::Standby))).await.unwrap();
    until(|| server.heard("keeper0")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.hub.lock().seen.keepers.values().all(|peer| peer.connected));
}
