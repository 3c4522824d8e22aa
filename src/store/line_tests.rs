//! What a request says that came to nothing.

use std::time::Duration;

use super::Store;
use crate::{cli::StoreArgs, model::ClusterName};

fn args(endpoints: &[&String], store_timeout: Duration) -> StoreArgs {
    StoreArgs {
        cluster_name: ClusterName::parse("c").unwrap(),
        store_backend: "etcdv3".into(),
        store_endpoints: endpoints.iter().copied().cloned().collect(),
        store_prefix: "stolon/cluster".into(),
        store_timeout,
        store_cert_file: None,
        store_key: None,
        store_ca_file: None,
    }
}

#[tokio::test]
async fn the_rest_of_a_deadline_is_not_what_a_request_failed_of() {
    // Takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    // One whole attempt of 300 ms, a pause of 50 ms, and a rest.
    let store = Store::new(&args(&[&endpoint], Duration::from_millis(360))).unwrap();
    let error = store.read().await.unwrap_err().to_string();
    assert!(error.contains(&endpoint) && error.contains("no answer within 300.0ms"), "{error}");
    // Less than one attempt: that is all that can be said.
    let store = Store::new(&args(&[&endpoint], Duration::from_millis(100))).unwrap();
    let error = store.read().await.unwrap_err().to_string();
    assert!(error.contains(&endpoint) && error.contains("no answer within"), "{error}");
}

#[tokio::test]
async fn a_reading_that_gets_no_answer_is_asked_of_the_next_endpoint_before_its_attempt_ends() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let next = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let store = Store::new(&args(&[&url(&silent), &url(&next)], Duration::from_secs(2))).unwrap();
    let asked = tokio::select! {
        // An attempt takes 300 ms.
        asked = tokio::time::timeout(Duration::from_millis(250), next.accept()) => asked,
        _ = store.read() => panic!("nobody answers: the reading goes on for two seconds"),
    };
    assert!(asked.is_ok(), "the next endpoint was not asked within 250 ms");
}
