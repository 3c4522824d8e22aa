//! Does to a stage what a fault says: finds the hosts and the processes, and strikes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use stolon_tests::{
    netfault::Drops,
    proc,
    stage::{Role, Stage},
    wait::pause_until,
    within,
};

use crate::fault::{Act, From, Prey, Strike, Way, When, Who};

/// Until a change of the primary is as far as a strike wants it.
const STAGE: Duration = Duration::from_secs(40);

/// Who was what before the first strike.
#[derive(Clone, Debug)]
pub struct Scene {
    pub primary: usize,
    pub epoch: u64,
    pub leader: usize,
    pub etcd_leader: usize,
}

impl Scene {
    pub async fn look(stage: &Stage<'_>) -> Result<Scene, String> {
        let (primary, epoch) = stage.primary().await?;
        Ok(Scene { primary, epoch, leader: stage.leader().await?, etcd_leader: stage.etcd.leader().await? })
    }

    fn hosts(&self, stage: &Stage<'_>, who: Who, winner: Option<usize>) -> Vec<usize> {
        let databases = stage.hosts_of(Role::Keeper);
        let others = |than: usize| databases.iter().copied().filter(move |host| *host != than);
        let proxies = stage.hosts_of(Role::Proxy);
        match who {
            Who::Primary => vec![self.primary],
            Who::Standby => others(self.primary).take(1).collect(),
            Who::Standbys => others(self.primary).collect(),
            Who::Leader => vec![self.leader],
            Who::Follower => others(self.leader).take(1).collect(),
            Who::EtcdLeader => vec![self.etcd_leader],
            Who::EtcdFollower => {
                let mut found: Vec<usize> = others(self.etcd_leader).collect();
                found.sort_by_key(|host| *host == self.primary);
                found[..1].to_vec()
            }
            Who::Databases => databases,
            Who::OneProxy => proxies[..1].to_vec(),
            Who::AllProxies => proxies,
            Who::Winner => winner.into_iter().collect(),
        }
    }
}

/// Proxies, by their place among all, that no strike touches.
pub fn spared(strikes: &[Strike], all: usize) -> Vec<usize> {
    let struck = |who| strikes.iter().any(|strike| strike.who == who);
    let first = if struck(Who::AllProxies) { all } else { usize::from(struck(Who::OneProxy)) };
    (first..all).collect()
}

/// Strikes in order; gives the moment of the first and of the last one.
pub async fn strike_all(
    stage: &mut Stage<'_>,
    scene: &Scene,
    strikes: &[Strike],
) -> Result<(Instant, Instant), String> {
    let mut first = None;
    let mut last = Instant::now();
    for strike in strikes {
        let winner = wait_for(stage, scene, strike.when, last).await?;
        last = Instant::now();
        first.get_or_insert(last);
        let hosts = scene.hosts(stage, strike.who, winner);
        if hosts.is_empty() {
            return Err(format!("nobody is {:?}", strike.who));
        }
        for host in hosts {
            act(stage, host, strike.act).await.map_err(|problem| format!("{strike:?} at host {host}: {problem}"))?;
        }
    }
    Ok((first.unwrap_or(last), last))
}

/// Gives the host of a newly elected primary, when that was waited for.
async fn wait_for(stage: &Stage<'_>, scene: &Scene, when: When, last: Instant) -> Result<Option<usize>, String> {
    match when {
        When::After(milliseconds) => {
            pause_until(last + Duration::from_millis(milliseconds)).await;
            Ok(None)
        }
        When::Marked => {
            within("a mark in the cluster data", STAGE, async || {
                let keys = stage.keys().await?;
                let marked = keys.data.as_ref().is_some_and(|data| data.fencing().is_some());
                if marked || keys.epoch() > scene.epoch { Ok(None) } else { Err("none".to_owned()) }
            })
            .await
        }
        When::Elected => {
            within("another primary is named", STAGE, async || {
                let primary = stage.keys().await?.primary.ok_or("no primary")?;
                let host = primary.keeper.as_str().trim_start_matches("host").parse().ok();
                if primary.epoch.0 > scene.epoch { Ok(host) } else { Err(format!("{primary:?}")) }
            })
            .await
        }
    }
}

