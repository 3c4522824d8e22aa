//! The floor: two bare servers of PostgreSQL, no manager. The primary is killed and the standby told to promote in the
//! same instant; how long a client that knows both addresses goes without an acknowledgement is what no manager can be
//! quicker than.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stolon_tests::{
    eventually,
    ports::free_port,
    postmaster, proc,
    process::{Process, tail},
    sql::Target,
};

use crate::{
    client::{Load, Style},
    gap::gap,
    hosts::signal_all,
    kinds::Mode,
    trial::pressure,
};

/// OS user of the servers: PostgreSQL refuses to be root.
const USER: &str = "postgres";
const WAIT: Duration = Duration::from_secs(60);
/// A promotion that is asked for while the walreceiver ends is overheard: asked again it is not.
const NUDGE: Duration = Duration::from_millis(4);
/// Rows that the client has acknowledged before the strike.
const WARM: usize = 200;

/// One server of the pair.
struct Server {
    data: PathBuf,
    port: u16,
    process: Option<Process>,
}

pub struct Floor {
    folder: PathBuf,
    programs: PathBuf,
    owner: (u32, u32),
    mode: Mode,
    /// The primary first.
    pair: [Server; 2],
    round: usize,
}

/// What one trial came to.
pub struct Fallen {
    pub gap: Duration,
    pub acknowledged: usize,
    pub lost: usize,
    /// As `record::FloorTrial`'s.
    pub pressure: f64,
}

impl Floor {
    /// Makes the pair below `folder`.
    pub async fn start(folder: PathBuf, mode: Mode) -> Floor {
        let owner = (id("-u"), id("-g"));
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        chown(&folder, Some(owner.0), Some(owner.1)).expect("the folder's owner can be changed by root");
        let server = |name: &str| Server { data: folder.join(name), port: free_port(), process: None };
        let pair = [server("a"), server("b")];
        let mut floor = Floor { programs: programs(), owner, mode, pair, round: 0, folder };
        let data = floor.pair[0].data.display().to_string();
        floor.run("initdb", &["-D", &data, "-U", "admin", "--auth", "trust", "-E", "UTF8"]);
        floor.configure(0);
        floor.launch(0).await;
        floor.follow().await;
        floor
    }

    /// The settings that keepers use, as far as they matter here.
    fn configure(&self, index: usize) {
        let server = &self.pair[index];
        let names = if self.mode == Mode::Sync && index == 0 { "*" } else { "" };
        let text = format!(
            "include = 'postgresql.conf'\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             wal_level = replica\nwal_log_hints = on\nhot_standby = on\nmax_wal_senders = 10\nwal_keep_size = 128\n\
             restart_after_crash = off\nwal_retrieve_retry_interval = 100ms\nsynchronous_standby_names = '{names}'\n",
            server.port,
            self.folder.display(),
        );
        let path = server.data.join("floor.conf");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        chown(&path, Some(self.owner.0), Some(self.owner.1)).expect("the file's owner can be changed by root");
    }

    async fn launch(&mut self, index: usize) {
        let server = &self.pair[index];
        let config = format!("config_file={}", server.data.join("floor.conf").display());
        let mut command = self.command("postgres");
        command.arg("-D").arg(&server.data).args(["-c", &config]);
        let name = format!("floor-{}", server.port);
        self.pair[index].process = Some(Process::spawn(&self.folder, &name, command));
        let target = self.target(index);
        eventually("a bare server answers", WAIT, async || target.value("SELECT 1").await).await;
    }

    /// Makes the second server a standby of the first.
    async fn follow(&mut self) {
        let (primary, standby) = (self.pair[0].port.to_string(), self.pair[1].data.clone());
        if standby.exists() {
            postmaster::release(&standby);
            fs::remove_dir_all(&standby).unwrap_or_else(|e| panic!("{}: {e}", standby.display()));
        }
        let to = standby.display().to_string();
        self.run(
            "pg_basebackup",
            &["-h", "127.0.0.1", "-p", &primary, "-U", "admin", "-D", &to, "-X", "stream", "-c", "fast", "-R"],
        );
        self.configure(1);
        self.launch(1).await;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn = pg_current_wal_lsn() \
                   AND (sync_state = 'sync' OR current_setting('synchronous_standby_names') = '')";
        let target = self.target(0);
        eventually("the bare standby streams", WAIT, async || match target.value(sql).await?.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
    }

    /// One trial; the pair is whole again afterwards.
    pub async fn fall(&mut self) -> Fallen {
        self.round += 1;
        let style =
            Style { targets: vec![self.target(0), self.target(1)], writers: 1, pause: Duration::from_millis(2) };
        let load = Load::start(&style, WARM).await;
        let old = load.timeline();
        let postmaster = |server: &Server| server.process.as_ref().map_or(0, Process::pid);
        let (victim, heir) = (postmaster(&self.pair[0]), postmaster(&self.pair[1]));
        let mut victims = proc::tree(victim);
        victims.sort_unstable_by(|a, b| b.cmp(a));
        let pressure = pressure();
        let struck = Instant::now();
        signal_all(&victims, Signal::KILL);
        self.promote(heir, &load, old).await;
        load.flows(1, 20, Instant::now()).await;
        let written = load.stop().await;
        let found = gap(&written.acks, struck).expect("rows were acknowledged before and after");
        self.pair.swap(0, 1);
        let lost = written.lost(&self.target(0)).await;
        self.pair[1].process = None;
        if self.mode == Mode::Sync {
            // The new primary has waited for nobody so far: what it wrote is no sample.
            self.configure(0);
            proc::signal(heir, Signal::HUP);
        }
        self.follow().await;
        Fallen { gap: found.length(), acknowledged: written.acks.len(), lost, pressure }
    }

    /// Asks until it is done.
    async fn promote(&self, postmaster: u32, load: &Load, old: u32) {
        let request = self.pair[1].data.join("promote");
        let done = tokio::time::timeout(WAIT, async {
            while load.timeline() <= old {
                if fs::write(&request, b"").is_ok() {
                    // The server takes the file away by itself; in its own folder the owner does not matter.
                    proc::signal(postmaster, Signal::USR1);
                }
                tokio::time::sleep(NUDGE).await;
            }
        });
        if done.await.is_err() {
            panic!("the bare standby on port {} was not promoted in {} s", self.pair[1].port, WAIT.as_secs());
        }
        let _ = fs::remove_file(&request);
    }

    fn target(&self, index: usize) -> Target {
        let mut target = Target::loopback(self.pair[index].port);
        target.user = "admin".into();
        target
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.uid(self.owner.0).gid(self.owner.1).env("LC_ALL", "C.UTF-8");
        command
    }

    fn run(&self, program: &str, args: &[&str]) {
        let out = self.command(program).args(args).current_dir(&self.folder).output();
        let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {}: {}", args.join(" "), tail(&said, 3));
    }
}

fn id(flag: &str) -> u32 {
    let out = Command::new("id").args([flag, USER]).output().expect("id can be run");
    let text = String::from_utf8_lossy(&out.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("no OS user {USER} (the package postgresql makes it)"))
}

/// The distribution's newest, as the keeper takes it.
fn programs() -> PathBuf {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let with_server = |path: &PathBuf| path.join("bin/postgres").is_file();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<f64>().ok()).unwrap_or(0.0);
    let newest = entries.map(|entry| entry.path()).filter(with_server).max_by(|a, b| version(a).total_cmp(&version(b)));
    newest
        .map(|path| path.join("bin"))
        .unwrap_or_else(|| panic!("no PostgreSQL below {}", Path::new("/usr/lib/postgresql").display()))
}
