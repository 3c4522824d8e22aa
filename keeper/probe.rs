//! R13: does the server work? Once a second a new connection writes to it, and its disk is written to beside it. Reports
//! tell the age of the last time that both succeeded, and what is wrong. A heartbeat waits for neither.

use std::{pin::pin, time::Duration};

use stolon::{model::Moment, task::clock};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    pg::{DiskProbe, Instance, PgError, ProcessId},
    shared::Shared,
    state::{Phase, State, Unfit},
};

/// Between two probes.
const PROBE: Duration = Duration::from_secs(1);
/// A connection that takes longer has failed: long, because an overloaded server is no dead one.
const DEADLINE: Duration = Duration::from_secs(5);
/// What takes longer is told, though it may still succeed.
const PATIENCE: Duration = Duration::from_secs(2);

const FULL: &str = "PostgreSQL takes no new connection: all of max_connections are taken";

/// Never returns an error.
pub async fn probe(shared: Shared, instance: Instance) -> Result<(), String> {
    let mut turn = interval(PROBE);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut disk = DiskProbe::new(instance.clone());
    loop {
        turn.tick().await;
        let serves = |state: &State| matches!(state.run.phase, Phase::Standby | Phase::Primary);
        let Some(id) = shared.look(|state, _| state.run.id.filter(|_| serves(state))) else { continue };
        let (server, disk) = tokio::join!(ask(&shared, &instance, id), write(&shared, &mut disk, id));
        if let (Some(server), Some(disk)) = (server, disk) {
            shared.note(|state, _| {
                if state.run.id == Some(id) {
                    state.probed = Some(server.min(disk));
                }
            });
        }
    }
}

/// When the connection that served was begun.
async fn ask(shared: &Shared, instance: &Instance, id: ProcessId) -> Option<Moment> {
    let asked = clock::now();
    let mut answer = pin!(instance.probe(DEADLINE));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        () = sleep(PATIENCE) => {
            tell(shared, id, |unfit| &mut unfit.server, "PostgreSQL does not serve a new connection");
            answer.await
        }
    };
    match answer {
        Ok(_) => {
            tell(shared, id, |unfit| &mut unfit.server, "");
            Some(asked)
        }
        // Strangers can take all places before they have shown a password: that is the answer of a living server, as long
        // as the connection that was there before still gets its answers.
        Err(PgError::Full { .. }) if sampled(shared) => {
            tell(shared, id, |unfit| &mut unfit.server, FULL);
            Some(asked)
        }
        // Already told in other words.
        Err(PgError::TimedOut { .. }) => None,
        Err(error) => {
            tell(shared, id, |unfit| &mut unfit.server, &format!("PostgreSQL does not take a write: {error}"));
            None
        }
    }
}

fn sampled(shared: &Shared) -> bool {
    shared.look(|state, now| state.sample.as_ref().is_some_and(|sample| now.since(sample.at) < PATIENCE))
}

/// When the write that succeeded was begun.
async fn write(shared: &Shared, disk: &mut DiskProbe, id: ProcessId) -> Option<Moment> {
    match disk.write(PATIENCE).await {
        Ok(began) => {
            tell(shared, id, |unfit| &mut unfit.disk, "");
            Some(began)
        }
        Err(error) => {
            tell(shared, id, |unfit| &mut unfit.disk, &error.to_string());
            None
        }
    }
}

/// In reports from now on, and once in the log; nothing of a server that has ended meanwhile.
fn tell(shared: &Shared, id: ProcessId, of: impl Fn(&mut Unfit) -> &mut String, text: &str) {
    let news = shared.note(|state, _| {
        let known = of(&mut state.unfit);
        let news = known != text;
        if news && state.run.id == Some(id) {
            *of(&mut state.unfit) = text.to_owned();
        }
        news && state.run.id == Some(id)
    });
    if news && !text.is_empty() {
        tracing::error!("{text}");
    }
    if news {
        shared.urge(String::new());
    }
}
