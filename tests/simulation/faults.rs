//! The nemesis: which faults strike whom, when, and for how long. Every fault ends; what it broke stays broken.

use std::rc::Rc;

use crate::{
    net::{CLASSES, Class},
    runtime::{Micros, Proc},
    town::Town,
    world::{HostId, MS, SEC},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillPostmaster,
    KillPostgres,
    KillKeeper,
    KillKeeperAndPostgres,
    KillSentinel,
    KillEtcd,
    KillGuard,
    KillProxy,
    KillAll,
    /// SIGTERM to the keeper: it hands over.
    Leave,
    PausePostgres,
    PauseKeeper,
    PauseKeeperAndGuard,
    PauseSentinel,
    PauseEtcd,
    PauseProxy,
    /// A virtual machine that stands still.
    Freeze,
    PowerOff,
    /// Cut off from everybody.
    Isolate,
    /// Nothing goes out, everything comes in, or the other way round.
    Deaf,
    Mute,
    CutEtcd,
    CutStreams,
    CutWal,
    CutSql,
    Lossy,
    Slow,
    Compact,
    /// A majority of etcd's members is gone.
    NoQuorum,
}

const OF_DATABASES: [Fault; 27] = [
    Fault::KillPostmaster,
    Fault::KillPostgres,
    Fault::KillKeeper,
    Fault::KillKeeperAndPostgres,
    Fault::KillSentinel,
    Fault::KillEtcd,
    Fault::KillGuard,
    Fault::KillAll,
    Fault::Leave,
    Fault::PausePostgres,
    Fault::PauseKeeper,
    Fault::PauseKeeperAndGuard,
    Fault::PauseSentinel,
    Fault::PauseEtcd,
    Fault::Freeze,
    Fault::PowerOff,
    Fault::Isolate,
    Fault::Deaf,
    Fault::Mute,
    Fault::CutEtcd,
    Fault::CutStreams,
    Fault::CutWal,
    Fault::CutSql,
    Fault::Lossy,
    Fault::Slow,
    Fault::Compact,
    Fault::NoQuorum,
];

const OF_PROXIES: [Fault; 10] = [
    Fault::KillProxy,
    Fault::PauseProxy,
    Fault::Freeze,
    Fault::Isolate,
    Fault::CutEtcd,
    Fault::CutStreams,
    Fault::CutSql,
    Fault::Deaf,
    Fault::Mute,
    Fault::Slow,
];

/// Plans the faults of this seed: overlapping, most of them where it hurts.
pub fn plan(town: &Rc<Town>) {
    let world = &town.world;
    let (calm, healed) = (world.settings.calm, world.settings.healed);
    let bursts = world.within(1, 3);
    for burst in 0..bursts {
        let span = (healed - calm) / bursts;
        let begin = calm + span * burst + world.within(0, span / 4);
        let count = world.settings.faults.div_ceil(bursts).max(if burst == 0 { 3 } else { 1 });
        for _ in 0..count {
            let at = begin + world.within(0, span / 3);
            let length =
                if world.percent(60) { world.within(300 * MS, 4 * SEC) } else { world.within(2 * SEC, 12 * SEC) };
            let end = (at + length).min(healed);
            let own = town.clone();
            world.rt.call_at(at, move || {
                let (fault, host) = choose(&own);
                strike(&own, fault, host, end);
            });
        }
    }
}

fn choose(town: &Rc<Town>) -> (Fault, HostId) {
    let world = &town.world;
    if world.percent(15) {
        let host = world.settings.databases + world.rng.borrow_mut().below(world.settings.proxies);
        return (world.rng.borrow_mut().pick(&OF_PROXIES), host);
    }
    let fault = world.rng.borrow_mut().pick(&OF_DATABASES);
    let any = world.rng.borrow_mut().below(world.settings.databases);
    let host = match world.within(0, 9) {
        0..=5 => town.primary().unwrap_or(any),
        6 => town.leader().unwrap_or(any),
        7 => town.etcd.leader.get().unwrap_or(any),
        _ => any,
    };
    (fault, host)
}

/// Begins a fault that lasts until `end`.
pub fn strike(town: &Rc<Town>, fault: Fault, host: HostId, end: Micros) {
    let world = &town.world;
    world.say(host, || format!("FAULT: {fault:?} until {:.3} s", end as f64 / 1e6));
    world.count(&format!("fault: {fault:?}"));
    if town.etcd.state.borrow().newest().data().is_some_and(|(data, _)| data.fencing().is_some()) {
        world.count("double failures");
    }
    match fault {
        Fault::KillPostmaster => town.machines[host].behead(),
        Fault::KillPostgres => town.machines[host].kill(),
        Fault::KillKeeper => down(town, host, end, &["keeper"]),
        Fault::KillKeeperAndPostgres => down(town, host, end, &["keeper", "postgres"]),
        Fault::KillSentinel => down(town, host, end, &["sentinel"]),
        Fault::KillEtcd => down(town, host, end, &["etcd"]),
        Fault::KillProxy => down(town, host, end, &["proxy"]),
        Fault::KillGuard => kill_guard(town, host),
        Fault::KillAll => down(town, host, end, &["keeper", "postgres", "sentinel", "etcd"]),
        Fault::Leave => town.keeper(host).iter().for_each(|keeper| keeper.leave()),
        Fault::PausePostgres => pause(town, host, end, &["postgres"]),
        Fault::PauseKeeper => pause(town, host, end, &["keeper"]),
        Fault::PauseKeeperAndGuard => pause(town, host, end, &["keeper", "guard"]),
        Fault::PauseSentinel => pause(town, host, end, &["sentinel"]),
        Fault::PauseEtcd => pause(town, host, end, &["etcd"]),
        Fault::PauseProxy => pause(town, host, end, &["proxy"]),
        Fault::Freeze => freeze(town, host, end),
        Fault::PowerOff => power_off(town, host, end),
        Fault::Isolate => cut(town, host, end, &CLASSES, true, true),
        Fault::Deaf => cut(town, host, end, &CLASSES, false, true),
        Fault::Mute => cut(town, host, end, &CLASSES, true, false),
        Fault::CutEtcd => cut(town, host, end, &[Class::Etcd], true, true),
        Fault::CutStreams => cut(town, host, end, &[Class::Grpc], true, true),
        Fault::CutWal => cut(town, host, end, &[Class::Wal], true, true),
        Fault::CutSql => cut(town, host, end, &[Class::Sql], true, true),
        Fault::Lossy => worsen(town, host, end, 15, 0),
        Fault::Slow => worsen(town, host, end, 0, 150 * MS),
        Fault::Compact => town.etcd.compact(),
        Fault::NoQuorum => no_quorum(town, end),
    }
}

