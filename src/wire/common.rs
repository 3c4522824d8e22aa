//! Values that several messages share: who sends, positions, the fencing mark, the primary, probes.

use std::time::Duration;

use super::{
    BadMessage,
    field::{choice, epoch, host, lease, line, millis, name, optional_name, port},
    v1,
};
use crate::model::{
    ClusterName, ClusterUid, Epoch, LeaseId, Lsn, WalPosition,
    cluster::{Fencing, Lineage, Stage},
    registration::Recruit,
    report::ProbeResult,
    view::Primary,
};

/// Who sends, and for which cluster: the first message of each stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_name: ClusterName,
    /// None while the sender has not seen any cluster data.
    pub cluster_uid: Option<ClusterUid>,
    /// Uid of the sending keeper, proxy or sentinel; its own rule is applied by who knows which it is.
    pub uid: String,
    /// Lease of the sender's registration; `LeaseId::NONE` while it has none.
    pub lease: LeaseId,
}

/// A sentinel's question whether the receiver reaches a PostgreSQL server (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Chosen by who asks, returned in the outcome.
    pub id: u64,
    pub host: String,
    pub port: u16,
    /// The answer is given within this time.
    pub deadline: Duration,
}

impl TryFrom<v1::Identity> for Identity {
    type Error = BadMessage;
    fn try_from(message: v1::Identity) -> Result<Identity, BadMessage> {
        Ok(Identity {
            cluster_name: name("cluster_name", message.cluster_name)?,
            cluster_uid: optional_name("cluster_uid", message.cluster_uid)?,
            // The widest rule of all uids: nothing that a log or a path would choke on.
            uid: name::<crate::model::ProxyUid>("uid", message.uid)?.into(),
            lease: lease("lease", message.lease)?,
        })
    }
}

impl From<&Identity> for v1::Identity {
    fn from(identity: &Identity) -> v1::Identity {
        v1::Identity {
            cluster_name: identity.cluster_name.to_string(),
            cluster_uid: identity.cluster_uid.as_ref().map(ToString::to_string).unwrap_or_default(),
            uid: identity.uid.clone(),
            lease: identity.lease.0,
        }
    }
}

impl TryFrom<v1::WalPosition> for WalPosition {
    type Error = BadMessage;
    fn try_from(message: v1::WalPosition) -> Result<WalPosition, BadMessage> {
        if message.timeline == 0 {
            return Err(BadMessage::new("timeline", "is 0"));
        }
        Ok(WalPosition { timeline: message.timeline, lsn: Lsn(message.lsn) })
    }
}

impl From<&WalPosition> for v1::WalPosition {
    fn from(position: &WalPosition) -> v1::WalPosition {
        v1::WalPosition { timeline: position.timeline, lsn: position.lsn.0 }
    }
}

impl TryFrom<v1::Recruit> for Recruit {
    type Error = BadMessage;
    fn try_from(message: v1::Recruit) -> Result<Recruit, BadMessage> {
        let position = super::field::required("recruit.position", message.position)?.try_into()?;
        Ok(Recruit { epoch: epoch("recruit.epoch", message.epoch)?, position })
    }
}

impl From<&Recruit> for v1::Recruit {
    fn from(recruit: &Recruit) -> v1::Recruit {
        v1::Recruit { epoch: recruit.epoch.0, position: Some((&recruit.position).into()) }
    }
}

impl TryFrom<v1::Fencing> for Fencing {
    type Error = BadMessage;
    fn try_from(message: v1::Fencing) -> Result<Fencing, BadMessage> {
        Ok(Fencing {
            // A cluster that never had a primary has epoch 0, and needs no mark; a forced election may still set one.
            epoch: Epoch(message.epoch),
            stage: match choice("fencing.stage", message.stage)? {
                v1::FencingStage::Recruit => Stage::Recruit,
                _ => Stage::Fence,
            },
            planned: message.planned,
            to: optional_name("fencing.to", message.to)?,
            reason: line(message.reason),
            traceparent: line(message.traceparent),
        })
    }
}

