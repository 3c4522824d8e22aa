//! The clients' port: open or shut as the door says, and one task for each client that comes. Bounded by the file limit
//! only, and never spinning at it.

use std::{io, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stolon::task::{Shutdown, clock, timer::Timer};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    cli::KeepaliveArgs,
    client,
    gate::door::{Door, Policy, Shut},
    gatehouse::{Gatehouse, PROXY_TIMEOUT},
    socket::Entrance,
};

/// Files kept for the lines to etcd and sentinels, gRPC calls and logs: clients must not use up what keeps the
/// registration alive.
const RESERVED_FILES: u64 = 96;
/// Pause after an accept that failed for want of something that others may give back.
const WANT: Duration = Duration::from_millis(100);
/// Pause before a port that somebody else has taken is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// For the last connections to be closed when the proxy ends.
const FAREWELL: Duration = Duration::from_millis(500);

pub struct Listener {
    pub entrance: Entrance,
    pub policy: Policy,
    pub keepalive: KeepaliveArgs,
    pub house: Gatehouse,
}

impl Listener {
    /// Serves clients until the shutdown, then cuts them.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), String> {
        let mut timer = Timer::new().map_err(|error| format!("no timer for the clients' port: {error}"))?;
        let mut door = Door::new(self.policy, PROXY_TIMEOUT);
        let mut news = self.house.news();
        let mut clients = JoinSet::new();
        let room = Arc::new(Semaphore::new(room()));
        let mut told = None;
        loop {
            let now = clock::now();
            {
                let news = news.borrow_and_update();
                door.registered(news.registered_until, now);
                door.cluster(news.clients, news.proxy_timeout);
            }
            let problem = self.turn(door.verdict(now));
            self.tell(problem, &mut told);
            let stuck = door.verdict(now).is_ok() && !self.entrance.listens();
            tokio::select! {
                () = shutdown.requested() => break,
                _ = news.changed() => {}
                () = timer.until_some(door.revisit(now)) => {}
                () = sleep(RETRY), if stuck => {}
                Some(_) = clients.join_next(), if !clients.is_empty() => {}
                accepted = accept(&self.entrance, &room) => if let Some((client, place)) = accepted {
                    let serving = client::serve(client, self.house.clone(), self.keepalive);
                    clients.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                },
            }
        }
        self.entrance.shut();
        self.house.end();
        let _ = timeout(FAREWELL, async { while clients.join_next().await.is_some() {} }).await;
        Ok(())
    }

    /// Opens or shuts the port. Returns what is wrong, in one line; empty when nothing is.
    fn turn(&mut self, verdict: Result<(), Shut>) -> String {
        match verdict {
            Ok(()) => self.entrance.open().err().unwrap_or_default(),
            Err(shut) => {
                self.entrance.shut();
                shut.to_string()
            }
        }
    }

    fn tell(&self, problem: String, told: &mut Option<String>) {
        if told.as_ref() == Some(&problem) {
            return;
        }
        let address = self.entrance.address();
        if problem.is_empty() {
            tracing::info!(%address, "listening for clients");
        } else if problem == Shut::NotYetRegistered.to_string() {
            tracing::info!(%address, "{problem}");
        } else {
            tracing::error!(%address, "{problem}");
        }
        self.house.entrance(problem.clone());
        *told = Some(problem);
    }
}

/// The next client, once there is room for it. None: try again.
async fn accept(entrance: &Entrance, room: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.ok()?;
    match entrance.accept().await {
        Ok(client) => Some((client, place)),
        Err(error) => {
            if !gone(&error) {
                tracing::warn!(%error, "a client can't be accepted");
                sleep(WANT).await;
            }
            None
        }
    }
}

/// True when the client itself left before it was accepted.
fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset
    )
}

/// Clients that the file limit has room for: each needs two files. Raises the limit as far as this process may.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let places = files.map_or(u64::MAX, |files| files.saturating_sub(RESERVED_FILES) / 2).max(1);
    usize::try_from(places).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}
