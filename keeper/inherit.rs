//! What a keeper finds running at its start (R1): a server of the former keeper on this directory is adopted, together
//! with that keeper's lease; a lease whose server is gone is given back, so that nobody waits for it.

use std::time::Duration;

use stolon::{
    model::LeaseId,
    store::{Begin, Store},
    task::clock,
};

use crate::{
    ground::Ground,
    guard::Armed,
    journal::Writer,
    pg::{PmStatus, Postmaster, ProcessId},
    state::{Phase, State},
    synchronous::Synchronous,
};

/// An adopted primary whose guard was killed too may run on for this long while etcd is asked whether the former keeper's
/// lease lives: the deadline of that lease is not known then. To kill it at once would make a failover of two accidents that
/// the lease survives; proxies close by themselves, and a direct connection gets 2 s at most (R12).
const INHERIT: Duration = Duration::from_secs(2);
/// For giving a dead server's lease back; it runs out by itself otherwise.
const REVOKE: Duration = Duration::from_secs(1);

pub struct Inheritance {
    pub server: Option<(Postmaster, Phase)>,
    pub begin: Begin,
}

/// `armed`: what a guard that the former keeper left holds.
pub async fn inherit(
    ground: &Ground,
    state: &mut State,
    store: &Store,
    armed: Option<Armed>,
) -> Result<Inheritance, String> {
    let server = Postmaster::adopt(&ground.instance).map_err(|error| error.to_string())?;
    let writer = state.journal.writer.clone().filter(|writer| same_place(writer, ground));
    let Some(server) = server else {
        // A session that outlived its postmaster may still commit: it goes before anybody may have the lease.
        let leftovers = tokio::task::block_in_place(|| ground.instance.kill_leftovers());
        if leftovers.processes > 0 {
            tracing::warn!(processes = leftovers.processes, "killed what a dead postmaster left behind");
        }
        if let Some(writer) = writer {
            give_back(store, writer.lease).await;
        }
        return Ok(Inheritance { server: None, begin: Begin::Anew });
    };
    let phase = phase(&server);
    tracing::info!(pid = server.id().pid, ?phase, "adopted the running PostgreSQL");
    let id = server.id();
    let lease =
        writer.filter(|writer| writer.postmaster.is_some_and(|of| same_process(id, of))).map(|writer| writer.lease);
    state.synchronous = Synchronous::started(Vec::new(), ground.instance.admits_internal_only());
    // Armed before the start, a guard has not been told the postmaster yet.
    let guarded = armed.filter(|armed| armed.postmaster.is_none_or(|of| of == id));
    // A standby that was asked to promote may become a primary at any moment.
    if phase.may_serve() || guarded.is_some() && state.journal.half_promoted() {
        state.inherits_until = Some(guarded.map_or(clock::now() + INHERIT, |armed| armed.until));
    }
    Ok(Inheritance { server: Some((server, phase)), begin: lease.map_or(Begin::Anew, Begin::Adopt) })
}

fn same_place(writer: &Writer, ground: &Ground) -> bool {
    let place = &ground.place;
    writer.boot == place.boot && writer.device == place.device && writer.inode == place.inode
}

fn same_process(id: ProcessId, of: crate::journal::PostmasterId) -> bool {
    (of.pid, of.started) == (id.pid, id.started)
}

fn phase(server: &Postmaster) -> Phase {
    let ready = server.status() == Some(PmStatus::Ready);
    match (server.instance().is_standby(), ready) {
        // A promotion that was under way counts as done: the server may take writes.
        (false, true) => Phase::Primary,
        (false, false) => Phase::StartingPrimary,
        (true, true) if server.instance().in_production() => Phase::Primary,
        (true, true) => Phase::Standby,
        (true, false) => Phase::StartingStandby,
    }
}

/// The directory is locked, this is the boot and place of the lease's holder, and its server is gone (R1).
async fn give_back(store: &Store, lease: LeaseId) {
    if tokio::time::timeout(REVOKE, store.revoke(lease)).await.is_ok_and(|revoked| revoked.is_ok()) {
        tracing::info!(%lease, "gave the lease of this directory's former keeper back");
    }
}
