//! Tasks that bring what happens into the state: etcd's mirror and leases, sentinels' views, the server's death, samples and
//! probes; and the two that watch over authority: one reads it, one ends what has none.

use std::{sync::Arc, time::Duration};

use stolon::{
    model::{Moment, view::KeeperView},
    rpc::FromSentinel,
    store::{LeaseState, Mirror, Store},
    task::timer::Timer,
};
use tokio::sync::{mpsc, watch};

use crate::{
    authority::Grant,
    pg::{Instance, PmStatus, Postmaster, Sample, Sampler},
    shared::Shared,
    state::{Phase, State},
    synchronous::setting,
};

/// For the commit under a new synchronous list.
const COMMIT: Duration = Duration::from_secs(5);
/// A standby flushes in milliseconds: so many looks, this far apart, after a commit that it is to confirm.
const SOON: u32 = 10;
const FOLLOWER: Duration = Duration::from_millis(5);
/// Before authority that could not be read is asked for again.
const AGAIN: Duration = Duration::from_millis(50);

/// Never returns an error; ends with the store.
pub async fn mirror(shared: Shared, store: Store) -> Result<(), String> {
    let mut mirror = store.mirror();
    loop {
        let seen = mirror.borrow_and_update().clone();
        if let Some(seen) = seen {
            take_mirror(&shared, seen);
        }
        if mirror.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn take_mirror(shared: &Shared, mirror: Arc<Mirror>) {
    shared.change(|state, now| {
        let held = state.grant(now);
        let State { authority, lease, .. } = &mut *state;
        authority.observe(&mirror, lease.as_ref());
        let view = mirror.data().map(|(data, revision)| KeeperView::derive(data, revision, &state.me));
        match view {
            Some(Ok(view)) => offer(state, view),
            Some(Err(bad)) => tracing::debug!(%bad, "no view of these cluster data"),
            None => {}
        }
        state.mirror = Some(mirror);
        taken_away(state, held, now);
    });
}

/// Authority that went before its deadline may be back at once.
fn taken_away(state: &mut State, held: Option<Grant>, now: Moment) {
    if let Some(held) = held.filter(|_| state.grant(now).is_none()) {
        state.tolerate(&held, now);
    }
}

fn offer(state: &mut State, view: KeeperView) {
    let before = state.foreign.clone();
    state.offer(view);
    if !state.foreign.is_empty() && state.foreign != before {
        tracing::error!("{}", state.foreign);
    }
}

/// Views by streams: at once, and never older than what is known (R5).
pub async fn views(
    shared: Shared,
    store: Store,
    mut views: mpsc::Receiver<FromSentinel<KeeperView>>,
) -> Result<(), String> {
    while let Some(from) = views.recv().await {
        store.told(from.view.revision);
        shared.change(|state, _| offer(state, from.view));
    }
    Ok(())
}

pub async fn lease(shared: Shared, mut lease: watch::Receiver<Option<LeaseState>>) -> Result<(), String> {
    loop {
        let held = lease.borrow_and_update().clone();
        shared.change(|state, now| {
            let before = state.grant(now);
            state.lease = held;
            let State { authority, lease, mirror, .. } = &mut *state;
            if let Some(mirror) = mirror {
                authority.observe(mirror, lease.as_ref());
            }
            taken_away(state, before, now);
        });
        if lease.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// The postmaster's death, by its pidfd (R14).
pub async fn exits(shared: Shared) -> Result<(), String> {
    let mut server = shared.server();
    loop {
        let running: Option<Postmaster> = server.borrow_and_update().clone();
        let ended = async {
            match &running {
                Some(server) => server.exited().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = server.changed() => if changed.is_err() { return Ok(()) },
            exit = ended => {
                // The guard keeps the same deadline, and may be the quicker one: no crash.
                let (asked, fenced) = shared.change(|state, now| {
                    let fenced = !state.run.asked && state.must_die(now);
                    state.run.asked |= fenced;
                    (state.run.asked, fenced)
                });
                if fenced {
                    tracing::error!(pid = exit.id.pid, "no authority any more, and PostgreSQL has ended");
                }
                if let Some(server) = running.as_ref().filter(|_| !asked) {
                    // Both begin at once: the killing on a thread of its own, and the news on their way.
                    tokio::join!(shared.kill_remains(server), async { tell_crash(&shared, server) });
                } else {
                    shared.ended(exit.id);
                }
                if server.changed().await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn tell_crash(shared: &Shared, server: &Postmaster) {
    if shared.ended(server.id()) {
        tracing::error!(pid = server.id().pid, ending = server.ending(), "PostgreSQL ended, and nobody asked it to");
    }
}

/// An adopted server that was still starting gets ready.
pub async fn adopted(shared: Shared) -> Result<(), String> {
    let phase = shared.look(|state, _| state.run.phase);
    let next = match phase {
        Phase::StartingPrimary => Phase::Primary,
        Phase::StartingStandby => Phase::Standby,
        _ => return std::future::pending().await,
    };
    if let Some(server) = shared.running()
        && server.wait_status(&[PmStatus::Ready]).await.is_ok()
    {
        shared.change(|state, _| {
            if state.run.id == Some(server.id()) && state.run.phase == phase {
                state.run.phase = next;
            }
        });
    }
    std::future::pending().await
}

/// R4: at the deadline the primary dies, whatever else goes on.
pub async fn deadline(shared: Shared) -> Result<(), String> {
    let mut timer = Timer::new().map_err(|error| format!("no timer: {error}"))?;
    loop {
        let (must_die, until) = shared.look(|state, now| {
            let until = state.deadline(now).map(|deadline| deadline.until);
            (state.must_die(now), until.filter(|_| state.run.phase.may_serve()))
        });
        if must_die && let Some(server) = shared.running() {
            shared.change(|state, _| state.run.asked = true);
            let killed = server.kill_all().await;
            tracing::error!(processes = killed.processes, "no authority any more: PostgreSQL was killed");
            shared.ended(server.id());
        }
        tokio::select! {
            () = shared.fence() => {}
            () = timer.until_some(until) => shared.change(|_, _| ()),
        }
    }
}

/// R3: only a linearizable read gives authority.
pub async fn authority(shared: Shared, store: Store) -> Result<(), String> {
    loop {
        while let Some(lease) = shared.look(wanted) {
            match store.read().await {
                Ok(mirror) => shared.change(|state, _| {
                    // A lease that was renewed meanwhile is the same one; another one proves nothing.
                    if state.lease.as_ref().is_some_and(|held| held.id == lease.id) {
                        state.authority.read(&mirror, &lease);
                    }
                    if state.mirror.as_ref().is_none_or(|known| known.revision < mirror.revision) {
                        state.mirror = Some(mirror);
                    }
                }),
                Err(error) => {
                    tracing::debug!(%error, "authority can't be read");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        shared.authority().await;
    }
}

/// The lease to read for, when something says that authority may be there.
fn wanted(state: &State, now: Moment) -> Option<LeaseState> {
    let lease = state.lease.clone().filter(|lease| now < lease.deadline)?;
    let claimed = state.mirror.as_ref().is_some_and(|mirror| state.authority.needs_reading(mirror, Some(&lease)));
    // A view by stream may be ahead of the mirror.
    let named = state.view.as_ref().is_some_and(|view| {
        let behind = state.mirror.as_ref().is_none_or(|mirror| mirror.revision < view.revision);
        behind && view.fencing.is_none() && view.names_primary(&state.me) && state.grant(now).is_none()
    });
    (claimed || named).then_some(lease)
}

pub async fn samples(shared: Shared, sampler: Sampler) -> Result<(), String> {
    let mut samples = sampler.watch();
    loop {
        let sample = samples.borrow_and_update().clone();
        take_sample(&shared, sample);
        if samples.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn take_sample(shared: &Shared, sample: Option<Sample>) {
    let (news, confirmed) = shared.note(|state, _| {
        let running = state.run.id.is_some();
        let mut news = sample.is_some() != state.sample.is_some();
        let before = state.synchronous.confirmed().count();
        if let Some(sample) = &sample {
            if running {
                state.system_id = sample.system_id;
            }
            state.synchronous.seen(&sample.followers);
            if state.run.phase == Phase::Standby && !sample.in_recovery {
                tracing::error!("PostgreSQL left recovery without being asked by this keeper");
                state.run.phase = Phase::Primary;
                // It has no authority: the deadline and the guard are to know at once.
                news = true;
            }
        }
        state.sample = sample.filter(|_| running);
        (news, state.synchronous.confirmed().count() != before)
    });
    if news || confirmed {
        shared.change(|_, _| ());
    }
    if confirmed {
        shared.urge(String::new());
    }
}

/// R18: a commit under each new synchronous list, then looks at who has flushed it; who has not by then shows in the
/// samples that come anyway.
pub async fn commits(shared: Shared, instance: Instance, sampler: Sampler) -> Result<(), String> {
    loop {
        let serves = |state: &State| state.run.phase == Phase::Primary;
        let probe = shared.look(|state, _| {
            let list = &state.synchronous;
            (serves(state) && list.needs_probe()).then(|| list.names().to_vec())
        });
        if let Some(names) = probe {
            match instance.commit_once(COMMIT).await {
                Ok(commit) if commit.names == setting(&names) => {
                    let end = commit.end;
                    shared.note(|state, _| end.into_iter().for_each(|end| state.synchronous.probed(&names, end)));
                    for _ in 0..SOON {
                        sampler.hurry();
                        tokio::time::sleep(FOLLOWER).await;
                        if shared.look(|state, _| !state.synchronous.awaits_followers()) {
                            break;
                        }
                    }
                    continue;
                }
                Ok(commit) => tracing::debug!(names = commit.names, "the synchronous list is not in force yet"),
                Err(error) => tracing::debug!(%error, "no commit under the synchronous list"),
            }
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        shared.commits().await;
    }
}
