//! When the key `ready` was written: what a proxy waits for, seen by the same means. Watches one member of etcd.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use etcd_client::Client;
use stolon_tests::cluster::BASE;
use tokio::task::JoinHandle;

/// A watch that ends when dropped.
pub struct Ready {
    writes: Arc<Mutex<Vec<SystemTime>>>,
    task: JoinHandle<()>,
}

impl Ready {
    /// `client`: of a member that will not be struck.
    pub async fn watch(mut client: Client) -> Result<Ready, String> {
        let mut watch = client.watch(format!("{BASE}ready"), None).await.map_err(|error| error.to_string())?;
        let writes = Arc::new(Mutex::new(Vec::new()));
        let kept = writes.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(news)) = watch.message().await {
                let written = news.events().iter().any(|event| event.event_type() == etcd_client::EventType::Put);
                if written {
                    kept.lock().unwrap_or_else(|e| e.into_inner()).push(SystemTime::now());
                }
            }
        });
        Ok(Ready { writes, task })
    }

    /// The first write seen after `from`.
    pub fn after(&self, from: SystemTime) -> Option<SystemTime> {
        self.writes.lock().unwrap_or_else(|e| e.into_inner()).iter().find(|at| **at > from).copied()
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.task.abort();
    }
}
