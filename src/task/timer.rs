//! Waiting for a `Moment`: a timer on CLOCK_BOOTTIME, so that a deadline passes during suspension too. tokio's own
//! timers stand still while a machine sleeps.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    fs::Timespec,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use tokio::io::unix::AsyncFd;

use crate::model::Moment;

/// One timer, armed anew for each wait.
#[derive(Debug)]
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Fails only when the process has no file descriptor left.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Timer(own(timerfd_create(TimerfdClockId::Boottime, flags)?)?))
    }

    /// Returns at `moment` or soon after, never before; at once when it is past. May be dropped and called again.
    pub async fn until(&mut self, moment: Moment) {
        // A zero time would disarm the timer; boot was never a deadline.
        let at = moment.since_boot().max(Duration::from_nanos(1));
        let setting = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: at.as_secs() as i64, tv_nsec: at.subsec_nanos().into() },
        };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &setting).is_err() {
            return;
        }
        loop {
            let Ok(mut ready) = self.0.readable().await else { return };
            if super::clock::now() >= moment {
                return;
            }
            // Readiness left over from an earlier setting.
            ready.clear_ready();
        }
    }

    /// Like `until`; never returns for `None`.
    pub async fn until_some(&mut self, moment: Option<Moment>) {
        match moment {
            Some(moment) => self.until(moment).await,
            None => std::future::pending().await,
        }
    }
}

/// Readiness of a descriptor that we own until the watcher is dropped.
// `AsyncFd::new` is deprecated for types whose descriptor may change or close under it; `OwnedFd` is none of them, and
// its replacement is unsafe for all.
#[allow(deprecated)]
pub fn own(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::clock::now;

    #[tokio::test]
    async fn a_timer_fires_at_its_moment_and_can_be_armed_again() {
        let mut timer = Timer::new().unwrap();
        for wait in [30, 0, 20] {
            let (start, wait) = (now(), Duration::from_millis(wait));
            tokio::time::timeout(Duration::from_secs(5), timer.until(start + wait)).await.expect("timer fires");
            assert!(now().since(start) >= wait);
        }
    }

    #[tokio::test]
    async fn readiness_of_an_abandoned_wait_does_not_end_the_next_one() {
        let mut timer = Timer::new().unwrap();
        let start = now();
        let _ = tokio::time::timeout(Duration::from_millis(40), timer.until(start + Duration::from_millis(10))).await;
        timer.until(now() + Duration::from_millis(30)).await;
        assert!(now().since(start) >= Duration::from_millis(40));
    }
}
