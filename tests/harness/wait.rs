//! Waiting with a bound and a name. The only sleeps of the tests are here.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

pub(crate) const PAUSE: Duration = Duration::from_millis(30);

/// Runs `look` until it gives a value. `Err` says how things stand; after `bound` the last one is what the test fails
/// with.
pub async fn eventually<T, E: Display>(what: &str, bound: Duration, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(what, bound, look).await.unwrap_or_else(|problem| panic!("{problem}"))
}

/// The same for who goes on after it: the error says what was waited for, and what was seen last.
pub async fn within<T, E: Display>(
    what: &str,
    bound: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        let state = match tokio::time::timeout(bound, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => state.to_string(),
            Err(_) => "looking took longer than the whole wait".to_owned(),
        };
        if start.elapsed() >= bound {
            return Err(format!("waited {:.1} s for: {what}\n  last seen: {state}", bound.as_secs_f64()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until a moment on the test's own clock.
pub async fn pause_until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}

/// Fails as soon as `look` gives an error within `span`: for what must not happen.
pub async fn during<E: Display>(what: &str, span: Duration, mut look: impl AsyncFnMut() -> Result<(), E>) {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(state) = look().await {
            panic!("after {:.1} s no longer true: {what}\n  seen: {state}", start.elapsed().as_secs_f64());
        }
        tokio::time::sleep(PAUSE * 3).await;
    }
}

/// The same without a runtime, for processes.
pub fn blocking<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < bound, "waited {:.1} s for: {what}", bound.as_secs_f64());
        std::thread::sleep(Duration::from_millis(5));
    }
}
