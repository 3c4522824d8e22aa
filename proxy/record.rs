//! What this proxy's registration says in etcd, and when it has to be written anew: an acknowledgement at once (R7),
//! what the proxy has taken up of the cluster data when no change of primary is in progress. Never periodically.

use std::time::Duration;

use stolon::model::{ClusterData, Epoch, Generation, ProxyUid, registration::ProxyInfo, view::ProxyView};

use crate::gatehouse::PROXY_TIMEOUT;

/// The wanted content of `proxies/info/<uid>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    uid: ProxyUid,
    listen_address: String,
    grpc_address: String,
    generation: Generation,
    proxy_timeout: Duration,
    fenced: Epoch,
}

impl Record {
    pub fn new(uid: ProxyUid, listen_address: String, grpc_address: String) -> Record {
        let (generation, proxy_timeout, fenced) = (Generation(0), PROXY_TIMEOUT, Epoch::NONE);
        Record { uid, listen_address, grpc_address, generation, proxy_timeout, fenced }
    }

    /// Takes cluster data up that leave the primary in peace. True when there is something to write.
    #[must_use]
    pub fn follow(&mut self, data: &ClusterData, view: &ProxyView) -> bool {
        let next = (data.proxy.generation, view.proxy_timeout);
        let changed = view.fencing.is_none() && next != (self.generation, self.proxy_timeout);
        if changed {
            (self.generation, self.proxy_timeout) = next;
        }
        changed
    }

    /// Takes an acknowledgement up that somebody waits for. True when there is something to write.
    #[must_use]
    pub fn acknowledge(&mut self, epoch: Epoch) -> bool {
        let grows = epoch > self.fenced;
        self.fenced = self.fenced.max(epoch);
        grows
    }

    /// The JSON to store; another one at each call, as its `infoUID` is.
    pub fn value(&self) -> Vec<u8> {
        let info = ProxyInfo {
            info_uid: format!("{:08x}", rand::random::<u32>()),
            uid: self.uid.clone(),
            generation: self.generation,
            proxy_timeout: u64::try_from(self.proxy_timeout.as_nanos()).unwrap_or(u64::MAX),
            fenced_epoch: self.fenced,
            listen_address: self.listen_address.clone(),
            grpc_address: self.grpc_address.clone(),
            extra: Default::default(),
        };
        serde_json::to_vec(&info).expect("a proxy's registration has only text keys")
    }
}

#[cfg(test)]
mod tests {
    use stolon::model::Revision;

    use super::*;
    use crate::tests::document;

    fn record() -> Record {
        Record::new(ProxyUid::parse("a1").unwrap(), "127.0.0.1:25432".into(), "127.0.0.1:7000".into())
    }

    fn data(generation: u64, mark: bool) -> (ClusterData, ProxyView) {
        let data = ClusterData::parse(document(generation, mark).to_string().as_bytes()).unwrap();
        let view = ProxyView::derive(&data, Revision(5)).unwrap();
        (data, view)
    }

    #[test]
    fn each_value_is_fresh_and_readable() {
        let mut record = record();
        assert!(record.acknowledge(Epoch(3)));
        let read = |value: Vec<u8>| serde_json::from_slice::<ProxyInfo>(&value).unwrap();
        let (first, second) = (read(record.value()), read(record.value()));
        assert_ne!(first.info_uid, second.info_uid);
        assert_eq!((first.fenced_epoch, first.proxy_timeout), (Epoch(3), 15_000_000_000));
    }

    #[test]
    fn an_acknowledgement_is_written_once() {
        let mut record = record();
        assert!(record.acknowledge(Epoch(3)) && !record.acknowledge(Epoch(3)) && !record.acknowledge(Epoch(2)));
        assert_eq!(record.fenced, Epoch(3));
    }

    #[test]
    fn the_cluster_datas_wishes_are_taken_up_once_and_not_under_a_mark() {
        let mut record = record();
        let (marked, view) = data(2, true);
        assert!(!record.follow(&marked, &view), "a failover is in progress: etcd has better things to do");
        let (settled, view) = data(2, false);
        assert!(record.follow(&settled, &view) && !record.follow(&settled, &view));
        assert_eq!((record.generation, record.proxy_timeout), (Generation(2), Duration::from_secs(7)));
    }
}
