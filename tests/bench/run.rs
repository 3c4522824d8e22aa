//! The order of trials: round after round, each kind once and the floor once, so that whatever else the machine does
//! strikes all alike. A trial that fails is recorded, its cluster thrown away, and the next one begins with a new one.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use stolon_tests::{
    Test,
    collector::Collector,
    netns::{Network, SWITCH},
};

use crate::{
    floor::{Fallen, Floor},
    hosts::{Hosts, Setup},
    kinds::{Handover, Kind, Mode},
    record::{Failure, FloorTrial, Folder, Records},
    trial::{ms, trial, unix_seconds},
};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kinds: Vec<Kind>,
    pub modes: Vec<Mode>,
    pub trials: usize,
    pub by: Handover,
    pub floor: bool,
}

/// A trial that failed this often in one run is given up: the next run tries again.
const PATIENCE: usize = 3;

/// What stands while trials of one mode run.
struct Scene<'n> {
    hosts: Hosts<'n>,
    collector: Collector,
    floor: Option<Floor>,
}

/// Runs what is missing in the folder. To be called inside the switch's namespace. False when a trial failed.
pub async fn run(plan: &Plan, folder: &Folder, network: &Network) -> Result<bool, String> {
    let mut well = true;
    for mode in &plan.modes {
        well &= run_mode(plan, *mode, folder, network).await?;
    }
    Ok(well)
}

async fn run_mode(plan: &Plan, mode: Mode, folder: &Folder, network: &Network) -> Result<bool, String> {
    let mut scene = None;
    let (mut failed, mut well) = (vec![0; plan.kinds.len() + 1], true);
    loop {
        let records = folder.read()?;
        let Some((index, kind)) = next(plan, mode, &records, &failed) else { return Ok(well) };
        let attempt = AssertUnwindSafe(one(plan, mode, kind, folder, network, &mut scene)).catch_unwind().await;
        match attempt {
            Ok(written) => written?,
            Err(panic) => {
                let error = said(panic.as_ref());
                println!("{mode} {}: FAILED: {error}", name(kind));
                if let Some(Scene { hosts, .. }) = &scene {
                    println!("  logs are kept in {}", folder.keep_logs(hosts.folder())?.display());
                }
                folder.failure(&Failure { kind, mode, at: unix_seconds(), error })?;
                (scene, well) = (None, false);
                failed[index] += 1;
            }
        }
    }
}

/// The kind with the fewest trials, the floor at last; `None` when all have enough.
fn next(plan: &Plan, mode: Mode, records: &Records, failed: &[usize]) -> Option<(usize, Option<Kind>)> {
    let kinds = plan.kinds.iter().map(|kind| (Some(*kind), records.of(mode, *kind).len()));
    let floor = plan.floor.then(|| (None, records.floor_of(mode).len()));
    let all = kinds.enumerate().chain(floor.map(|floor| (plan.kinds.len(), floor)));
    let open = all.filter(|(index, (_, done))| *done < plan.trials && failed[*index] < PATIENCE);
    open.min_by_key(|(index, (_, done))| (*done, *index)).map(|(index, (kind, _))| (index, kind))
}

async fn one<'n>(
    plan: &Plan,
    mode: Mode,
    kind: Option<Kind>,
    folder: &Folder,
    network: &'n Network,
    scene: &mut Option<Scene<'n>>,
) -> Result<(), String> {
    let scene = match scene {
        Some(scene) => scene,
        None => scene.insert(stage(mode, network).await),
    };
    let Some(kind) = kind else { return fall(scene, mode, folder).await };
    let result = trial(&mut scene.hosts, &scene.collector, kind, mode, plan.by).await;
    println!(
        "{mode} {kind}: {:.0} ms, {} of {} acknowledged rows lost{}",
        result.gap_ms,
        result.lost,
        result.acknowledged,
        if result.in_place { ", restarted in place" } else { "" }
    );
    folder.trial(&result)
}

async fn fall(scene: &mut Scene<'_>, mode: Mode, folder: &Folder) -> Result<(), String> {
    let floor = match &mut scene.floor {
        Some(floor) => floor,
        None => scene.floor.insert(Floor::start(scene.hosts.folder().join("floor"), mode).await),
    };
    let fallen = floor.fall().await;
    println!(
        "{mode} floor: {:.0} ms, {} of {} acknowledged rows lost",
        ms(fallen.gap),
        fallen.lost,
        fallen.acknowledged
    );
    let Fallen { gap, acknowledged, lost, pressure } = fallen;
    folder.floor(&FloorTrial { mode, at: unix_seconds(), gap_ms: ms(gap), acknowledged, lost, pressure })
}

async fn stage(mode: Mode, network: &Network) -> Scene<'_> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    network.hosts.iter().for_each(|host| host.heal(network));
    let collector = Collector::start_at(SWITCH).await;
    let setup = Setup { spec: specification(mode), collector: Some(collector.endpoint.clone()), disks: false };
    let test = Test::standalone(&format!("bench-{mode}-{}", COUNT.fetch_add(1, Ordering::SeqCst)));
    let hosts = Hosts::start(test, network, setup).await;
    Scene { hosts, collector, floor: None }
}

/// Initial cluster specification; asynchronous clusters have the automatic one.
pub fn specification(mode: Mode) -> Option<Value> {
    (mode == Mode::Sync).then(|| {
        json!({"initMode": "new", "usePgrewind": true, "synchronousReplication": true,
               "minSynchronousStandbys": 1, "maxSynchronousStandbys": 1})
    })
}

fn name(kind: Option<Kind>) -> String {
    kind.map_or_else(|| "floor".to_owned(), |kind| kind.to_string())
}

/// The text of a panic, in one line.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.map_or_else(|| "panicked".to_owned(), |text| text.split_whitespace().collect::<Vec<_>>().join(" "))
}
