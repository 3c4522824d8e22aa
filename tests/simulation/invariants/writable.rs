//! After all faults have ended the cluster becomes writable within a bound, for clients of every proxy.

use std::rc::Rc;

use crate::{
    audit::Via,
    runtime::Micros,
    town::Town,
    world::{HostId, SEC},
};

/// After the last fault.
pub const BOUND: Micros = 22 * SEC;

pub fn judge(town: &Rc<Town>) {
    let (world, settings) = (&town.world, &town.world.settings);
    let from = settings.healed + BOUND;
    for host in settings.databases..world.hosts.len() {
        if !wrote_since(town, host, from) {
            let last = town.world.audit.borrow().acks.iter().rev().find(|ack| by(ack, host)).map(|ack| ack.at);
            let what = format!(
                "nothing was acknowledged through the proxy on host {host} in the last {} s; the last time at {:.3} s",
                (settings.end - from) / SEC,
                last.unwrap_or(0) as f64 / 1e6
            );
            world.audit.borrow_mut().found(world.rt.now(), "writable", what);
        }
    }
}

fn wrote_since(town: &Rc<Town>, host: HostId, from: Micros) -> bool {
    town.world.audit.borrow().acks.iter().rev().take_while(|ack| ack.at >= from).any(|ack| by(ack, host))
}

fn by(ack: &crate::audit::Ack, host: HostId) -> bool {
    matches!(ack.via, Via::Proxy { host: via, .. } if via == host)
}
