//! No bare spawn: each task has a name, and its end is either expected or starts the daemon's shutdown.

use std::{future::Future, time::Duration};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};

/// A request to end, shared by all tasks of a daemon.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown(watch::Sender::new(false))
    }
}

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the end was requested.
    pub async fn requested(&self) {
        // The sender lives in `self`: the channel can't close.
        let _ = self.0.subscribe().wait_for(|requested| *requested).await;
    }
}

/// How a supervised task came to its end.
#[derive(Debug)]
pub struct Ended {
    pub task: &'static str,
    pub result: Result<(), String>,
}

/// Named tasks of one daemon; dropped, it aborts those that still run.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Result<(), String>>,
    names: Vec<(Id, &'static str)>,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Starts a task. An error is a line for people.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<(), String>> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.push((id, name));
    }

    /// Waits for the next task to end; `None` when there is none left.
    pub async fn next_end(&mut self) -> Option<Ended> {
        let (id, result) = match self.set.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(format!("task failed: {error}"))),
        };
        let position = self.names.iter().position(|(known, _)| *known == id);
        let task = position.map_or("unnamed", |position| self.names.swap_remove(position).1);
        Some(Ended { task, result })
    }

    /// Runs until the shutdown is requested or a task ends (which requests it), then gives the others `grace` to end.
    /// Returns the first error.
    pub async fn run(mut self, shutdown: Shutdown, grace: Duration) -> Result<(), String> {
        let mut outcome = Ok(());
        tokio::select! {
            () = shutdown.requested() => {}
            ended = self.next_end() => outcome = first_error(ended),
        }
        shutdown.trigger();
        let rest = async {
            let mut later = Ok(());
            while let Some(ended) = self.next_end().await {
                later = later.and(first_error(Some(ended)));
            }
            later
        };
        match tokio::time::timeout(grace, rest).await {
            Ok(later) => outcome.and(later),
            Err(_) => {
                let left: Vec<_> = self.names.iter().map(|(_, name)| *name).collect();
                tracing::warn!(tasks = ?left, "still running at the end of the shutdown's grace; aborted");
                outcome
            }
        }
    }
}

fn first_error(ended: Option<Ended>) -> Result<(), String> {
    match ended {
        Some(Ended { task, result: Err(error) }) => {
            tracing::error!(task, error, "task failed");
            Err(error)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_task_ends_the_others_and_its_error_is_the_outcome() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new();
        let asked = shutdown.clone();
        tasks.spawn("patient", async move {
            asked.requested().await;
            Ok(())
        });
        tasks.spawn("failing", async { Err("no disk".to_owned()) });
        assert_eq!(tasks.run(shutdown, Duration::from_secs(5)).await, Err("no disk".to_owned()));
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_shutdown_is_aborted_after_the_grace() {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        shutdown.trigger();
        assert_eq!(tasks.run(shutdown, Duration::from_millis(20)).await, Ok(()));
    }
}
