//! Auditing clients: one behind each proxy, one beside each server. Each remembers what was acknowledged to it.

use std::{rc::Rc, time::Duration};

use crate::{
    audit::{Ack, Via},
    connection::Connection,
    net::Class,
    postgres::Commit,
    runtime::answer,
    town::Town,
    world::{HostId, MS},
};

/// A client gives a write up, and its connection.
const PATIENCE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(10);

pub fn start(town: &Rc<Town>) {
    let world = &town.world;
    for host in 0..world.hosts.len() {
        let process = world.process(host, "client");
        if host < world.settings.databases {
            world.rt.spawn(&process, directly(town.clone(), host));
        } else {
            world.rt.spawn(&process, through(town.clone(), host));
        }
    }
}

/// Writes to the server of the same host whenever that takes writes.
async fn directly(town: Rc<Town>, host: HostId) {
    let (world, pause) = (town.world.clone(), town.world.settings.write_pause * 2);
    loop {
        world.rt.sleep(world.within(pause / 2, pause * 3 / 2)).await;
        let there = town.machines[host].clone();
        if there.primary().is_none() {
            continue;
        }
        let asked = world.ask(host, host, Class::Sql, move |reply| there.arrive(reply));
        if let Some(Ok(commit)) = world.within_time(host, PATIENCE, asked).await.flatten() {
            acknowledged(&town, Via::Directly, commit);
        }
    }
}

fn acknowledged(town: &Rc<Town>, via: Via, commit: Commit) {
    let now = town.world.rt.now();
    town.world.count(match via {
        Via::Directly => "commits acknowledged directly",
        Via::Proxy { .. } => "commits acknowledged through proxies",
    });
    town.acknowledged(&Ack { at: now, via, commit });
}

async fn through(town: Rc<Town>, host: HostId) {
    let (world, pause) = (town.world.clone(), town.world.settings.write_pause);
    loop {
        if let Some(connection) = connect(&town, host).await {
            let epoch = connection.pass.route.epoch;
            while let Some(commit) = write(&town, host, &connection).await {
                acknowledged(&town, Via::Proxy { host, epoch }, commit);
                world.rt.sleep(world.within(pause / 2, pause * 3 / 2)).await;
            }
            connection.close();
        }
        world.rt.sleep(world.within(10 * MS, 100 * MS)).await;
    }
}

async fn connect(town: &Rc<Town>, host: HostId) -> Option<Rc<Connection>> {
    let proxy = town.proxy(host)?;
    let (question, answer) = answer();
    let process = proxy.process.clone();
    town.world.rt.spawn(&process, async move {
        let world = proxy.world.clone();
        if let Some(connection) = world.within_time(host, CONNECT, proxy.reach()).await {
            question.answer(connection);
        }
    });
    town.world.within_time(host, CONNECT, answer).await.flatten()
}

/// The proxy that took the connection must be there still.
async fn write(town: &Rc<Town>, host: HostId, connection: &Rc<Connection>) -> Option<Commit> {
    let proxy = connection.proxy();
    let (question, answer) = answer();
    let (process, connection) = (proxy.process.clone(), connection.clone());
    town.world.rt.spawn(&process, async move {
        if let Some(commit) = proxy.forward(connection).await {
            question.answer(commit);
        }
    });
    town.world.within_time(host, PATIENCE, answer).await.flatten()
}
