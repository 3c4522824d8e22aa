//! gRPC as an operator uses it: every daemon explains itself to a public client by reflection, in plain text on loopback
//! and by mutual TLS; and what strangers send harms nobody.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;
use stolon::wire::v1::{
    Identity, KeeperReport, KeeperStreamRequest, PostgresReport, PostgresState, keeper_stream_request::Message,
    sentinel_service_client::SentinelServiceClient,
};
use stolon_tests::{
    Cluster, ClusterOptions, Test, Weight, certs::Authority, certs::Holder, cluster::CLUSTER, curl::Curl,
    curl::REFLECTION, during, eventually, run, writer::Writer,
};

const KEEPER: &str = "stolon.v1.KeeperService/GetKeeperStatus";
const PROXY: &str = "stolon.v1.ProxyService/GetProxyStatus";
const SENTINEL: &str = "stolon.v1.AdminService/GetSentinelStatus";
const STATUS: &str = "stolon.v1.AdminService/GetClusterStatus";
const DATA: &str = "stolon.v1.AdminService/GetClusterData";
const HEALTH: &str = "grpc.health.v1.Health/Check";

/// gRPC addresses as registered: of a keeper, a sentinel and a proxy.
async fn addresses(cluster: &Cluster) -> [String; 3] {
    let keys = cluster.keys().await.unwrap();
    let first = |address: Option<&String>| address.unwrap_or_else(|| panic!("not registered: {keys:?}")).clone();
    [
        first(keys.keepers.values().next().map(|info| &info.grpc_address)),
        first(keys.sentinels.values().next().map(|info| &info.grpc_address)),
        first(keys.proxies.values().next().map(|info| &info.grpc_address)),
    ]
}

fn curl<'a>(folder: &'a Path, address: &str, tls: Option<&Holder>) -> Curl<'a> {
    Curl { folder, address: address.to_owned(), tls: tls.cloned() }
}

fn explains(folder: &Path, addresses: &[String; 3], tls: Option<&Holder>) -> [Value; 3] {
    let methods = [KEEPER, SENTINEL, PROXY];
    [0, 1, 2].map(|i| {
        let curl = curl(folder, &addresses[i], tls);
        for reflection in REFLECTION {
            let listed = curl.methods(reflection).unwrap();
            for wanted in [methods[i], HEALTH] {
                assert!(listed.iter().any(|m| m == wanted), "{reflection} at {}: {listed:?}", addresses[i]);
            }
        }
        let health = curl.call(HEALTH).unwrap();
        assert_eq!(health["status"], "SERVING", "{health}");
        curl.call(methods[i]).unwrap()
    })
}

#[test]
fn each_daemon_answers_a_public_client_by_reflection_and_survives_garbage() {
    run("grpc-plain", Weight::Cluster, async |test| {
        let mut cluster = Cluster::start(test, ClusterOptions { keepers: 2, sentinels: 1, ..Default::default() }).await;
        let (primary, epoch) = cluster.primary().await;
        let addresses = addresses(&cluster).await;
        let folder = cluster.test.folder().to_owned();
        let [keeper, sentinel, proxy] = explains(&folder, &addresses, None);
        let epoch = epoch.to_string();
        for (who, answer) in [("keeper", &keeper), ("sentinel", &sentinel), ("proxy", &proxy)] {
            assert_eq!(answer["identity"]["clusterName"], CLUSTER, "{who}: {answer}");
            assert!(answer["store"]["error"] == "" && answer["store"]["endpoint"] != "", "{who}: {answer}");
            assert!(answer["streams"].as_array().is_some_and(|s| !s.is_empty()), "{who} tells its streams: {answer}");
        }
        assert_eq!(keeper["view"]["epoch"], epoch.as_str(), "{keeper}");
        assert!(keeper["report"]["postgres"]["pid"].as_u64().is_some_and(|pid| pid > 0), "{keeper}");
        assert_eq!(sentinel["leader"], true, "{sentinel}");
        assert_eq!(proxy["report"]["routeEpoch"], epoch.as_str(), "{proxy}");
        assert!(proxy["route"].as_str().is_some_and(|to| to.ends_with(&cluster.keepers[primary].pg_port.to_string())));

        let admin = curl(&folder, &addresses[1], None);
        let status = admin.call(STATUS).unwrap();
        assert_eq!(status["available"], true, "{status}");
        assert_eq!(status["primary"]["keeper"], cluster.keepers[primary].uid.as_str(), "{status}");
        assert_eq!(status["keepers"].as_array().map(Vec::len), Some(2), "{status}");
        let stored = admin.call(DATA).unwrap();
        let document: Value = serde_json::from_str(stored["json"].as_str().unwrap()).unwrap();
        assert_eq!(document["cluster"]["status"]["phase"], "normal", "{document}");

        let writer = Writer::start(cluster.proxy()).await;
        let cuts = writer.cut();
        addresses.iter().for_each(|address| garbage(address));
        // While every keeper is heard: so there is somebody to be elected wrongly.
        impostors(&cluster, &addresses[1]).await;
        strangers(&addresses[1]).await;
        explains(&folder, &addresses, None);
        for daemon in cluster.sentinels.iter_mut().chain(&mut cluster.proxies) {
            assert!(daemon.process().running(), "{} has died", daemon.name);
        }
        assert_eq!(cluster.settled().await.1.to_string(), epoch, "no failover came of it");
        assert_eq!(writer.cut(), cuts, "no client lost its connection");
        writer.finish().await.is_clean();
    });
}

