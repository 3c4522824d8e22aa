//! How tasks wait for one another: a signal that changes, and an answer that comes once.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

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

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.version())
    }
}
