//! A single-threaded executor over virtual time: tasks belong to processes, which can be killed (all their futures are
//! dropped) and paused (whatever wakes meanwhile runs late). Knows nothing of what it runs.

use std::{
    cell::{Cell, RefCell},
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

pub use crate::signal::{Answer, Question, Signal, answer};

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

/// Tasks by number: a place, and how often it was taken before.
#[derive(Default)]
struct Tasks {
    places: Vec<(u32, Option<Task>)>,
    free: Vec<u32>,
}

impl Tasks {
    fn next(&self) -> u64 {
        match self.free.last() {
            Some(place) => u64::from(self.places[*place as usize].0) << 32 | u64::from(*place),
            None => self.places.len() as u64,
        }
    }

    fn insert(&mut self, task: Task) {
        match self.free.pop() {
            Some(place) => self.places[place as usize].1 = Some(task),
            None => self.places.push((0, Some(task))),
        }
    }

    fn get(&mut self, number: u64) -> Option<&mut Task> {
        let (place, life) = ((number & 0xFFFF_FFFF) as usize, (number >> 32) as u32);
        self.places.get_mut(place).filter(|(now, _)| *now == life).and_then(|(_, task)| task.as_mut())
    }

    fn remove(&mut self, number: u64) -> Option<Task> {
        self.get(number)?;
        let place = (number & 0xFFFF_FFFF) as u32;
        let (life, task) = &mut self.places[place as usize];
        *life += 1;
        self.free.push(place);
        task.take()
    }

    fn of(&self, owner: &Proc) -> Vec<u64> {
        let owned = |task: &Option<Task>| task.as_ref().is_some_and(|task| task.owner == *owner);
        let places = self.places.iter().enumerate().filter(|(_, (_, task))| owned(task));
        places.map(|(place, (life, _))| u64::from(*life) << 32 | place as u64).collect()
    }

    fn pop(&mut self) -> Option<Task> {
        self.places.iter_mut().find_map(|(_, task)| task.take())
    }
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

/// What is due when; in order of time, then of entry.
struct Entry {
    at: Micros,
    number: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
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
    due: RefCell<BinaryHeap<Reverse<Entry>>>,
    tasks: RefCell<Tasks>,
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
        let task = self.tasks.borrow().next();
        let waker = Waker::from(Arc::new(Bell { task, ready: self.ready.clone() }));
        let job: Job = Box::pin(job);
        self.tasks.borrow_mut().insert(Task { job: Some(job), owner: owner.clone(), waker });
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
        let (at, number) = (at.max(self.now()), self.number());
        self.due.borrow_mut().push(Reverse(Entry { at, number, due }));
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
        let dead = self.tasks.borrow().of(victim);
        for number in dead {
            let task = self.tasks.borrow_mut().remove(number);
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
            let next = self.due.borrow().peek().map(|Reverse(next)| next.at);
            let Some(at) = next.filter(|at| *at <= end && !self.overrun()) else { break };
            let popped = self.due.borrow_mut().pop();
            self.now.set(at);
            match popped.map(|Reverse(entry)| entry.due) {
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
            let task = self.tasks.borrow_mut().pop();
            let due = self.due.borrow_mut().pop();
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
            let Some(task) = tasks.get(number) else { return };
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
            let task = self.tasks.borrow_mut().remove(number);
            drop((task, job));
        } else if let Some(task) = self.tasks.borrow_mut().get(number) {
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