/// Bytes that are no HTTP/2, HTTP/2 that breaks off, and a frame as large as can be said.
fn garbage(address: &str) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut huge = preface.clone();
    huge.extend([0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01]);
    for bytes in [vec![0u8; 4096], b"GET / HTTP/1.0\r\n\r\n".to_vec(), preface, huge, vec![0xff; 70_000]] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // The server may hang up before it has read all.
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0u8; 256]);
    }
}

fn hello(cluster_name: &str, uid: &str) -> KeeperStreamRequest {
    let identity =
        Identity { cluster_name: cluster_name.into(), cluster_uid: String::new(), uid: uid.into(), lease: 7 };
    KeeperStreamRequest { message: Some(Message::Hello(identity)), traceparent: String::new() }
}

fn report(state: i32) -> KeeperStreamRequest {
    let postgres = Some(PostgresReport { state, ..Default::default() });
    let report = KeeperReport { postgres, ..Default::default() };
    KeeperStreamRequest { message: Some(Message::Report(report)), traceparent: "nonsense".into() }
}

/// Streams that break the contract are refused with the reason.
async fn strangers(sentinel: &str) {
    let empty = KeeperStreamRequest { message: None, traceparent: String::new() };
    let mut foreign_uid = hello(CLUSTER, "postgres0");
    if let Some(Message::Hello(identity)) = &mut foreign_uid.message {
        identity.cluster_uid = "another".into();
    }
    let cases = [
        ("another cluster's name", vec![hello("other-cluster", "postgres0")]),
        ("another cluster's uid", vec![foreign_uid]),
        ("a report before hello", vec![report(6)]),
        ("an empty message", vec![hello(CLUSTER, "postgres0"), empty]),
        ("an id that is none", vec![hello(CLUSTER, "../etc")]),
        ("a state that is unspecified", vec![hello(CLUSTER, "postgres0"), report(0)]),
        ("a state that nobody knows", vec![hello(CLUSTER, "postgres0"), report(99)]),
    ];
    for (what, messages) in cases {
        let refused = refusal(sentinel, messages).await;
        let code = refused.code();
        assert!(
            matches!(
                code,
                tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition | tonic::Code::PermissionDenied
            ),
            "{what}: {refused:?}"
        );
        assert!(!refused.message().is_empty() && !refused.message().contains('\n'), "{what}: {refused:?}");
    }
}

/// Streams that name the primary's keeper without its lease, and tell that its PostgreSQL has ended under the promise of its
/// epoch: whoever believed that would elect the standby at once, beside a primary that serves.
async fn impostors(cluster: &Cluster, sentinel: &str) {
    let before = cluster.keys().await.unwrap();
    let serving = before.serving().unwrap();
    let (uid, epoch) = &serving;
    let keeper = &cluster.keepers[cluster.index(uid)];
    let postmaster = keeper.postmaster();
    let true_lease = before.leases[&format!("keepers/info/{uid}")];
    let db = before.primary.unwrap().db.to_string();
    let postgres = PostgresReport { state: PostgresState::Stopped.into(), db, ..Default::default() };
    let fatal = KeeperReport {
        promised: *epoch,
        authority_epoch: *epoch,
        authority_remaining_ms: 4000,
        postgres: Some(postgres),
        ..Default::default()
    };
    for lease in [0, true_lease ^ 1] {
        let mut hello = hello(CLUSTER, uid);
        if let Some(Message::Hello(identity)) = &mut hello.message {
            identity.lease = lease;
        }
        let report = KeeperStreamRequest { message: Some(Message::Report(fatal.clone())), traceparent: String::new() };
        let answer = refusal(sentinel, vec![hello, report]).await;
        during("the same primary in the same epoch", Duration::from_secs(3), async || {
            match (cluster.keys().await?.serving()?, keeper.postmaster()) {
                now if now == (serving.clone(), postmaster) => Ok(()),
                other => Err(format!("{other:?}; the stream was answered by {answer:?}")),
            }
        })
        .await;
        let refused = answer.code() == tonic::Code::FailedPrecondition;
        assert!(refused && answer.message().ends_with("is registered on another lease"), "{answer:?}");
        assert!(answer.message().contains(uid.as_str()) && !answer.message().contains('\n'), "{answer:?}");
    }
}

