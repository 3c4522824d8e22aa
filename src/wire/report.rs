//! Heartbeats: what keepers and proxies report.

use std::time::Duration;

use super::{
    BadMessage,
    field::{choice, generation, line, millis, names, optional, optional_name, required, revision, texts},
    v1,
};
use crate::model::{
    Epoch,
    report::{AuthorityReport, KeeperReport, PostgresReport, PostgresState, ProxyReport},
};

impl TryFrom<v1::KeeperReport> for KeeperReport {
    type Error = BadMessage;
    fn try_from(message: v1::KeeperReport) -> Result<KeeperReport, BadMessage> {
        let remaining = Duration::from_millis(message.authority_remaining_ms);
        let authority = AuthorityReport { epoch: Epoch(message.authority_epoch), remaining };
        Ok(KeeperReport {
            view_revision: revision("view_revision", message.view_revision)?,
            promised: Epoch(message.promised),
            authority: (!authority.epoch.is_none()).then_some(authority),
            recruit: optional(message.recruit)?,
            leaving: message.leaving,
            prepared: Epoch(message.prepared),
            failure: line(message.failure),
            postgres: required("postgres", message.postgres)?.try_into()?,
        })
    }
}

impl From<&KeeperReport> for v1::KeeperReport {
    fn from(report: &KeeperReport) -> v1::KeeperReport {
        v1::KeeperReport {
            view_revision: report.view_revision.0,
            promised: report.promised.0,
            authority_epoch: report.authority.map_or(0, |authority| authority.epoch.0),
            authority_remaining_ms: report.authority.map_or(0, |authority| millis(authority.remaining)),
            recruit: report.recruit.as_ref().map(Into::into),
            leaving: report.leaving,
            prepared: report.prepared.0,
            failure: report.failure.clone(),
            postgres: Some((&report.postgres).into()),
        }
    }
}

impl TryFrom<v1::PostgresReport> for PostgresReport {
    type Error = BadMessage;
    fn try_from(message: v1::PostgresReport) -> Result<PostgresReport, BadMessage> {
        Ok(PostgresReport {
            state: choice::<v1::PostgresState>("postgres.state", message.state)?.try_into()?,
            db: optional_name("postgres.db", message.db)?,
            generation: generation("postgres.generation", message.generation)?,
            system_id: message.system_id,
            position: optional(message.position)?,
            position_age: Duration::from_millis(message.position_age_ms),
            position_final: message.position_final,
            probe_age: message.probe_age_ms.map(Duration::from_millis),
            wal_streaming: message.wal_streaming,
            wal_advances: message.wal_advances,
            primary_epoch: Epoch(message.primary_epoch),
            parameters: message.parameters,
            in_sync: names("postgres.in_sync", message.in_sync)?,
            pid: message.pid,
        })
    }
}

impl From<&PostgresReport> for v1::PostgresReport {
    fn from(report: &PostgresReport) -> v1::PostgresReport {
        v1::PostgresReport {
            state: v1::PostgresState::from(report.state).into(),
            db: report.db.as_ref().map(ToString::to_string).unwrap_or_default(),
            generation: report.generation.0,
            system_id: report.system_id,
            position: report.position.as_ref().map(Into::into),
            position_age_ms: millis(report.position_age),
            position_final: report.position_final,
            probe_age_ms: report.probe_age.map(millis),
            wal_streaming: report.wal_streaming,
            wal_advances: report.wal_advances,
            primary_epoch: report.primary_epoch.0,
            parameters: report.parameters.clone(),
            in_sync: texts(&report.in_sync),
            pid: report.pid,
        }
    }
}

impl TryFrom<v1::PostgresState> for PostgresState {
    type Error = BadMessage;
    fn try_from(state: v1::PostgresState) -> Result<PostgresState, BadMessage> {
        match state {
            v1::PostgresState::Unspecified => Err(BadMessage::new("postgres.state", "is unspecified")),
            v1::PostgresState::Absent => Ok(PostgresState::Absent),
            v1::PostgresState::Copying => Ok(PostgresState::Copying),
            v1::PostgresState::Stopped => Ok(PostgresState::Stopped),
            v1::PostgresState::Starting => Ok(PostgresState::Starting),
            v1::PostgresState::Standby => Ok(PostgresState::Standby),
            v1::PostgresState::Primary => Ok(PostgresState::Primary),
        }
    }
}

impl From<PostgresState> for v1::PostgresState {
    fn from(state: PostgresState) -> v1::PostgresState {
        match state {
            PostgresState::Absent => v1::PostgresState::Absent,
            PostgresState::Copying => v1::PostgresState::Copying,
            PostgresState::Stopped => v1::PostgresState::Stopped,
            PostgresState::Starting => v1::PostgresState::Starting,
            PostgresState::Standby => v1::PostgresState::Standby,
            PostgresState::Primary => v1::PostgresState::Primary,
        }
    }
}

impl TryFrom<v1::ProxyReport> for ProxyReport {
    type Error = BadMessage;
    fn try_from(message: v1::ProxyReport) -> Result<ProxyReport, BadMessage> {
        let route = Epoch(message.route_epoch);
        Ok(ProxyReport {
            view_revision: revision("view_revision", message.view_revision)?,
            fenced_epoch: Epoch(message.fenced_epoch),
            route_epoch: (!route.is_none()).then_some(route),
            connections: message.connections,
            lease_remaining: Duration::from_millis(message.lease_remaining_ms),
        })
    }
}

impl From<&ProxyReport> for v1::ProxyReport {
    fn from(report: &ProxyReport) -> v1::ProxyReport {
        v1::ProxyReport {
            view_revision: report.view_revision.0,
            fenced_epoch: report.fenced_epoch.0,
            route_epoch: report.route_epoch.unwrap_or_default().0,
            connections: report.connections,
            lease_remaining_ms: millis(report.lease_remaining),
        }
    }
}