async fn act(stage: &mut Stage<'_>, host: usize, act: Act) -> Result<(), String> {
    match act {
        Act::Kill(prey) => signal(stage, host, prey, Signal::KILL)?,
        Act::Freeze(prey) => signal(stage, host, prey, Signal::STOP)?,
        Act::Vanish => {
            stage.network.hosts[host].cut(stage.network);
            signal(stage, host, Prey::Everything, Signal::STOP)?;
        }
        Act::Cut(From::World, Way::Both) => stage.network.hosts[host].cut(stage.network),
        Act::Cut(from, way) => stage.network.hosts[host].drop_packets(&drops(stage, host, from, way)),
        Act::Lose(percent) => {
            let rule = |side: &str| format!("{side} eth0 numgen random mod 100 < {percent}");
            let drops = Drops { arriving: vec![rule("iifname")], leaving: vec![rule("oifname")] };
            stage.network.hosts[host].drop_packets(&drops);
        }
        Act::Slow(kilobits) => stage.network.hosts[host].slow(stage.network, kilobits),
        Act::Delay(milliseconds) => stage.delay(host, milliseconds),
        Act::StallDisk => stage.disk(host).freeze(),
        Act::FillDisk => stage.disk(host).fill(),
        Act::WriteMuch => {
            let piece = "SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 1 << 20))";
            // It dies of it, or refuses.
            let _ = stage.server(host).query(&vec![piece; 100].join("; ")).await;
        }
        Act::Mend => stage.mend(host),
    }
    Ok(())
}

fn signal(stage: &Stage<'_>, host: usize, prey: Prey, signal: Signal) -> Result<(), String> {
    let of = |role| stage.pid(host, role).into_iter().collect::<Vec<_>>();
    let pids = match prey {
        Prey::Postmaster => stage.postmaster(host).into_iter().collect(),
        Prey::Postgres => stage.postgres(host),
        Prey::Keeper => of(Role::Keeper),
        Prey::KeeperAndPostgres => [of(Role::Keeper), stage.postgres(host)].concat(),
        Prey::Sentinel => of(Role::Sentinel),
        Prey::Proxy => of(Role::Proxy),
        Prey::Etcd => of(Role::Etcd),
        Prey::Everything => stage.processes(host),
    };
    if pids.is_empty() {
        return Err("no such process runs there".to_owned());
    }
    // The youngest first, which are clients' sessions: what they acknowledged last is already on its way to standbys.
    pids.into_iter().rev().for_each(|pid| proc::signal(pid, signal));
    Ok(())
}

fn drops(stage: &Stage<'_>, host: usize, from: From, way: Way) -> Drops {
    let addresses = |role| {
        let others = stage.hosts_of(role).into_iter().filter(|other| *other != host);
        let list: Vec<String> = others.map(|other| stage.address(other).to_owned()).collect();
        format!("{{ {} }}", list.join(", "))
    };
    // What arrives, and what leaves; a port is the server's, at either end.
    let ports = |ports: &str| -> Drops {
        let both = || vec![format!("tcp dport {ports}"), format!("tcp sport {ports}")];
        Drops { arriving: both(), leaving: both() }
    };
    let of = |role, port: u16| Drops {
        arriving: vec![
            format!("ip saddr {} tcp dport {port}", addresses(role)),
            format!("ip saddr {} tcp sport {port}", addresses(role)),
        ],
        leaving: vec![
            format!("ip daddr {} tcp dport {port}", addresses(role)),
            format!("ip daddr {} tcp sport {port}", addresses(role)),
        ],
    };
    let mut drops = match from {
        From::World => Drops { arriving: vec!["iifname eth0".into()], leaving: vec!["oifname eth0".into()] },
        From::Store => ports("{ 2379, 2380 }"),
        From::Sentinels => ports("6431"),
        From::OtherDatabases => of(Role::Keeper, 5432),
        From::Clients => of(Role::Proxy, 5432),
    };
    match way {
        Way::Both => {}
        Way::In => drops.leaving.clear(),
        Way::Out => drops.arriving.clear(),
    }
    drops
}

/// What the stage's faults need from the machine, as far as it is missing.
pub fn missing() -> Option<String> {
    let has = |program: &str| {
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
    };
    let programs = [("nft", "nftables"), ("tc", "iproute2"), ("mkfs.ext4", "e2fsprogs"), ("fsfreeze", "util-linux")];
    let lacking = programs.iter().find(|(program, _)| !has(program));
    lacking.map(|(program, package)| format!("{program} is missing (Debian: {package})"))
}
