//! Knocks at a PostgreSQL server, and dials to a keeper (R14, R15): what a kernel says of somebody else's process.

use std::{rc::Rc, time::Duration};

use stolon::model::report::ProbeResult;

use crate::{
    net::Class,
    town::Town,
    world::{HostId, MS},
};

/// Does PostgreSQL on a host answer?
pub async fn knock(town: &Rc<Town>, from: HostId, target: HostId, limit: Duration) -> ProbeResult {
    let there = town.machines[target].clone();
    let world = town.world.clone();
    let asked = town.world.ask(from, target, Class::Sql, move |reply| match there.running() {
        None => reply.send(ProbeResult::Refused),
        Some(server) => {
            let process = server.process.clone();
            there.world.rt.spawn(&process, async move { reply.send(ProbeResult::Answered) });
        }
    });
    world.within_time(from, limit, asked).await.flatten().unwrap_or(ProbeResult::TimedOut)
}

/// Does a keeper's port take connections?
pub async fn dial(town: &Rc<Town>, from: HostId, target: HostId, limit: Duration) -> ProbeResult {
    let there = town.clone();
    let asked = town.world.ask(from, target, Class::Grpc, move |reply| {
        let alive = there.keeper(target).is_some();
        reply.send(if alive { ProbeResult::Answered } else { ProbeResult::Refused });
    });
    let found = town.world.within_time(from, limit, asked).await.flatten().unwrap_or(ProbeResult::TimedOut);
    town.world.rt.sleep(MS / 10).await;
    found
}
