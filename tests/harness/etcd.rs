//! A real etcd of one or more members, each a process of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, DeleteOptions, GetOptions, Identity, TlsOptions};
use rustix::process::Signal;

use crate::{certs::Holder, ports::free_port, process::Process, runner::Test, wait::eventually};

pub struct Member {
    pub url: String,
    name: String,
    process: Option<Process>,
    command: MemberCommand,
}

/// How a member is started, again after a kill too.
struct MemberCommand {
    folder: PathBuf,
    args: Vec<String>,
    namespace: Option<String>,
}

pub struct Etcd {
    pub members: Vec<Member>,
    /// For the connections of the tests themselves.
    tls: Option<TlsOptions>,
    /// Index of the member that answered last.
    answered: AtomicUsize,
}

/// Where one member listens.
pub struct Place {
    pub host: String,
    pub client_port: u16,
    pub peer_port: u16,
    /// Network namespace to run in; `None` for the caller's.
    pub namespace: Option<String>,
    /// The member's certificate, for mutual TLS with clients and with other members; `None` for plain text.
    pub holder: Option<Holder>,
}

impl Place {
    pub fn loopback() -> Place {
        Place {
            host: "127.0.0.1".into(),
            client_port: free_port(),
            peer_port: free_port(),
            namespace: None,
            holder: None,
        }
    }

    fn url(&self, port: u16) -> String {
        format!("{}://{}:{port}", if self.holder.is_some() { "https" } else { "http" }, self.host)
    }
}

const CALL: Duration = Duration::from_secs(2);

impl Etcd {
    /// Starts members on loopback, on free ports, and waits until they answer.
    pub async fn start(test: &Test, members: usize) -> Etcd {
        Etcd::start_at(test, (0..members).map(|_| Place::loopback()).collect()).await
    }

    /// The tests themselves present the first member's certificate.
    pub async fn start_at(test: &Test, places: Vec<Place>) -> Etcd {
        let all: Vec<_> = (0..).zip(&places).map(|(i, at)| format!("etcd{i}={}", at.url(at.peer_port))).collect();
        let mut members = Vec::new();
        for (i, at) in places.iter().enumerate() {
            let (name, url) = (format!("etcd{i}"), at.url(at.client_port));
            let mut args = member_args(&name, &url, &at.url(at.peer_port), &all.join(","), test.folder());
            args.extend(at.holder.iter().flat_map(tls_args));
            let command = MemberCommand { folder: test.folder().to_owned(), args, namespace: at.namespace.clone() };
            members.push(Member { url, name, process: None, command });
        }
        let tls = places.first().and_then(|at| at.holder.as_ref()).map(tls_options);
        let mut etcd = Etcd { members, tls, answered: AtomicUsize::new(0) };
        (0..etcd.members.len()).for_each(|i| etcd.start_member(i));
        eventually("etcd answers", Duration::from_secs(20), async || etcd.revision().await).await;
        etcd
    }

