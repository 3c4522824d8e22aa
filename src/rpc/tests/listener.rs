//! Binding, reflection, health, limits and the end of a listener.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{v1 as reflection, v1alpha};

use super::*;
use crate::wire::v1::sentinel_service_client::SentinelServiceClient;

#[tokio::test]
async fn what_cant_be_listened_on_is_refused_in_one_line_that_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let at = |address: &str| GrpcArgs { grpc_listen_address: address.into(), ..loopback() };
    for (args, port, words) in [
        (loopback(), port, vec!["--port", "in use", &port.to_string()]),
        (at("0.0.0.0"), 0, vec!["--grpc-listen-address 0.0.0.0", "--grpc-cert-file"]),
        (at("192.0.2.1"), 0, vec!["--grpc-listen-address 192.0.2.1", "--grpc-ca-file"]),
        (at("nowhere/"), 0, vec!["--grpc-listen-address nowhere/"]),
    ] {
        let error = Listener::bind(&args, port, "--port").unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_advertised_address_is_the_given_host_with_the_bound_port() {
    let named = GrpcArgs { grpc_advertise_address: Some("db1.example".into()), ..loopback() };
    let advertised = Listener::bind(&named, 0, "--port").unwrap().advertised();
    assert!(advertised.starts_with("db1.example:") && !advertised.ends_with(":0"), "{advertised}");
    let six = GrpcArgs { grpc_listen_address: "::1".into(), ..loopback() };
    assert!(Listener::bind(&six, 0, "--port").unwrap().advertised().starts_with("[::1]:"));
}

#[tokio::test]
async fn reflection_in_both_versions_lists_what_is_served_and_health_answers() {
    let serving = Serving::start(&loopback(), 0);
    let channel = Dialer::new(&loopback()).unwrap().channel(&serving.address).unwrap();

    let ask = reflection::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = reflection::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let listed = format!("{:?}", soon("v1", answers.message()).await.unwrap());
    assert!(listed.contains("stolon.v1.SentinelService") && listed.contains("grpc.health.v1.Health"), "{listed}");
    assert!(!listed.contains("KeeperService"), "not served here: {listed}");

    let ask = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol("stolon.v1.Identity".into());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let found = format!("{:?}", soon("v1alpha", answers.message()).await.unwrap());
    assert!(found.contains("FileDescriptorResponse"), "{found}");

    let mut health = HealthClient::new(channel);
    for service in ["", "stolon.v1.SentinelService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service:?} serves");
    }
    serving.stop().await;
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let serving = Serving::start(&loopback(), 0);
    let channel = Dialer::new(&loopback()).unwrap().channel(&serving.address).unwrap();
    for bytes in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[0; 4096], &[0xff; 70_000]] {
        let mut stream = tokio::net::TcpStream::connect(&serving.address).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = soon("the server hangs up", stream.read_to_end(&mut Vec::new())).await;
    }
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    assert!(health.is_ok(), "{health:?}");
    serving.stop().await;
}

#[tokio::test]
async fn a_stream_in_use_does_not_hold_the_end_up() {
    let mut serving = Serving::start(&loopback(), 0);
    let channel = Dialer::new(&loopback()).unwrap().channel(&serving.address).unwrap();
    let identity = v1::Identity { cluster_name: "c".into(), uid: "k".into(), ..Default::default() };
    let hello = v1::KeeperStreamRequest {
        message: Some(v1::keeper_stream_request::Message::Hello(identity)),
        ..Default::default()
    };
    let requests = tokio_stream::once(hello).chain(tokio_stream::pending());
    let mut incoming = SentinelServiceClient::new(channel).keeper_stream(requests).await.unwrap().into_inner();
    serving.hear().await;
    let peers = serving.peers.status();
    assert!(peers.len() == 1 && peers[0].peer == "k" && peers[0].address.starts_with("127.0.0.1:"), "{peers:?}");
    let (peers, began) = (serving.peers.clone(), Instant::now());
    serving.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2));
    let ended = soon("the client sees the end", incoming.message()).await;
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    soon("the peer leaves the table", async {
        while !peers.status().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
