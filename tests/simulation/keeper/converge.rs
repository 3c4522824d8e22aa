//! The loop, as `keeper/converge.rs` has it: look, plan, do one step, look again; a step is dropped half-way when the plan
//! wants something more urgent, and tried again after a pause that grows when it failed.

use std::{cell::RefCell, pin::pin, rc::Rc, time::Duration};

use stolon::model::Moment;
use stolon_keeper::{
    journal::{PostmasterId, Writer},
    plan::{Plan, Step, interrupts, plan},
    report::{Registered, info},
};

use super::{DEVICE, Keeper};
use crate::{registration::Registration, rules::Rule};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(50);

/// Why a step came to nothing.
#[derive(Debug)]
pub enum Problem {
    Failed(String),
    /// Things have changed since the plan was made.
    NotNow(&'static str),
}

pub type Done = Result<(), Problem>;

struct Failed {
    step: Step,
    until: Moment,
    pause: Duration,
}

struct Loop {
    registration: Registration,
    registered: RefCell<Registered>,
    failed: RefCell<Option<Failed>>,
    told: RefCell<String>,
}

impl Keeper {
    pub(super) async fn converge(self: Rc<Keeper>, registration: Registration) {
        let work =
            Loop { registration, registered: RefCell::default(), failed: RefCell::default(), told: RefCell::default() };
        loop {
            let mut known = self.turn.version();
            let plan = self.plan();
            self.tell(&work, &plan);
            self.publish(&work);
            if plan.step == Step::Exit {
                work.registration.end().await;
                self.world.count("keepers that handed over and ended");
                let (world, process) = (self.world.clone(), self.process.clone());
                self.world.rt.call_in(0, move || world.rt.kill(&process));
                return;
            }
            let wait = match &*work.failed.borrow() {
                Some(failed) if failed.step == plan.step && self.now() < failed.until => Some(failed.until),
                _ => None,
            };
            if plan.step != Step::Wait && wait.is_none() {
                self.perform(&work, plan.step).await;
                self.world.pass(5, 50).await;
                continue;
            }
            self.sign().await;
            tokio::select! {
                biased;
                () = self.turn.changed(&mut known) => {}
                () = self.world.until_some(self.host, wait.or(plan.revisit)) => {}
            }
            self.world.pass(5, 50).await;
        }
    }

    fn plan(&self) -> Plan {
        let mut next = self.look(|state, now| plan(&state.situation(now)));
        if next.step == Step::Kill && self.world.lacks(Rule::SelfFence) {
            next.step = Step::Wait;
        }
        next
    }

    fn tell(&self, work: &Loop, plan: &Plan) {
        if plan.why == *work.told.borrow() {
            return;
        }
        work.told.borrow_mut().clone_from(&plan.why);
        self.world.coverage.borrow_mut().reason("plan", &plan.why);
        self.world.say(self.host, || format!("keeper: {}: {}", name(&plan.step), plan.why));
        let (why, fault, failed) = (plan.why.clone(), plan.fault, work.failed.borrow().is_some());
        self.note(|state, now| {
            if fault {
                state.failure.clone_from(&why);
            } else if !failed {
                state.failure.clear();
            }
            state.step = (why, now);
        });
        self.urge.bump();
    }

    async fn perform(self: &Rc<Keeper>, work: &Loop, step: Step) {
        let outcome = {
            let mut job = pin!(self.clone().run(step.clone()));
            loop {
                let mut known = self.turn.version();
                tokio::select! {
                    biased;
                    outcome = &mut job => break Some(outcome),
                    () = self.turn.changed(&mut known) => {
                        let next = self.plan();
                        self.publish(work);
                        if interrupts(&next.step, &step) {
                            self.world.say(self.host, || format!("keeper: drops {}: {}", name(&step), next.why));
                            self.world.count("steps dropped half-way");
                            self.change(|state, _| state.copying = false);
                            break None;
                        }
                    }
                }
            }
        };
        match outcome {
            Some(outcome) => self.conclude(work, step, outcome),
            None => self.look_at_data(),
        }
    }

    fn conclude(&self, work: &Loop, step: Step, outcome: Done) {
        let Err(problem) = outcome else {
            *work.failed.borrow_mut() = None;
            self.note(|state, _| state.failure.clear());
            return;
        };
        let before = work.failed.take().filter(|failed| failed.step == step).map(|failed| failed.pause);
        let text = match problem {
            Problem::NotNow(why) => {
                self.world.say(self.host, || format!("keeper: {} not now: {why}", name(&step)));
                *work.failed.borrow_mut() = Some(Failed { step, until: self.now() + SOON, pause: FIRST_PAUSE });
                return;
            }
            Problem::Failed(text) => text,
        };
        self.world.say(self.host, || format!("keeper: {} failed: {text}", name(&step)));
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE));
        self.note(|state, _| state.failure.clone_from(&text));
        self.look_at_data();
        self.urge.bump();
        *work.failed.borrow_mut() = Some(Failed { step, until: self.now() + pause, pause });
    }

    fn publish(&self, work: &Loop) {
        let info = self.look(|state, _| info(state, &self.fixed));
        let fresh = || format!("{:08x}", self.world.rng.borrow_mut().next() as u32);
        if let Some(value) = work.registered.borrow_mut().news(info, fresh) {
            work.registration.set(value);
        }
    }

    /// Who a successor of this process may inherit from (R1).
    async fn sign(&self) {
        let inode = self.machine.disk.borrow().inode;
        let writer = self.look(|state, _| {
            let lease = state.lease.as_ref()?.id;
            let postmaster = state.run.id.map(|id| PostmasterId { pid: id.pid, started: id.started });
            let writer = Writer { boot: self.boot(), device: DEVICE, inode, lease, postmaster };
            (state.journal.writer.as_ref() != Some(&writer)).then_some(writer)
        });
        if let Some(writer) = writer {
            self.journal(|journal| journal.writer = Some(writer)).await;
        }
    }
}

fn name(step: &Step) -> String {
    let text = format!("{step:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_lowercase()
}
