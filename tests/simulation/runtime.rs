//! A single-threaded executor over virtual time: tasks belong to processes, which can be killed (all their futures are
//! dropped) and paused (whatever wakes meanwhile runs late). Knows nothing of what it runs.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

/// True time in microseconds since the world began.
pub type Micros = u64;

/// Polls of one history; a usual one has a few ten thousand.
const BUSY: u64 = 600_000;

type Job = Pin<Box<dyn Future<Output = ()>>>;
type Ready = Arc<Mutex<VecDeque<u64>>>;

/// A process: the unit of killing and pausing.
#[derive(Clone, Debug)]
pub struct Proc(Rc<Process>);

#[derive(Debug)]
struct Process {
    number: u64,
    alive: Cell<bool>,
    pauses: Cell<u32>,
    parked: RefCell<Vec<u64>>,
    ended: Signal,
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.version())
    }
}

impl Proc {
    /// Changes when the process ends.
    pub fn ended(&self) -> Signal {
        self.0.ended.clone()
    }

    pub fn alive(&self) -> bool {
        self.0.alive.get()
    }

    /// Alive and not paused.
    pub fn runs(&self) -> bool {
        self.0.alive.get() && self.0.pauses.get() == 0
    }
}

impl PartialEq for Proc {
    fn eq(&self, other: &Proc) -> bool {
        self.0.number == other.0.number
    }
}

struct Task {
    job: Option<Job>,
    owner: Proc,
    waker: Waker,
}

struct Bell {
    task: u64,
    ready: Ready,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

enum Due {
    Wake(Rc<Alarm>),
    Call(Box<dyn FnOnce()>),
}

struct Alarm {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// See the module.
#[derive(Default)]
pub struct Runtime {
    now: Cell<Micros>,
    last: Cell<u64>,
    due: RefCell<BinaryHeap<Reverse<(Micros, u64)>>>,
    what: RefCell<BTreeMap<u64, Due>>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Ready,
    /// Polls of tasks, for the record.
    pub polls: Cell<u64>,
}

impl Runtime {
    pub fn now(&self) -> Micros {
        self.now.get()
    }

    fn number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    pub fn process(&self) -> Proc {
        let number = self.number();
        Proc(Rc::new(Process {
            number,
            alive: Cell::new(true),
            pauses: Cell::new(0),
            parked: RefCell::default(),
            ended: Signal::default(),
        }))
    }

    /// Runs `job` as a part of `owner`; nothing happens when that is dead.
    pub fn spawn(&self, owner: &Proc, job: impl Future<Output = ()> + 'static) {
        if !owner.alive() {
            return;
        }
        let task = self.number();
        let waker = Waker::from(Arc::new(Bell { task, ready: self.ready.clone() }));
        let job: Job = Box::pin(job);
        self.tasks.borrow_mut().insert(task, Task { job: Some(job), owner: owner.clone(), waker });
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    /// At a time, in no process.
    pub fn call_at(&self, at: Micros, call: impl FnOnce() + 'static) {
        self.enter(at, Due::Call(Box::new(call)));
    }

    pub fn call_in(&self, after: Micros, call: impl FnOnce() + 'static) {
        self.call_at(self.now() + after, call);
    }

    fn enter(&self, at: Micros, due: Due) {
        let number = self.number();
        self.due.borrow_mut().push(Reverse((at.max(self.now()), number)));
        self.what.borrow_mut().insert(number, due);
    }

    pub fn sleep(&self, time: Micros) -> Sleep {
        self.sleep_until(self.now() + time)
    }

    pub fn sleep_until(&self, at: Micros) -> Sleep {
        let alarm = Rc::new(Alarm { fired: Cell::new(at <= self.now()), waker: RefCell::default() });
        if !alarm.fired.get() {
            self.enter(at, Due::Wake(alarm.clone()));
        }
        Sleep(alarm)
    }

    /// Ends a process: its futures are dropped at once.
    pub fn kill(&self, victim: &Proc) {
        victim.0.alive.set(false);
        let dead: Vec<u64> =
            self.tasks.borrow().iter().filter(|(_, task)| task.owner == *victim).map(|(number, _)| *number).collect();
        for number in dead {
            let task = self.tasks.borrow_mut().remove(&number);
            drop(task);
        }
        victim.0.ended.bump();
    }

    pub fn pause(&self, victim: &Proc) {
        victim.0.pauses.set(victim.0.pauses.get() + 1);
    }

    /// Ends one pause; what was woken meanwhile runs now.
    pub fn resume(&self, victim: &Proc) {
        victim.0.pauses.set(victim.0.pauses.get().saturating_sub(1));
        if victim.0.pauses.get() == 0 {
            let parked = std::mem::take(&mut *victim.0.parked.borrow_mut());
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).extend(parked);
        }
    }

