//! Tasks that bring what happens into the state, as `keeper/senses.rs` has them.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use stolon::{
    model::{Moment, view::KeeperView},
    store::{LeaseState, Mirror},
};
use stolon_keeper::{
    authority::Grant,
    pg::{Follower, Sample},
    state::{Phase, State},
};

use super::Keeper;
use crate::{
    postgres::{Mode, lsn},
    registration::Registration,
    rules::Rule,
    world::{MS, SEC},
};

const PROBE_DEADLINE: Duration = Duration::from_secs(5);

impl Keeper {
    pub(super) async fn feel_mirror(self: Rc<Keeper>) {
        let changed = self.store.changed();
        let mut known = u64::MAX;
        loop {
            changed.changed(&mut known).await;
            if let Some(seen) = self.store.mirror() {
                self.take_mirror(seen);
            }
            self.world.pass(5, 50).await;
        }
    }

    fn take_mirror(&self, mirror: Arc<Mirror>) {
        let grants = self.world.lacks(Rule::Reading);
        self.change(|state, now| {
            let held = state.grant(now);
            let State { authority, lease, .. } = &mut *state;
            authority.observe(&mirror, lease.as_ref());
            if let Some(lease) = lease.as_ref().filter(|_| grants) {
                authority.read(&mirror, lease);
            }
            if let Some((data, revision)) = mirror.data()
                && let Ok(view) = KeeperView::derive(data, revision, &state.me)
            {
                state.offer(view);
            }
            state.mirror = Some(mirror);
            taken_away(state, held, now);
        });
    }

    pub(super) async fn feel_lease(self: Rc<Keeper>, registration: Registration) {
        let changed = registration.changed();
        let mut known = u64::MAX;
        loop {
            changed.changed(&mut known).await;
            let held = registration.lease();
            self.change(|state, now| {
                let before = state.grant(now);
                state.lease = held;
                let State { authority, lease, mirror, .. } = &mut *state;
                if let Some(mirror) = mirror {
                    authority.observe(mirror, lease.as_ref());
                }
                taken_away(state, before, now);
            });
        }
    }

    /// The postmaster's death.
    pub(super) async fn feel_exits(self: Rc<Keeper>) {
        let changed = self.machine.changed.clone();
        loop {
            let mut known = changed.version();
            let id = self.look(|state, _| state.run.id);
            if let Some(id) = id
                && self.machine.running().is_none_or(|server| server.id != id)
            {
                let asked = self.look(|state, _| state.run.asked);
                self.world.pass(20, 400).await;
                if asked {
                    self.ended(id);
                } else {
                    self.remains.set(true);
                    self.world.say(self.host, || "keeper: PostgreSQL ended, and nobody asked it to".into());
                    self.ended(id);
                    self.world.pass(2 * MS, 6 * MS).await;
                    let same = self.machine.server.borrow().as_ref().is_none_or(|server| server.id == id);
                    if same {
                        self.machine.kill();
                    }
                    self.remains.set(false);
                    self.turn.bump();
                }
                continue;
            }
            changed.changed(&mut known).await;
        }
    }

    /// An adopted server that was still starting gets ready.
    pub(super) async fn feel_adopted(self: Rc<Keeper>) {
        let (phase, id) = self.look(|state, _| (state.run.phase, state.run.id));
        let next = match phase {
            Phase::StartingPrimary => Phase::Primary,
            Phase::StartingStandby => Phase::Standby,
            _ => return,
        };
        if let Some(server) = self.machine.running()
            && self.machine.started(&server).await
        {
            self.change(|state, _| {
                if state.run.id == id && state.run.phase == phase {
                    state.run.phase = next;
                }
            });
        }
    }

    /// R4: at the deadline the primary dies, whatever else goes on.
    pub(super) async fn keep_deadline(self: Rc<Keeper>) {
        if self.world.lacks(Rule::SelfFence) {
            return;
        }
        let fence = self.fence.clone();
        loop {
            let mut known = fence.version();
            let (must_die, until, tell) = self.look(|state, now| {
                let until = state.grant(now).map(|grant| grant.deadline).or(state.inherits_until);
                let serves = state.run.phase.may_serve();
                let granted = state.grant(now).map(|grant| grant.deadline);
                (state.must_die(now), until.filter(|until| serves && *until > now), granted)
            });
            if let Some(deadline) = tell {
                self.guard.tell(deadline);
            }
            if must_die && let Some(server) = self.server() {
                self.change(|state, _| state.run.asked = true);
                self.world.pass(3 * MS, 8 * MS).await;
                let same = self.machine.server.borrow().as_ref().is_some_and(|now| now.id == server.id);
                if same {
                    self.machine.kill();
                }
                self.world.count("primaries killed for want of authority");
                self.world.say(self.host, || "keeper: no authority any more, PostgreSQL was killed".into());
                self.ended(server.id);
            }
            tokio::select! {
                biased;
                () = fence.changed(&mut known) => {}
                () = self.world.until_some(self.host, until) => self.change(|_, _| ()),
            }
        }
    }

