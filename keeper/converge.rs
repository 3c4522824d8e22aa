//! The loop: look, plan, do one step, look again. A step is dropped half-way when the plan wants something more urgent; one
//! that failed is tried again after a pause that grows.

use std::{pin::pin, time::Duration};

use stolon::{
    model::Moment,
    store::Registration,
    task::{Shutdown, clock, timer::Timer},
};

use crate::{
    journal::{PostmasterId, Writer},
    plan::{Plan, Step, interrupts, plan},
    report::{Registered, info},
    steps::{Hands, StepError},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// For what failed only because things were changing.
const SOON: Duration = Duration::from_millis(50);

pub struct Converge {
    pub hands: Hands,
    pub registration: Registration,
    registered: Registered,
    failed: Option<Failed>,
    told: String,
}

/// The step that failed last.
struct Failed {
    step: Step,
    until: Moment,
    pause: Duration,
}

impl Converge {
    pub fn new(hands: Hands, registration: Registration) -> Converge {
        Converge { hands, registration, registered: Registered::default(), failed: None, told: String::new() }
    }

    /// Until the plan says that nothing is left to do, or the shutdown.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), String> {
        let mut timer = Timer::new().map_err(|error| format!("no timer: {error}"))?;
        loop {
            if self.hands.shared.look(|state, _| state.must_rehome()) {
                self.hands.rehome().map_err(|error| error.to_string())?;
            }
            let plan = self.plan();
            self.publish();
            if plan.step == Step::Exit {
                return Ok(());
            }
            let wait = match &self.failed {
                Some(failed) if failed.step == plan.step && clock::now() < failed.until => Some(failed.until),
                _ => None,
            };
            if plan.step != Step::Wait && wait.is_none() {
                tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    () = self.perform(plan.step) => {}
                }
                continue;
            }
            self.sign();
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                () = self.hands.shared.turn() => {}
                () = timer.until_some(wait.or(plan.revisit)) => {}
            }
        }
    }

    fn plan(&mut self) -> Plan {
        let plan = self.hands.shared.look(|state, now| plan(&state.situation(now)));
        self.tell(&plan);
        plan
    }

    /// Each new thing to do once in the log, and in the status.
    fn tell(&mut self, plan: &Plan) {
        if plan.why == self.told {
            return;
        }
        self.told.clone_from(&plan.why);
        if plan.fault {
            tracing::error!("{}", plan.why);
        } else {
            tracing::info!(step = name(&plan.step), "{}", plan.why);
        }
        let (why, fault, failed) = (plan.why.clone(), plan.fault, self.failed.is_some());
        self.hands.shared.note(|state, now| {
            if fault {
                state.failure.clone_from(&why);
            } else if !failed {
                state.failure.clear();
            }
            state.step = (why, now);
        });
        self.hands.shared.urge(String::new());
    }

    /// Runs a step to its end, or until a more urgent one is wanted.
    async fn perform(&mut self, step: Step) {
        let hands = self.hands.clone();
        let outcome = {
            let mut work = pin!(hands.run(&step));
            match self.race(&step, work.as_mut()).await {
                Some(outcome) => outcome,
                None => {
                    self.hands.look_at_data();
                    return;
                }
            }
        };
        self.conclude(step, outcome);
    }

    /// `None` when the step was dropped.
    async fn race(
        &mut self,
        step: &Step,
        mut work: std::pin::Pin<&mut impl Future<Output = Result<(), StepError>>>,
    ) -> Option<Result<(), StepError>> {
        loop {
            tokio::select! {
                outcome = &mut work => return Some(outcome),
                () = self.hands.shared.turn() => {
                    let next = self.hands.shared.look(|state, now| plan(&state.situation(now)));
                    self.publish();
                    if interrupts(&next.step, step) {
                        tracing::info!(step = name(step), "dropped: {}", next.why);
                        self.hands.shared.change(|state, _| state.copying = false);
                        return None;
                    }
                }
            }
        }
    }

    fn conclude(&mut self, step: Step, outcome: Result<(), StepError>) {
        let Err(error) = outcome else {
            self.failed = None;
            self.hands.shared.note(|state, _| state.failure.clear());
            return;
        };
        let before = self.failed.take().filter(|failed| failed.step == step).map(|failed| failed.pause);
        if let StepError::NotNow(problem) = error {
            tracing::debug!(step = name(&step), "{problem}");
            self.failed = Some(Failed { step, until: clock::now() + SOON, pause: FIRST_PAUSE });
            return;
        }
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE));
        let text = error.to_string();
        let news = self.hands.shared.note(|state, _| {
            let news = state.failure != text;
            state.failure.clone_from(&text);
            news
        });
        if news {
            tracing::error!(step = name(&step), "{text}");
        }
        self.hands.look_at_data();
        self.hands.shared.urge(String::new());
        self.failed = Some(Failed { step, until: clock::now() + pause, pause });
    }

    /// What the registration says, when that has changed.
    fn publish(&mut self) {
        let info = self.hands.shared.look(|state, _| info(state, &self.hands.fixed));
        if let Some(value) = self.registered.news(info, || format!("{:08x}", rand::random::<u32>())) {
            self.registration.set(value);
        }
    }

    /// Who a successor of this process may inherit from (R1): on disk whenever it changes, off the path of failovers.
    fn sign(&self) {
        let place = &self.hands.place;
        let writer = self.hands.shared.look(|state, _| {
            let lease = state.lease.as_ref()?.id;
            let postmaster = state.run.id.map(|id| PostmasterId { pid: id.pid, started: id.started });
            let (boot, device, inode) = (place.boot.clone(), place.device, place.inode);
            let writer = Writer { boot, device, inode, lease, postmaster };
            (state.journal.writer.as_ref() != Some(&writer)).then_some(writer)
        });
        if let Some(writer) = writer
            && let Err(error) = self.hands.sign(writer)
        {
            tracing::error!("{error}");
        }
    }
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Wait => "wait",
        Step::Kill => "kill",
        Step::Stop => "stop",
        Step::GiveUp { .. } => "give up",
        Step::Recruit { .. } => "recruit",
        Step::Create { .. } => "create",
        Step::TakeOver { .. } => "take over",
        Step::StartPrimary { .. } => "start as primary",
        Step::StartStandby { .. } => "start as standby",
        Step::Promote { .. } => "promote",
        Step::AdoptEpoch { .. } => "adopt the epoch",
        Step::Announce { .. } => "announce",
        Step::PutBack { .. } => "put the key back",
        Step::Follow { .. } => "follow",
        Step::Resync { .. } => "resync",
        Step::Apply { .. } => "apply",
        Step::Prepare { .. } => "prepare the handover",
        Step::Admit => "admit everybody",
        Step::Exit => "exit",
    }
}
