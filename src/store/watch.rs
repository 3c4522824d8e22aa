//! Keeps the mirror up to date: one reading, then etcd's watch from there, opened anew at the last revision whenever it
//! breaks or falls silent. A store that holds less than was seen is another one, or an older copy: it is not believed
//! (R5).

use std::{sync::Arc, time::Duration};

use etcd_client::{Error, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{sleep, timeout};

use super::{Mirror, Store, StoreError, entry, line::line};
use crate::{model::Revision, task::Shutdown};

/// A watch that says nothing for this long is asked whether it lives, and given up when it does not answer: a frozen
/// member keeps its connections.
const IDLE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(1);
const OPEN: Duration = Duration::from_secs(1);
/// What others have seen and a watch has not brought by then is read: events take 1 to 5 ms.
const BEHIND: Duration = Duration::from_millis(60);
/// Between attempts, when all endpoints fail.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(store: &Store, shutdown: Shutdown) {
    tokio::select! {
        () = shutdown.requested() => {}
        () = follow(store) => {}
        () = overtaken(store) => {}
    }
}

/// Reads what others have seen and the watch does not bring. Such a reading finds another endpoint when the watch's is
/// the one that has gone, and the watch follows it there.
async fn overtaken(store: &Store) {
    let mut told = store.0.told.subscribe();
    while told.changed().await.is_ok() {
        let revision = *told.borrow_and_update();
        let mut mirror = store.mirror();
        let brought = mirror.wait_for(|known| known.as_ref().is_some_and(|mirror| mirror.revision >= revision));
        if timeout(BEHIND, brought).await.is_err() {
            tracing::debug!(%revision, "the watch is behind; reading");
            // Its own problem is told by the line.
            let _ = store.read().await;
        }
    }
}

async fn follow(store: &Store) {
    loop {
        let Ok(mirror) = store.read().await else {
            sleep(PAUSE).await;
            continue;
        };
        let mut from = mirror.revision;
        // Each turn a new stream, from the last revision on; a reading only when etcd has forgotten what came after it.
        while let Some(last) = stream(store, from).await {
            from = last;
        }
    }
}

/// Watches from after `from`; returns the revision to go on from, `None` when all must be read anew.
async fn stream(store: &Store, from: Revision) -> Option<Revision> {
    let line_ = &store.0.line;
    let (index, opened) = match line_.client().await {
        Ok((index, client)) => (index, timeout(OPEN, open(store, client, from)).await),
        Err(error) => {
            line_.out_of_reach(&line(&error));
            sleep(PAUSE).await;
            return Some(from);
        }
    };
    let mut watch = match opened {
        Ok(Ok(watch)) => watch,
        failed => {
            let problem = failed
                .map_or_else(|_| "no answer to a watch".to_owned(), |f| f.map_or_else(|e| line(&e), |_| String::new()));
            // Whether the store can be reached at all, calls find out; streams only move on.
            line_.failed(index, &problem);
            sleep(PAUSE).await;
            return None;
        }
    };
    let mut last = from;
    loop {
        let answer = tokio::select! {
            answer = next(&mut watch) => answer,
            () = line_.left(index) => return Some(last),
        };
        match answer {
            Ok(answer) if answer.canceled() => {
                line_.failed(index, &format!("watch cancelled: {}", answer.cancel_reason()));
                return None;
            }
            Ok(answer) => last = apply(store, &answer, last),
            Err(problem) => {
                line_.failed(index, &problem);
                return Some(last);
            }
        }
    }
}

async fn open(store: &Store, client: etcd_client::Client, from: Revision) -> Result<WatchStream, Error> {
    let options = WatchOptions::new().with_prefix().with_start_revision(from.0 + 1);
    let mut watch = client.watch_client().watch(store.keys().base(), Some(options)).await?;
    // The first answer says that it stands.
    let first = watch.message().await?.ok_or_else(|| Error::WatchError("the watch ended at once".into()))?;
    match first.header() {
        // Such a watch would never say anything. A member that lags is told from a store that went back by a reading.
        Some(header) if header.revision() < from.0 || strange(store, header.cluster_id()) => {
            Err(Error::WatchError(format!("its revision is {}, {from} was seen", header.revision())))
        }
        _ => Ok(watch),
    }
}

/// True when this is the id of another etcd cluster than the mirror's.
fn strange(store: &Store, etcd_cluster: u64) -> bool {
    store.0.mirror.borrow().as_ref().is_some_and(|mirror| mirror.etcd_cluster != etcd_cluster)
}

/// The next answer; an idle watch is asked for a sign of life.
async fn next(watch: &mut WatchStream) -> Result<WatchResponse, String> {
    let ended = |answer: Result<Option<WatchResponse>, Error>| match answer {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("the watch ended".to_owned()),
        Err(error) => Err(line(&error)),
    };
    if let Ok(answer) = timeout(IDLE, watch.message()).await {
        return ended(answer);
    }
    watch.request_progress().await.map_err(|error| line(&error))?;
    match timeout(ANSWER, watch.message()).await {
        Ok(answer) => ended(answer),
        Err(_) => Err("the watch does not answer".to_owned()),
    }
}

/// Puts the events of one answer into the mirror, all at once: a transaction is seen as a whole or not at all. Returns
/// the revision that the watch has reached. Progress alone moves nothing: before etcd 3.4.25 and 3.5.8 it may run ahead of
/// the events (etcd #15220).
fn apply(store: &Store, answer: &WatchResponse, last: Revision) -> Revision {
    let reached = answer.events().iter().filter_map(|event| event.kv()).map(|kv| kv.mod_revision()).max();
    let Some(reached) = reached.map(Revision) else { return last };
    store.0.mirror.send_if_modified(|known| {
        let Some(mirror) = known.as_mut().filter(|mirror| mirror.revision < reached) else { return false };
        // A reading may be ahead of the watch.
        let seen = mirror.revision;
        let mirror = Arc::make_mut(mirror);
        for event in answer.events() {
            let Some(kv) = event.kv().filter(|kv| kv.mod_revision() > seen.0) else { continue };
            let entry = entry(kv);
            match event.event_type() {
                EventType::Put => mirror.put(store.keys(), entry),
                EventType::Delete => mirror.remove(store.keys(), &entry.key),
            }
        }
        mirror.revision = reached;
        true
    });
    reached.max(last)
}

/// Puts a reading into the mirror, if it is newer. `seen` is the mirror's revision when the reading began: a linearizable
/// reading can't be older, unless the store was replaced or an older copy of it restored.
pub(super) fn publish(store: &Store, read: &Arc<Mirror>, seen: Revision) -> Result<(), StoreError> {
    let known = store.0.mirror.borrow().as_ref().map(|mirror| mirror.etcd_cluster);
    if let Some(known) = known.filter(|known| *known != read.etcd_cluster) {
        let (found, known) = (read.etcd_cluster, known);
        return Err(refuse(store, format!("another etcd cluster answers ({found:x}, not {known:x} as before)")));
    }
    if read.revision < seen {
        let found = read.revision;
        return Err(refuse(store, format!("etcd holds revision {found}, and {seen} was seen: it went back")));
    }
    store.0.mirror.send_if_modified(|known| {
        let newer = known.as_ref().is_none_or(|mirror| mirror.revision < read.revision);
        if newer {
            *known = Some(read.clone());
        }
        newer
    });
    Ok(())
}

/// Wakes those who wait for news of the mirror: there will be none.
fn refuse(store: &Store, problem: String) -> StoreError {
    let refused = store.0.line.refuse(problem);
    store.0.mirror.send_modify(|_| {});
    refused
}