impl From<&Fencing> for v1::Fencing {
    fn from(fencing: &Fencing) -> v1::Fencing {
        let stage = match fencing.stage {
            Stage::Fence => v1::FencingStage::Fence,
            Stage::Recruit => v1::FencingStage::Recruit,
        };
        v1::Fencing {
            epoch: fencing.epoch.0,
            stage: stage.into(),
            planned: fencing.planned,
            to: fencing.to.as_ref().map(ToString::to_string).unwrap_or_default(),
            reason: fencing.reason.clone(),
            traceparent: fencing.traceparent.clone(),
        }
    }
}

impl TryFrom<v1::Primary> for Primary {
    type Error = BadMessage;
    fn try_from(message: v1::Primary) -> Result<Primary, BadMessage> {
        Ok(Primary { db: name("primary.db", message.db)?, keeper: name("primary.keeper", message.keeper)? })
    }
}

impl From<&Primary> for v1::Primary {
    fn from(primary: &Primary) -> v1::Primary {
        v1::Primary { db: primary.db.to_string(), keeper: primary.keeper.to_string() }
    }
}

impl TryFrom<v1::Lineage> for Lineage {
    type Error = BadMessage;
    fn try_from(message: v1::Lineage) -> Result<Lineage, BadMessage> {
        Ok(Lineage {
            epoch: Epoch(message.epoch),
            timeline: message.timeline,
            switch_lsn: Lsn(message.switch_lsn),
            db: name("lineage.db", message.db)?,
        })
    }
}

impl From<&Lineage> for v1::Lineage {
    fn from(lineage: &Lineage) -> v1::Lineage {
        v1::Lineage {
            epoch: lineage.epoch.0,
            timeline: lineage.timeline,
            switch_lsn: lineage.switch_lsn.0,
            db: lineage.db.to_string(),
        }
    }
}

impl TryFrom<v1::ProbeRequest> for Probe {
    type Error = BadMessage;
    fn try_from(message: v1::ProbeRequest) -> Result<Probe, BadMessage> {
        Ok(Probe {
            id: message.id,
            host: host("probe.host", message.host)?,
            port: port("probe.port", message.port)?,
            deadline: Duration::from_millis(message.deadline_ms.into()),
        })
    }
}

impl From<&Probe> for v1::ProbeRequest {
    fn from(probe: &Probe) -> v1::ProbeRequest {
        v1::ProbeRequest {
            id: probe.id,
            host: probe.host.clone(),
            port: probe.port.into(),
            deadline_ms: u32::try_from(millis(probe.deadline)).unwrap_or(u32::MAX),
        }
    }
}

impl TryFrom<v1::ProbeResult> for ProbeResult {
    type Error = BadMessage;
    fn try_from(result: v1::ProbeResult) -> Result<ProbeResult, BadMessage> {
        match result {
            v1::ProbeResult::Unspecified => Err(BadMessage::new("probe.result", "is unspecified")),
            v1::ProbeResult::Answered => Ok(ProbeResult::Answered),
            v1::ProbeResult::Refused => Ok(ProbeResult::Refused),
            v1::ProbeResult::TimedOut => Ok(ProbeResult::TimedOut),
            v1::ProbeResult::Unreachable => Ok(ProbeResult::Unreachable),
        }
    }
}

impl From<ProbeResult> for v1::ProbeResult {
    fn from(result: ProbeResult) -> v1::ProbeResult {
        match result {
            ProbeResult::Answered => v1::ProbeResult::Answered,
            ProbeResult::Refused => v1::ProbeResult::Refused,
            ProbeResult::TimedOut => v1::ProbeResult::TimedOut,
            ProbeResult::Unreachable => v1::ProbeResult::Unreachable,
        }
    }
}
