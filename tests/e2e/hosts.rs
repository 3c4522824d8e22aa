//! Three hosts of their own addresses, with mutual TLS between the daemons and passwords for PostgreSQL. The primary's
//! host loses its network: it fences itself, a standby on another host takes over, and the healed host follows.

use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use stolon_tests::{
    Test, Weight,
    audit::Auditor,
    bins,
    certs::Authority,
    curl::Curl,
    eventually,
    netns::{self, Network},
    proc, run,
    stage::{PASSWORD, Plan, Role, Stage},
    tools,
    writer::Writer,
};

const WAIT: Duration = Duration::from_secs(90);

async fn primary(stage: &Stage<'_>) -> (usize, u64) {
    eventually("a primary that serves", WAIT, async || stage.primary().await).await
}

async fn streaming(stage: &Stage<'_>, proxy: usize, standbys: &str) {
    eventually(&format!("{standbys} standbys stream"), WAIT, async || {
        // A base backup under way streams too.
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
        let count = stage.proxy(proxy).value(sql).await?;
        if count == standbys { Ok(()) } else { Err(count) }
    })
    .await;
}

#[test]
fn a_host_that_loses_its_network_fences_itself_and_another_takes_over() {
    if !netns::allowed("a_host_that_loses_its_network_fences_itself_and_another_takes_over") {
        return;
    }
    bins::bin("stolon-keeper");
    // Within the hosts' network nothing can be fetched.
    tools::buf();
    let network = Network::new(3);
    netns::inside(&network.switch, || run("hosts", Weight::Heavy, async |test| link_cut(test, &network).await));
}

async fn link_cut(test: Test, network: &Network) {
    let everything = || vec![Role::Etcd, Role::Keeper, Role::Sentinel, Role::Proxy];
    let plan = Plan { hosts: vec![everything(), everything(), everything()], ..Plan::default() };
    let hosts = Stage::launch(test, network, plan).await;
    let (old, epoch) = primary(&hosts).await;
    let away = (old + 1) % 3;
    streaming(&hosts, away, "2").await;
    passwords_are_asked_for(&hosts, away, old).await;
    certificates_are_asked_for(&hosts, away);
    etcd_asks_for_certificates(&hosts).await;

    let servers = (0..3).map(|host| hosts.server(host)).collect();
    let mut writer = Writer::start(hosts.proxy(away)).await.beside(servers).await;
    // A client that is cut off together with the old primary, and goes on writing there.
    let mut inside = Auditor::start(&network.hosts[old].namespace.name, vec![], vec![hosts.server(old)]);
    let cut_off = inside.direct[0].clone();
    eventually("rows on the primary's own host", WAIT, async || {
        let record = cut_off.record();
        if record.acks.is_empty() { Err(record.last_error.clone()) } else { Ok(()) }
    })
    .await;
    let server = writer.server();
    let at = Instant::now();
    network.hosts[old].cut(network);
    writer.moves_from(&server, Duration::from_secs(30)).await;
    assert_eq!(hosts.postmaster(old), None, "a new primary serves while the isolated one still runs");
    writer.flows().await;
    writer.report_gap("link-cut", at);
    assert!(cut_off.record().acks.iter().any(|ack| ack.sent > at), "the cut left the host's own client alone");
    let (new, next) = primary(&hosts).await;
    assert!(new != old && next > epoch, "host {new} in epoch {next} after host {old} in {epoch}");

    network.hosts[old].heal(network);
    streaming(&hosts, away, "2").await;
    assert_eq!(primary(&hosts).await.1, next, "the healed host disturbs nobody");
    eventually("the healed host's proxy leads to the new primary", WAIT, async || {
        match hosts.proxy(old).value("SELECT pg_is_in_recovery()").await?.as_str() {
            "f" => Ok(()),
            _ => Err("to a standby".to_owned()),
        }
    })
    .await;
    inside.stop();
    writer.take_in(&inside.direct);
    let verdict = writer.finish().await;
    // WAL and acknowledgement go the same way through the cut: at most the one in flight is acknowledged alone.
    verdict.is_clean_but_for(1);
    verdict.had_one_primary(&[]);
    for daemon in hosts.daemons() {
        assert!(proc::alive(daemon.pid()), "{} has ended", daemon.name);
    }
}

async fn passwords_are_asked_for(hosts: &Stage<'_>, proxy: usize, primary: usize) {
    for way in [hosts.proxy(proxy), hosts.server(primary)] {
        let wrong = way.clone().with_user("admin", "wrong");
        let refused = wrong.value("SELECT 1").await.unwrap_err();
        assert!(refused.contains("password authentication failed"), "{refused}");
        assert_eq!(way.value("SHOW password_encryption").await.as_deref(), Ok("scram-sha-256"));
        let stored = way.value("SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'repl'").await;
        assert_eq!(stored.as_deref(), Ok("SCRAM-SHA-256"), "the replication user's password");
    }
    for process in hosts.daemons() {
        let line = proc::command_line(process.pid());
        assert!(!line.contains(PASSWORD) && !process.log_text().contains(PASSWORD), "{}: {line}", process.name);
    }
}

fn certificates_are_asked_for(hosts: &Stage<'_>, host: usize) {
    let operator = hosts.authority.issue("operator", &["operator"]);
    let stranger = Authority::new(hosts.test.folder(), "foreign").issue("stranger", &["stranger"]);
    let address = &hosts.network.hosts[host].address;
    for port in [5431, 6431, 6432] {
        let curl = |tls| Curl { folder: hosts.test.folder(), address: format!("{address}:{port}"), tls };
        let health = curl(Some(operator.clone())).call("grpc.health.v1.Health/Check").unwrap();
        assert_eq!(health["status"], "SERVING");
        let mut foreign = stranger.clone();
        foreign.ca = hosts.authority.ca_file.clone();
        for tls in [Some(foreign), None] {
            let answer = curl(tls).call("grpc.health.v1.Health/Check");
            assert!(answer.is_err(), "port {port} answers strangers: {answer:?}");
        }
    }
}

async fn etcd_asks_for_certificates(hosts: &Stage<'_>) {
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    let foreign = Authority::new(hosts.test.folder(), "foreign").issue("stranger", &["stranger"]);
    let foreign = Identity::from_pem(read(&foreign.cert), read(&foreign.key));
    let host = hosts.etcd.members.len() - 1;
    assert!(hosts.etcd.client_of(host).await.is_ok(), "with a certificate it answers");
    for identity in [None, Some(foreign)] {
        let authority = Certificate::from_pem(read(&hosts.authority.ca_file));
        let mut tls = TlsOptions::new().ca_certificate(authority);
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(2)).with_tls(tls);
        let asked =
            async { Client::connect([&hosts.etcd.members[host].url], Some(options)).await?.get("x", None).await };
        let answer = tokio::time::timeout(WAIT, asked).await.expect("etcd refuses or answers in time");
        assert!(answer.is_err(), "etcd answers strangers: {answer:?}");
    }
    for pid in (0..=host).filter_map(|host| hosts.pid(host, Role::Etcd)) {
        let line = proc::command_line(pid);
        let asks = line.contains(" --client-cert-auth") && line.contains(" --peer-client-cert-auth");
        assert!(asks && !line.contains("http://"), "{line}");
    }
}