    /// Runs until this time.
    pub fn run_until(&self, end: Micros) {
        loop {
            self.drain();
            let next = self.due.borrow().peek().map(|Reverse(next)| *next);
            let Some((at, number)) = next.filter(|(at, _)| *at <= end && !self.overrun()) else { break };
            self.due.borrow_mut().pop();
            self.now.set(at);
            let due = self.what.borrow_mut().remove(&number);
            match due {
                Some(Due::Call(call)) => call(),
                Some(Due::Wake(alarm)) => alarm.fire(),
                None => {}
            }
        }
        self.now.set(end);
    }

    /// Drops everything that still runs.
    pub fn end(&self) {
        loop {
            let task = self.tasks.borrow_mut().pop_first();
            let due = self.what.borrow_mut().pop_first();
            if task.is_none() && due.is_none() {
                return;
            }
        }
    }

    /// So much was done that somebody must be busy with nothing.
    pub fn overrun(&self) -> bool {
        self.polls.get() > BUSY
    }

    fn drain(&self) {
        while !self.overrun() {
            let next = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(number) = next else { return };
            self.poll(number);
        }
    }

    fn poll(&self, number: u64) {
        let (mut job, waker, owner) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(&number) else { return };
            if task.owner.0.pauses.get() > 0 {
                task.owner.0.parked.borrow_mut().push(number);
                return;
            }
            let Some(job) = task.job.take() else { return };
            (job, task.waker.clone(), task.owner.clone())
        };
        self.polls.set(self.polls.get() + 1);
        let done = job.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if done || !owner.alive() {
            self.tasks.borrow_mut().remove(&number);
            drop(job);
        } else if let Some(task) = self.tasks.borrow_mut().get_mut(&number) {
            task.job = Some(job);
        }
    }
}

impl Alarm {
    fn fire(&self) {
        self.fired.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Ends at its time.
pub struct Sleep(Rc<Alarm>);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.fired.get() {
            return Poll::Ready(());
        }
        *self.0.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.0.waker.borrow_mut().take();
    }
}

/// Something that changes: whoever waits for it is woken, in order of asking.
#[derive(Clone, Default)]
pub struct Signal(Rc<Changing>);

#[derive(Default)]
struct Changing {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    pub fn bump(&self) {
        self.0.version.set(self.0.version.get() + 1);
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }

    pub fn version(&self) -> u64 {
        self.0.version.get()
    }

    /// Returns when the version is not `known` any more, which then becomes the present one.
    pub async fn changed(&self, known: &mut u64) {
        std::future::poll_fn(|context| {
            if self.0.version.get() != *known {
                return Poll::Ready(());
            }
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
        *known = self.0.version.get();
    }
}

/// One answer on its way. Dropping the sender without an answer ends the wait, too.
pub struct Answer<T>(Rc<Slot<T>>);
pub struct Question<T>(Rc<Slot<T>>);

struct Slot<T> {
    value: RefCell<Option<T>>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

pub fn answer<T>() -> (Question<T>, Answer<T>) {
    let slot = Rc::new(Slot { value: RefCell::new(None), over: Cell::new(false), waker: RefCell::new(None) });
    (Question(slot.clone()), Answer(slot))
}

impl<T> Question<T> {
    pub fn answer(self, value: T) {
        *self.0.value.borrow_mut() = Some(value);
    }
}

impl<T> Drop for Question<T> {
    fn drop(&mut self) {
        self.0.over.set(true);
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.0.over.get() {
            return Poll::Ready(self.0.value.borrow_mut().take());
        }
        *self.0.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
