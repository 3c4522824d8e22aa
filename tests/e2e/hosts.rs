//! Three hosts of their own addresses, with mutual TLS between the daemons and passwords for PostgreSQL. The primary's
//! host loses its network: it fences itself, a standby on another host takes over, and the healed host follows.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use stolon_tests::{
    Test, Weight, bins,
    certs::{Authority, Holder},
    cluster::{BASE, CLUSTER},
    curl::Curl,
    etcd::{Etcd, Place},
    eventually,
    keys::Keys,
    netns::{self, Network},
    proc,
    process::Process,
    run,
    sql::Target,
    writer::Writer,
};

const WAIT: Duration = Duration::from_secs(90);
const PASSWORD: &str = "correct horse battery staple";

struct Hosts<'a> {
    test: Test,
    network: &'a Network,
    etcd: Etcd,
    authority: Authority,
    /// Each host's files, made before anybody reads them.
    holders: Vec<Holder>,
    processes: Vec<Process>,
}

impl Hosts<'_> {
    fn data_dir(&self, host: usize) -> PathBuf {
        self.test.folder().join(format!("data/host{host}"))
    }

    /// One of the programs on a host; `args` as one line, followed by what all daemons there have in common.
    fn launch(&mut self, host: usize, program: &str, line: &str) {
        let at = &self.network.hosts[host];
        let holder = &self.holders[host];
        let mut command = at.namespace.command(&bins::bin(program));
        command.args(line.split(' ')).args(["--cluster-name", CLUSTER, "--store-endpoints", &self.etcd.endpoints()]);
        command.args(["--grpc-listen-address", &at.address]).args(holder.flags());
        self.processes.push(Process::spawn(self.test.folder(), &format!("{program}{host}"), command));
    }

    fn launch_all(&mut self, host: usize) {
        let (address, folder) = (self.network.hosts[host].address.clone(), self.test.folder().to_owned());
        let secret = folder.join("password");
        std::fs::write(&secret, PASSWORD).unwrap();
        let (data, secret) = (self.data_dir(host).display().to_string(), secret.display().to_string());
        // Hosts of one machine share its file system.
        let sockets = folder.join(format!("s{host}"));
        std::fs::create_dir_all(&sockets).unwrap();
        std::fs::set_permissions(&sockets, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let sockets = sockets.display();
        self.launch(
            host,
            "stolon-keeper",
            &format!(
                "--id host{host} --data-dir {data} --pg-unix-socket-dir {sockets} --pg-listen-address {address} \
                 --pg-su-username admin \
                 --pg-su-passwordfile {secret} --pg-repl-username repl --pg-repl-passwordfile {secret}"
            ),
        );
        self.launch(host, "stolon-sentinel", "--port 6431");
        self.launch(host, "stolon-proxy", &format!("--listen-address {address} --port 25432 --grpc-port 6432"));
    }

    fn proxy(&self, host: usize) -> Target {
        Target::at(&self.network.hosts[host].address, 25432).with_user("admin", PASSWORD)
    }

    async fn keys(&self) -> Result<Keys, String> {
        Keys::read(&self.etcd, BASE).await
    }

    /// Host of the primary that serves, and its epoch.
    async fn primary(&self) -> (usize, u64) {
        let (uid, epoch) =
            eventually("a primary that serves", WAIT, async || self.keys().await.and_then(|keys| keys.serving())).await;
        (uid.trim_start_matches("host").parse().unwrap(), epoch)
    }

    async fn streaming(&self, proxy: usize, standbys: &str) {
        eventually(&format!("{standbys} standbys stream"), WAIT, async || {
            // A base backup under way streams too.
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()";
            let count = self.proxy(proxy).value(sql).await?;
            if count == standbys { Ok(()) } else { Err(count) }
        })
        .await;
    }

    fn postmaster(&self, host: usize) -> Option<u32> {
        let file = std::fs::read_to_string(self.data_dir(host).join("postgres/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok().filter(|pid| proc::alive(*pid))
    }
}

#[test]
fn a_host_that_loses_its_network_fences_itself_and_another_takes_over() {
    if !netns::allowed("a_host_that_loses_its_network_fences_itself_and_another_takes_over") {
        return;
    }
    bins::bin("stolon-keeper");
    let network = Network::new(3);
    netns::inside(&network.switch, || run("hosts", Weight::Heavy, async |test| link_cut(test, &network).await));
}

async fn link_cut(test: Test, network: &Network) {
    let place = |host: &netns::Host| Place {
        host: host.address.clone(),
        client_port: 2379,
        peer_port: 2380,
        namespace: Some(host.namespace.name.clone()),
    };
    let etcd = Etcd::start_at(&test, network.hosts.iter().map(place).collect()).await;
    let authority = Authority::new(test.folder(), "ca");
    let issue = |(i, host): (usize, &netns::Host)| authority.issue(&format!("host{i}"), &[&host.address]);
    let holders = network.hosts.iter().enumerate().map(issue).collect();
    let mut hosts = Hosts { test, network, etcd, authority, holders, processes: Vec::new() };
    (0..3).for_each(|host| hosts.launch_all(host));
    let (old, epoch) = hosts.primary().await;
    let away = (old + 1) % 3;
    hosts.streaming(away, "2").await;
    passwords_are_asked_for(&hosts, away, old).await;
    certificates_are_asked_for(&hosts, away);

    let writer = Writer::start(hosts.proxy(away)).await;
    let server = writer.server();
    let at = Instant::now();
    network.hosts[old].cut(network);
    writer.moves_from(&server, Duration::from_secs(30)).await;
    assert_eq!(hosts.postmaster(old), None, "a new primary serves while the isolated one still runs");
    writer.flows().await;
    writer.report_gap("link-cut", at);
    let (new, next) = hosts.primary().await;
    assert!(new != old && next > epoch, "host {new} in epoch {next} after host {old} in {epoch}");

    network.hosts[old].heal(network);
    hosts.streaming(away, "2").await;
    assert_eq!(hosts.primary().await.1, next, "the healed host disturbs nobody");
    eventually("the healed host's proxy leads to the new primary", WAIT, async || {
        match hosts.proxy(old).value("SELECT pg_is_in_recovery()").await?.as_str() {
            "f" => Ok(()),
            _ => Err("to a standby".to_owned()),
        }
    })
    .await;
    // WAL and acknowledgement go the same way through the cut: at most the one in flight is acknowledged alone.
    writer.finish().await.is_clean_but_for(1);
    hosts.processes.iter_mut().for_each(|process| assert!(process.running(), "{} has ended", process.name));
}

async fn passwords_are_asked_for(hosts: &Hosts<'_>, proxy: usize, primary: usize) {
    let direct = Target::at(&hosts.network.hosts[primary].address, 5432);
    for way in [hosts.proxy(proxy), direct.clone().with_user("admin", PASSWORD)] {
        let wrong = way.clone().with_user("admin", "wrong");
        let refused = wrong.value("SELECT 1").await.unwrap_err();
        assert!(refused.contains("password authentication failed"), "{refused}");
        assert_eq!(way.value("SHOW password_encryption").await.as_deref(), Ok("scram-sha-256"));
        let stored = way.value("SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'repl'").await;
        assert_eq!(stored.as_deref(), Ok("SCRAM-SHA-256"), "the replication user's password");
    }
    for process in &hosts.processes {
        let line = proc::command_line(process.pid());
        assert!(!line.contains(PASSWORD) && !process.log_text().contains(PASSWORD), "{}: {line}", process.name);
    }
}

fn certificates_are_asked_for(hosts: &Hosts<'_>, host: usize) {
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