    /// R3: only a linearizable reading gives authority.
    pub(super) async fn read_authority(self: Rc<Keeper>) {
        loop {
            let mut known = self.authority.version();
            while let Some(lease) = self.look(wanted) {
                match self.store.read().await {
                    Ok(mirror) => self.change(|state, _| {
                        if state.lease.as_ref().is_some_and(|held| held.id == lease.id) {
                            state.authority.read(&mirror, &lease);
                        }
                        if state.mirror.as_ref().is_none_or(|known| known.revision < mirror.revision) {
                            state.mirror = Some(mirror);
                        }
                    }),
                    Err(_) => self.world.rt.sleep(50 * MS).await,
                }
                known = self.authority.version();
            }
            self.authority.changed(&mut known).await;
        }
    }

    pub(super) async fn sample(self: Rc<Keeper>) {
        let every = self.world.settings.heartbeat;
        loop {
            self.sample_now();
            let mut known = self.machine.changed.version();
            tokio::select! {
                biased;
                () = self.world.rt.sleep(every) => {}
                () = self.machine.changed.changed(&mut known) => self.world.rt.sleep(2 * MS).await,
            }
        }
    }

    /// A server that answers is asked, another one is not heard.
    pub(super) fn sample_now(&self) {
        let id = self.look(|state, _| state.run.id);
        let server = self.machine.running().filter(|server| Some(server.id) == id && server.process.runs());
        let sample = match &server {
            Some(server) if !matches!(server.mode.get(), Mode::Starting | Mode::Stopping) => self.sample_of(server),
            // It does not answer: the last one stays.
            _ if id.is_some() => return,
            _ => None,
        };
        if let Some(server) = server.as_ref().filter(|_| sample.is_some()) {
            self.misbehave(server);
        }
        let (news, confirmed) = self.note(|state, _| {
            let running = state.run.id.is_some();
            let news = sample.is_some() != state.sample.is_some();
            let before = state.synchronous.confirmed().count();
            if let Some(sample) = &sample {
                if running {
                    state.system_id = sample.system_id;
                }
                state.synchronous.seen(&sample.followers);
                if state.run.phase == Phase::Standby && !sample.in_recovery {
                    state.run.phase = Phase::Primary;
                }
            }
            state.sample = sample.filter(|_| running);
            (news, state.synchronous.confirmed().count() != before)
        });
        if news || confirmed {
            self.change(|_, _| ());
        }
        if confirmed {
            self.urge.bump();
        }
    }

    fn sample_of(&self, server: &crate::postgres::Server) -> Option<Sample> {
        let now = self.now();
        let (position, system_id, records) =
            self.machine.with_data(|data| (data.position(), data.system_id, data.wal.len()))?;
        let names = server.names.borrow();
        let (before, advances) = self.advances.get();
        let advances = if before == records { advances } else { advances + 1 };
        self.advances.set((records, advances));
        let followers: BTreeMap<String, Follower> = server
            .followers
            .borrow()
            .values()
            .map(|follower| {
                let name = follower.name.to_string();
                let in_sync = names.contains(&name);
                (name, Follower { in_sync, flushed: lsn(follower.flushed) })
            })
            .collect();
        Some(Sample {
            at: now,
            system_id,
            in_recovery: matches!(server.mode.get(), Mode::Recovery | Mode::Promoting),
            position,
            advances,
            streaming: server.receiving.get().is_some(),
            synchronous_standby_names: names.join(","),
            followers,
        })
    }

    /// R13: does the server work, seen by a new connection.
    pub(super) async fn probe(self: Rc<Keeper>) {
        loop {
            self.world.rt.sleep(SEC).await;
            let serves = |state: &State| matches!(state.run.phase, Phase::Standby | Phase::Primary);
            let Some(id) = self.look(|state, _| state.run.id.filter(|_| serves(state))) else { continue };
            let asked = self.now();
            let answered = async {
                while !self.machine.running().is_some_and(|server| server.id == id && server.process.runs()) {
                    self.world.rt.sleep(100 * MS).await;
                }
            };
            if self.world.within_time(self.host, PROBE_DEADLINE, answered).await.is_some() {
                self.note(|state, _| {
                    if state.run.id == Some(id) {
                        state.probed = Some(asked);
                    }
                });
            }
        }
    }
}

/// Authority that went before its deadline may be back at once.
fn taken_away(state: &mut State, held: Option<Grant>, now: Moment) {
    if let Some(held) = held.filter(|_| state.grant(now).is_none()) {
        state.tolerate(&held, now);
    }
}

/// The lease to read for, when something says that authority may be there.
fn wanted(state: &State, now: Moment) -> Option<LeaseState> {
    let lease = state.lease.clone().filter(|lease| now < lease.deadline)?;
    let claimed = state.mirror.as_ref().is_some_and(|mirror| state.authority.needs_reading(mirror, Some(&lease)));
    let named = state.view.as_ref().is_some_and(|view| {
        let behind = state.mirror.as_ref().is_none_or(|mirror| mirror.revision < view.revision);
        behind && view.fencing.is_none() && view.names_primary(&state.me) && state.grant(now).is_none()
    });
    (claimed || named).then_some(lease)
}