    pub fn start_member(&mut self, index: usize) {
        let member = &mut self.members[index];
        let mut command = match &member.command.namespace {
            None => Command::new("etcd"),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "etcd"]);
                command
            }
        };
        command.args(&member.command.args).env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
        member.process = Some(Process::spawn(&member.command.folder, &member.name, command));
    }

    pub fn pid(&self, index: usize) -> Option<u32> {
        self.members[index].process.as_ref().map(Process::pid)
    }

    pub fn running(&mut self, index: usize) -> bool {
        self.members[index].process.as_mut().is_some_and(Process::running)
    }

    /// Ok when every member answers.
    pub async fn whole(&self) -> Result<(), String> {
        for index in 0..self.members.len() {
            self.client_of(index).await?;
        }
        Ok(())
    }

    pub fn kill_member(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill();
        }
    }

    /// SIGSTOP: connected, and silent.
    pub fn freeze(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    pub fn thaw(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        if let Some(process) = &self.members[index].process {
            process.signal(signal);
        }
    }

    /// For `--store-endpoints`.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Index of the member that leads etcd.
    pub async fn leader(&self) -> Result<usize, String> {
        for index in 0..self.members.len() {
            let Ok(mut client) = self.client_of(index).await else { continue };
            let Ok(Ok(status)) = tokio::time::timeout(CALL, client.status()).await else { continue };
            if status.header().is_some_and(|header| header.member_id() == status.leader()) {
                return Ok(index);
            }
        }
        Err("no member of etcd leads".into())
    }

    /// Asks the leading member to let another one lead.
    pub async fn hand_over(&self, leader: usize, to: usize) -> Result<(), String> {
        let status = self.client_of(to).await?.status().await.map_err(|error| error.to_string())?;
        let id = status.header().ok_or("answer without a header")?.member_id();
        self.client_of(leader).await?.move_leader(id).await.map(drop).map_err(|error| error.to_string())
    }

    /// A client of one member; an error when it does not answer with its majority.
    pub async fn client_of(&self, index: usize) -> Result<Client, String> {
        let mut options = ConnectOptions::new().with_connect_timeout(CALL).with_timeout(CALL);
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        let url = &self.members[index].url;
        let attempt = async {
            let mut client = Client::connect([url], Some(options)).await.map_err(|e| format!("{url}: {e}"))?;
            // The connection is lazy: only an answer shows that the member serves.
            client.get("x", None).await.map_err(|e| format!("{url}: {e}"))?;
            Ok(client)
        };
        tokio::time::timeout(CALL, attempt).await.unwrap_or_else(|_| Err(format!("{url}: no answer")))
    }

    /// A client of a member that answers: the one that did last time, if it still does.
    pub async fn client(&self) -> Result<Client, String> {
        let mut last = "etcd has no members".to_owned();
        let first = self.answered.load(Ordering::Relaxed);
        for at in (0..self.members.len()).map(|i| (first + i) % self.members.len()) {
            match self.client_of(at).await {
                Ok(client) => {
                    self.answered.store(at, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The store's revision: grows with every write, not with keepalives.
    pub async fn revision(&self) -> Result<i64, String> {
        let mut client = self.client().await?;
        let answer = client.get("x", None).await.map_err(|e| e.to_string())?;
        answer.header().map(|header| header.revision()).ok_or_else(|| "answer without a header".into())
    }

    pub async fn put(&self, key: &str, value: &[u8]) {
        let mut client = self.client().await.expect("etcd answers");
        client.put(key, value, None).await.expect("a put into etcd");
    }

    /// Deletes one key, or all that start with it.
    pub async fn delete(&self, key: &str, all: bool) {
        let options = all.then(|| DeleteOptions::new().with_prefix());
        let mut client = self.client().await.expect("etcd answers");
        client.delete(key, options).await.expect("a delete in etcd");
    }

    /// Every key below `prefix` at one revision.
    pub async fn range(&self, prefix: &str) -> Result<Vec<etcd_client::KeyValue>, String> {
        let mut client = self.client().await?;
        let mut answer = client.get(prefix, Some(GetOptions::new().with_prefix())).await.map_err(|e| e.to_string())?;
        Ok(answer.take_kvs())
    }
}

fn tls_options(holder: &Holder) -> TlsOptions {
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let authority = Certificate::from_pem(read(&holder.ca));
    TlsOptions::new().ca_certificate(authority).identity(Identity::from_pem(read(&holder.cert), read(&holder.key)))
}

/// Both ways: clients and other members have to show a certificate of the same authority.
fn tls_args(holder: &Holder) -> Vec<String> {
    let side = |side: &str| {
        let pair = |flag: &str, path: &Path| [format!("--{side}{flag}"), path.display().to_string()];
        let files =
            [pair("cert-file", &holder.cert), pair("key-file", &holder.key), pair("trusted-ca-file", &holder.ca)];
        [files.concat(), vec![format!("--{side}client-cert-auth")]].concat()
    };
    [side(""), side("peer-")].concat()
}

fn member_args(name: &str, client: &str, peer: &str, all: &str, folder: &Path) -> Vec<String> {
    let data = folder.join(format!("{name}.data")).display().to_string();
    let pairs = [
        ("--name", name),
        ("--data-dir", &data),
        ("--listen-client-urls", client),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", all),
        ("--initial-cluster-state", "new"),
    ];
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}