/// The status that ends a stream with these messages; the stream itself stays open on this side.
async fn refusal(sentinel: &str, messages: Vec<KeeperStreamRequest>) -> tonic::Status {
    let mut client = SentinelServiceClient::connect(format!("http://{sentinel}")).await.unwrap();
    let stream = tokio_stream::StreamExt::chain(tokio_stream::iter(messages), tokio_stream::pending());
    let wait = async {
        let mut answers = client.keeper_stream(stream).await?.into_inner();
        while answers.message().await?.is_some() {}
        Err::<(), _>(tonic::Status::ok("the stream ended without a status"))
    };
    match tokio::time::timeout(Duration::from_secs(5), wait).await {
        Ok(Err(status)) => status,
        Ok(Ok(())) => unreachable!("the stream's end is an error here"),
        Err(_) => tonic::Status::ok("the stream was accepted"),
    }
}

fn tls_options(daemon: &Holder) -> ClusterOptions {
    ClusterOptions { keepers: 2, sentinels: 1, common: daemon.flags(), ..Default::default() }
}

#[test]
fn mutual_tls_admits_only_holders_of_the_authoritys_certificates() {
    run("grpc-tls", Weight::Cluster, async |test: Test| {
        let folder = test.folder().to_owned();
        let authority = Authority::new(&folder, "ours");
        let daemon = authority.issue("daemon", &["127.0.0.1", "localhost"]);
        let operator = authority.issue("operator", &["operator"]);
        let stranger =
            Holder { ca: authority.ca_file.clone(), ..Authority::new(&folder, "theirs").issue("mallory", &["x"]) };
        let expired = authority.issue_expired("expired", &["127.0.0.1"]);
        let mut cluster = Cluster::start(test, tls_options(&daemon)).await;
        let addresses = addresses(&cluster).await;
        let [keeper, ..] = explains(&folder, &addresses, Some(&operator));
        let connected = keeper["streams"].as_array().is_some_and(|all| all.iter().any(|s| s["connected"] == true));
        assert!(connected, "the daemons speak to each other: {keeper}");
        for address in &addresses {
            for (who, holder) in
                [("a stranger", Some(&stranger)), ("an expired one", Some(&expired)), ("plain text", None)]
            {
                let answer = curl(&folder, address, holder).call(HEALTH);
                assert!(answer.is_err(), "{who} got {answer:?} from {address}");
            }
            garbage(address);
        }
        explains(&folder, &addresses, Some(&operator));

        // New files are taken up without a restart; a broken one keeps the old and harms nothing.
        std::fs::write(&daemon.cert, "no certificate").unwrap();
        explains(&folder, &addresses, Some(&operator));
        let next = Authority::new(&folder, "next");
        let renewed = next.issue("renewed", &["127.0.0.1", "localhost"]);
        let operator = next.issue("operator2", &["operator"]);
        for (new, old) in
            [(&renewed.cert, &daemon.cert), (&renewed.key, &daemon.key), (&next.ca_file, &authority.ca_file)]
        {
            std::fs::copy(new, old).unwrap();
        }
        for address in &addresses {
            eventually("the new authority's holder is served", Duration::from_secs(10), async || {
                curl(&folder, address, Some(&operator)).call(HEALTH)
            })
            .await;
        }
        // With the daemons' streams made anew under the new certificates, a failover works.
        cluster.sentinels[0].process().kill();
        cluster.sentinels.clear();
        cluster.add_sentinel(&tls_options(&daemon));
        cluster.leader().await;
        let (old, epoch) = cluster.primary().await;
        let writer = Writer::start(cluster.proxy()).await;
        let server = writer.server();
        cluster.keepers[old].kill_postgres();
        writer.moves_from(&server, Duration::from_secs(20)).await;
        assert!(cluster.primary().await.1 > epoch);
        writer.finish().await.is_clean_but_for(1);
    });
}
