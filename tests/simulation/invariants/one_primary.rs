//! At most one primary that clients can commit to: through proxies always; directly as R12 says.

use std::rc::Rc;

use stolon::model::Epoch;
use stolon_sentinel::decide::Proof;

use crate::{
    audit::{Ack, Via},
    town::Town,
    world::SEC,
};

/// The longest that a primary which was replaced by the proxies' word alone may go on for direct clients: its lease.
const LEASE: u64 = 5 * SEC;
/// A machine that wakes up may acknowledge a little more (R12).
const WAKING: u64 = 2 * SEC;

pub fn acknowledged(town: &Rc<Town>, ack: &Ack) {
    let finding = {
        let audit = town.world.audit.borrow();
        let own = match ack.via {
            Via::Directly => ack.commit.epoch,
            Via::Proxy { epoch, .. } => epoch,
        };
        let later = audit.reigns.iter().filter(|reign| reign.epoch > own && reign.host != ack.commit.host);
        let first = later.min_by_key(|reign| reign.epoch).copied();
        match (ack.via, first) {
            (Via::Proxy { host, epoch }, _) if epoch != ack.commit.epoch => Some(format!(
                "a commit on h{} of epoch {} was acknowledged by the proxy on host {host} in epoch {epoch}",
                ack.commit.host, ack.commit.epoch
            )),
            (_, None) => None,
            (Via::Proxy { host, .. }, Some(later)) => Some(format!(
                "h{} acknowledged a commit of epoch {own} through the proxy on host {host}, while h{} was primary of epoch {}",
                ack.commit.host, later.host, later.epoch
            )),
            (Via::Directly, Some(later)) => {
                let proof = audit.elections.get(&own.next()).map(|election| election.proof);
                let asynchronous = proof == Some(Proof::ProxiesFenced) && ack.at <= later.at + LEASE;
                // R8: what was waiting when its standby left is on that standby, whoever acknowledges it late.
                let kept = proof == Some(Proof::ListBlocked) && has(town, later.host, ack);
                (!asynchronous && !kept && !wakes(town, ack)).then(|| {
                    format!(
                        "h{} acknowledged a direct commit of epoch {own}, while h{} was primary of epoch {} (proof {proof:?})",
                        ack.commit.host, later.host, later.epoch
                    )
                })
            }
        }
    };
    if let Some(what) = finding {
        town.world.say(ack.commit.host, || format!("FOUND: {what}"));
        town.world.audit.borrow_mut().found(ack.at, "one primary", what);
    }
}

fn has(town: &Town, host: usize, ack: &Ack) -> bool {
    town.machines[host].with_data(|data| data.wal.contains(&ack.commit.record)).unwrap_or(false)
}

/// The host's guard was dead or frozen a moment ago, or is.
fn wakes(town: &Rc<Town>, ack: &Ack) -> bool {
    let host = ack.commit.host;
    let thawed = town.world.audit.borrow().thawed.get(&host).copied();
    !town.guards[host].process.borrow().runs() || thawed.is_some_and(|at| ack.at <= at + WAKING)
}

/// For directed histories: nobody but the primary of this epoch takes writes.
pub fn writers(town: &Rc<Town>) -> Vec<(usize, Epoch)> {
    let machines = town.machines.iter();
    machines.filter_map(|machine| machine.primary().map(|server| (machine.host, server.epoch.get()))).collect()
}