fn at_end(town: &Rc<Town>, end: Micros, heal: impl FnOnce(&Rc<Town>) + 'static) {
    let own = town.clone();
    town.world.rt.call_at(end, move || heal(&own));
}

/// Kills, and keeps the supervisor away until the end.
fn down(town: &Rc<Town>, host: HostId, end: Micros, kinds: &[&str]) {
    for kind in kinds {
        match *kind {
            "postgres" => town.machines[host].kill(),
            kind => town.world.processes(host, kind).iter().for_each(|process| town.world.rt.kill(process)),
        }
    }
    town.world.down.borrow_mut()[host] += 1;
    at_end(town, end, move |town| town.world.down.borrow_mut()[host] -= 1);
}

/// R4: it dies together with PostgreSQL; a keeper that lives sees to it.
fn kill_guard(town: &Rc<Town>, host: HostId) {
    let victim = town.guards[host].process.borrow().clone();
    town.world.rt.kill(&victim);
    let now = town.world.rt.now();
    town.world.audit.borrow_mut().thawed.insert(host, now);
    let own = town.clone();
    town.world.rt.call_in(5 * MS, move || {
        if own.keeper(host).is_some_and(|keeper| keeper.process.runs()) {
            own.machines[host].kill();
            own.guards[host].arm();
        }
    });
}

fn pause(town: &Rc<Town>, host: HostId, end: Micros, kinds: &[&str]) {
    let victims: Vec<Proc> = kinds.iter().flat_map(|kind| town.world.processes(host, kind)).collect();
    victims.iter().for_each(|victim| town.world.rt.pause(victim));
    at_end(town, end, move |town| {
        let now = town.world.rt.now();
        town.world.audit.borrow_mut().thawed.insert(host, now);
        // Who wakes first is chance.
        for victim in victims {
            let (own, late) = (town.clone(), town.world.within(0, 3 * MS));
            town.world.rt.call_in(late, move || own.world.rt.resume(&victim));
        }
    });
}

fn freeze(town: &Rc<Town>, host: HostId, end: Micros) {
    town.world.freeze(host);
    at_end(town, end, move |town| {
        let now = town.world.rt.now();
        town.world.audit.borrow_mut().thawed.insert(host, now);
        town.world.thaw(host);
    });
}

pub fn power_off(town: &Rc<Town>, host: HostId, end: Micros) {
    let world = &town.world;
    world.hosts[host].powered.set(false);
    if host < world.settings.databases {
        town.machines[host].kill();
    }
    let clients = world.processes(host, "client");
    let others = world.all_processes(host);
    others.iter().filter(|process| !clients.contains(process)).for_each(|process| world.rt.kill(process));
    at_end(town, end, move |town| {
        let world = &town.world;
        let boot = world.rng.borrow_mut().next();
        world.hosts[host].boot.set(boot);
        world.hosts[host].powered.set(true);
    });
}

fn cut(town: &Rc<Town>, host: HostId, end: Micros, classes: &'static [Class], out: bool, into: bool) {
    let others: Vec<HostId> = (0..town.world.hosts.len()).filter(|other| *other != host).collect();
    let each = move |town: &Rc<Town>, change: fn(&crate::net::Net, HostId, HostId, Class)| {
        for other in &others {
            for class in classes {
                if out {
                    change(&town.world.net, host, *other, *class);
                }
                if into {
                    change(&town.world.net, *other, host, *class);
                }
            }
        }
    };
    each(town, crate::net::Net::cut);
    at_end(town, end, move |town| each(town, crate::net::Net::heal));
}

fn worsen(town: &Rc<Town>, host: HostId, end: Micros, loss: u64, slow: Micros) {
    let all = move |town: &Rc<Town>, loss, slow| {
        for other in 0..town.world.hosts.len() {
            town.world.net.worsen(host, other, loss, slow);
            town.world.net.worsen(other, host, loss, slow);
        }
    };
    all(town, loss, slow);
    at_end(town, end, move |town| all(town, 0, 0));
}

fn no_quorum(town: &Rc<Town>, end: Micros) {
    let databases = town.world.settings.databases;
    let victims: Vec<HostId> = (0..databases).rev().take(databases / 2 + 1).collect();
    for victim in &victims {
        for process in town.world.processes(*victim, "etcd") {
            town.world.rt.pause(&process);
            at_end(town, end, move |town| town.world.rt.resume(&process));
        }
    }
}
