//! R19: in a synchronous cluster no commit is acknowledged that fewer than `minSynchronousStandbys` other members have on
//! disk: too few standbys block commits, they don't weaken the promise in silence.

use crate::{
    postgres::{Machine, Rec},
    settings::Replication,
    world::World,
};

/// A server releases a commit; `at` is the place of its record.
pub fn released(world: &World, machine: &Machine, at: usize, record: Rec) {
    let Replication::Synchronous { min, .. } = world.settings.replication else { return };
    // Before the first list nobody can take over, either.
    if world.audit.borrow().first_list.is_none() {
        return;
    }
    let all = machine.all.borrow();
    let others = all.iter().filter(|other| other.host != machine.host);
    let have = others.filter(|other| other.with_data(|data| data.wal.get(at) == Some(&record)) == Some(true)).count();
    if have < usize::from(min) {
        let what = format!("h{} acknowledged a commit that {have} others have; at least {min} must", machine.host);
        world.say(machine.host, || format!("FOUND: {what}"));
        world.audit.borrow_mut().found(world.rt.now(), "enough", what);
    }
}
