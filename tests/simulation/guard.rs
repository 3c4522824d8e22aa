//! The guard process (R4): ends a primary at the last instant that it was told, also when the keeper is dead or frozen.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use stolon::model::Moment;

use crate::{
    postgres::{Machine, Mode},
    rules::Rule,
    runtime::{Proc, Signal},
    world::MS,
};

pub struct Guard {
    machine: Rc<Machine>,
    pub process: RefCell<Proc>,
    until: Cell<Option<Moment>>,
    told: Signal,
}

impl Guard {
    pub fn start(machine: &Rc<Machine>) -> Rc<Guard> {
        let process = machine.world.process(machine.host, "guard");
        let guard = Rc::new(Guard {
            machine: machine.clone(),
            process: RefCell::new(process.clone()),
            until: Cell::new(None),
            told: Signal::default(),
        });
        machine.world.rt.spawn(&process, guard.clone().watch());
        guard
    }

    /// A new one in the place of a dead one. Whoever starts a primary does that first.
    pub fn arm(self: &Rc<Guard>) {
        if !self.process.borrow().alive() {
            let process = self.machine.world.process(self.machine.host, "guard");
            *self.process.borrow_mut() = process.clone();
            self.machine.world.rt.spawn(&process, self.clone().watch());
        }
    }

    pub fn tell(&self, until: Moment) {
        if self.until.get() != Some(until) {
            self.until.set(Some(until));
            self.told.bump();
        }
    }

    async fn watch(self: Rc<Guard>) {
        let world = self.machine.world.clone();
        loop {
            let mut known = self.told.version();
            let until = self.until.get();
            tokio::select! {
                biased;
                () = self.told.changed(&mut known) => continue,
                () = world.until_some(self.machine.host, until) => {}
            }
            world.rt.sleep(world.within(2 * MS, 6 * MS)).await;
            if self.until.get() == until && !world.lacks(Rule::SelfFence) {
                let standby = self.machine.with_data(|data| data.standby).unwrap_or(true);
                let promoting = self.machine.mode() == Some(Mode::Promoting);
                if self.machine.server.borrow().is_some() && (!standby || promoting) {
                    world.count("primaries killed by the guard");
                    world.say(self.machine.host, || "guard: the authority is over, PostgreSQL was killed".into());
                    self.machine.kill();
                }
            }
            self.told.changed(&mut known).await;
        }
    }
}
