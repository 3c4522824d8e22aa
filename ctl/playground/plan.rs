//! What the playground consists of: one command line per process, decided before the first is started.

use std::path::{Path, PathBuf};

use anyhow::bail;
use stolon::{cli::StoreArgs, model::ClusterName};

use super::{
    folder::Folder,
    ports::{Ports, is_free},
    programs::{Programs, os_user},
};
use crate::cli::PlaygroundArgs;

pub const CLUSTER: &str = "playground";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Keeper,
    Sentinel,
    Proxy,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: String,
    pub kind: Kind,
    pub path: PathBuf,
    pub args: Vec<String>,
    /// gRPC address; none for etcd.
    pub grpc: Option<String>,
}

pub struct Plan {
    pub folder: PathBuf,
    pub programs: Vec<Program>,
    pub keepers: u16,
    /// Where clients connect.
    pub port: u16,
    /// Superuser of the cluster: the invoking OS user.
    pub user: String,
    etcd: u16,
}

impl Plan {
    pub fn new(args: &PlaygroundArgs, paths: &Programs, folder: &Folder) -> anyhow::Result<Plan> {
        let mut ports = Ports::new();
        let port = match args.port {
            0 => ports.free()?,
            port if is_free(port) => port,
            port => bail!("--port {port} is in use on 127.0.0.1: choose another, or 0 for any free one"),
        };
        let etcd = ports.free()?;
        let mut plan = Plan {
            folder: folder.path().to_owned(),
            programs: Vec::new(),
            keepers: args.keepers,
            port,
            user: os_user()?,
            etcd,
        };
        let peer = ports.free()?;
        plan.add("etcd", Kind::Etcd, &paths.etcd, plan.etcd_args(peer), None);
        for number in 0..args.keepers {
            let (uid, grpc, pg) = (format!("postgres{number}"), ports.free()?, ports.free()?);
            let own = [
                ("--id", uid.clone()),
                ("--data-dir", plan.keeper_folder(&uid).display().to_string()),
                ("--port", grpc.to_string()),
                ("--pg-port", pg.to_string()),
            ];
            plan.add(&uid, Kind::Keeper, &paths.keeper, plan.daemon_args(&own), Some(grpc));
        }
        for number in 0..args.sentinels {
            let grpc = ports.free()?;
            let own = plan.daemon_args(&[("--port", grpc.to_string())]);
            plan.add(&format!("sentinel{number}"), Kind::Sentinel, &paths.sentinel, own, Some(grpc));
        }
        let grpc = ports.free()?;
        let own = plan.daemon_args(&[("--port", port.to_string()), ("--grpc-port", grpc.to_string())]);
        plan.add("proxy0", Kind::Proxy, &paths.proxy, own, Some(grpc));
        Ok(plan)
    }

    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Program> {
        self.programs.iter().filter(move |program| program.kind == kind)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.etcd)
    }

    pub fn keeper_folder(&self, uid: &str) -> PathBuf {
        self.folder.join("data").join(uid)
    }

    pub fn store_args(&self) -> anyhow::Result<StoreArgs> {
        Ok(StoreArgs {
            cluster_name: ClusterName::parse(CLUSTER)?,
            store_backend: "etcdv3".into(),
            store_endpoints: vec![self.endpoint()],
            store_prefix: "stolon/cluster".into(),
            store_timeout: super::ready::ETCD,
            store_cert_file: None,
            store_key: None,
            store_ca_file: None,
        })
    }

    /// Lines to copy.
    pub fn how_to_reach(&self) -> String {
        let own = std::env::current_exe().unwrap_or_else(|_| "stolonctl".into());
        let grpc = self.programs.iter().filter_map(|program| Some((program, program.grpc.as_ref()?)));
        let lines = grpc.map(|(program, address)| format!("  grpcurl -plaintext {address} list   # {}", program.name));
        format!(
            "The cluster is up. Clients connect through the proxy:\n  psql --host 127.0.0.1 --port {} postgres\n\
             See how it is:\n  {} status --cluster-name {CLUSTER} --store-endpoints {}\n\
             Ask each daemon:\n{}\n\
             Logs are in {}. What dies is started again: kill what you like. Ctrl-C ends it all.",
            self.port,
            own.display(),
            self.endpoint(),
            lines.collect::<Vec<_>>().join("\n"),
            self.folder.display(),
        )
    }

    fn add(&mut self, name: &str, kind: Kind, path: &Path, args: Vec<String>, grpc: Option<u16>) {
        let grpc = grpc.map(|port| format!("127.0.0.1:{port}"));
        self.programs.push(Program { name: name.to_owned(), kind, path: path.to_owned(), args, grpc });
    }

    fn daemon_args(&self, own: &[(&str, String)]) -> Vec<String> {
        let common = [("--cluster-name", CLUSTER.to_owned()), ("--store-endpoints", self.endpoint())];
        flat(common.iter().chain(own))
    }

    fn etcd_args(&self, peer: u16) -> Vec<String> {
        let peer = format!("http://127.0.0.1:{peer}");
        let pairs = [
            ("--name", "etcd".to_owned()),
            ("--data-dir", self.folder.join("etcd").display().to_string()),
            ("--listen-client-urls", self.endpoint()),
            ("--advertise-client-urls", self.endpoint()),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("etcd={peer}")),
        ];
        flat(pairs.iter())
    }
}

fn flat<'a>(pairs: impl Iterator<Item = &'a (&'a str, String)>) -> Vec<String> {
    pairs.flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect()
}
