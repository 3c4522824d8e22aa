//! Views: what sentinels push to keepers and proxies.

use std::time::Duration;

use super::{
    BadMessage,
    field::{millis, name, optional, required, revision},
    v1,
};
use crate::model::{
    Epoch,
    cluster::Lineage,
    view::{KeeperView, ProxyView, Timings},
};

impl TryFrom<v1::KeeperView> for KeeperView {
    type Error = BadMessage;
    fn try_from(message: v1::KeeperView) -> Result<KeeperView, BadMessage> {
        Ok(KeeperView {
            cluster_uid: name("cluster_uid", message.cluster_uid)?,
            revision: revision("revision", message.revision)?,
            epoch: Epoch(message.epoch),
            fencing: optional(message.fencing)?,
            primary: optional(message.primary)?,
            assignment: optional(message.assignment)?,
            timings: required("timings", message.timings)?.into(),
            handover: message.handover,
            lineage: message.lineage.into_iter().map(Lineage::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&KeeperView> for v1::KeeperView {
    fn from(view: &KeeperView) -> v1::KeeperView {
        v1::KeeperView {
            cluster_uid: view.cluster_uid.to_string(),
            revision: view.revision.0,
            epoch: view.epoch.0,
            fencing: view.fencing.as_ref().map(Into::into),
            primary: view.primary.as_ref().map(Into::into),
            assignment: view.assignment.as_ref().map(Into::into),
            timings: Some((&view.timings).into()),
            handover: view.handover,
            lineage: view.lineage.iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::Timings> for Timings {
    fn from(message: v1::Timings) -> Timings {
        Timings {
            sleep_interval: Duration::from_millis(message.sleep_interval_ms),
            request_timeout: Duration::from_millis(message.request_timeout_ms),
            fail_interval: Duration::from_millis(message.fail_interval_ms),
            ready_timeout: Duration::from_millis(message.ready_timeout_ms),
        }
    }
}

impl From<&Timings> for v1::Timings {
    fn from(timings: &Timings) -> v1::Timings {
        v1::Timings {
            sleep_interval_ms: millis(timings.sleep_interval),
            request_timeout_ms: millis(timings.request_timeout),
            fail_interval_ms: millis(timings.fail_interval),
            ready_timeout_ms: millis(timings.ready_timeout),
        }
    }
}

impl TryFrom<v1::ProxyView> for ProxyView {
    type Error = BadMessage;
    fn try_from(message: v1::ProxyView) -> Result<ProxyView, BadMessage> {
        Ok(ProxyView {
            cluster_uid: name("cluster_uid", message.cluster_uid)?,
            revision: revision("revision", message.revision)?,
            epoch: Epoch(message.epoch),
            fencing: optional(message.fencing)?,
            primary: optional(message.primary)?,
            open_to_all: message.open_to_all,
            proxy_timeout: Duration::from_millis(message.proxy_timeout_ms),
        })
    }
}

impl From<&ProxyView> for v1::ProxyView {
    fn from(view: &ProxyView) -> v1::ProxyView {
        v1::ProxyView {
            cluster_uid: view.cluster_uid.to_string(),
            revision: view.revision.0,
            epoch: view.epoch.0,
            fencing: view.fencing.as_ref().map(Into::into),
            primary: view.primary.as_ref().map(Into::into),
            open_to_all: view.open_to_all,
            proxy_timeout_ms: millis(view.proxy_timeout),
        }
    }
}
