//! A keeper's assignment: on the wire a flat message with unset parts, in the model one role with its data.

use super::{
    BadMessage,
    field::{choice, generation, host, name, names, port, small, texts},
    v1,
};
use crate::model::{
    spec::NewConfig,
    view::{Access, Assignment, InitMode, Role, Settings, Upstream},
};

impl TryFrom<v1::Assignment> for Assignment {
    type Error = BadMessage;
    fn try_from(message: v1::Assignment) -> Result<Assignment, BadMessage> {
        Ok(Assignment {
            db: name("assignment.db", message.db)?,
            generation: generation("assignment.generation", message.generation)?,
            init: init(message.init, message.new_config)?,
            role: role(message.primary, message.standby)?,
            settings: Settings {
                parameters: message.parameters,
                hba: message.hba_set.then_some(message.hba),
                max_standbys: small("assignment.max_standbys", message.max_standbys)?,
                additional_wal_senders: small("assignment.additional_wal_senders", message.additional_wal_senders)?,
                automatic_restart: message.automatic_restart,
                access: if message.strict_access { Access::Only(message.strict_addresses) } else { Access::Everywhere },
            },
            synchronous: message.synchronous,
            use_pg_rewind: message.use_pg_rewind,
            merge_parameters: message.merge_parameters,
        })
    }
}

fn init(mode: i32, config: Option<v1::NewConfig>) -> Result<InitMode, BadMessage> {
    match choice("assignment.init", mode)? {
        v1::InitMode::New => {
            let v1::NewConfig { locale, encoding, data_checksums } = config.unwrap_or_default();
            Ok(InitMode::New(NewConfig { locale, encoding, data_checksums }))
        }
        v1::InitMode::None => Ok(InitMode::None),
        v1::InitMode::Existing => Ok(InitMode::Existing),
        v1::InitMode::Resync => Ok(InitMode::Resync),
        v1::InitMode::Unspecified => Err(BadMessage::new("assignment.init", "is unspecified")),
    }
}

fn role(primary: Option<v1::PrimaryRole>, standby: Option<v1::StandbyRole>) -> Result<Role, BadMessage> {
    match (primary, standby) {
        (Some(role), None) => Ok(Role::Primary {
            followers: names("assignment.primary.followers", role.followers)?,
            additional_slots: role.additional_slots,
            synchronous_names: role.synchronous_names,
        }),
        (None, Some(role)) => {
            let db = name("assignment.standby.follow", role.follow)?;
            let known = !role.host.is_empty() || role.port != 0;
            let address = known.then(|| {
                Ok((host("assignment.standby.host", role.host)?, port("assignment.standby.port", role.port)?))
            });
            Ok(Role::Standby(Upstream { db, address: address.transpose()? }))
        }
        _ => Err(BadMessage::new("assignment", "needs one role: primary or standby")),
    }
}

impl From<&Assignment> for v1::Assignment {
    fn from(assignment: &Assignment) -> v1::Assignment {
        let settings = &assignment.settings;
        let (init, new_config) = match &assignment.init {
            InitMode::None => (v1::InitMode::None, None),
            InitMode::New(config) => (v1::InitMode::New, Some(config.into())),
            InitMode::Existing => (v1::InitMode::Existing, None),
            InitMode::Resync => (v1::InitMode::Resync, None),
        };
        let (primary, standby) = roles(&assignment.role);
        let (strict_access, strict_addresses) = match &settings.access {
            Access::Everywhere => (false, Vec::new()),
            Access::Only(hosts) => (true, hosts.clone()),
        };
        v1::Assignment {
            db: assignment.db.to_string(),
            generation: assignment.generation.0,
            init: init.into(),
            new_config,
            primary,
            standby,
            parameters: settings.parameters.clone(),
            hba: settings.hba.clone().unwrap_or_default(),
            hba_set: settings.hba.is_some(),
            synchronous: assignment.synchronous,
            use_pg_rewind: assignment.use_pg_rewind,
            max_standbys: settings.max_standbys.into(),
            additional_wal_senders: settings.additional_wal_senders.into(),
            automatic_restart: settings.automatic_restart,
            strict_addresses,
            strict_access,
            merge_parameters: assignment.merge_parameters,
        }
    }
}

fn roles(role: &Role) -> (Option<v1::PrimaryRole>, Option<v1::StandbyRole>) {
    match role {
        Role::Primary { followers, additional_slots, synchronous_names } => {
            let role = v1::PrimaryRole {
                followers: texts(followers),
                additional_slots: additional_slots.clone(),
                synchronous_names: synchronous_names.clone(),
            };
            (Some(role), None)
        }
        Role::Standby(upstream) => {
            let (host, port) = upstream.address.clone().unwrap_or_default();
            (None, Some(v1::StandbyRole { follow: upstream.db.to_string(), host, port: port.into() }))
        }
    }
}

impl From<&NewConfig> for v1::NewConfig {
    fn from(config: &NewConfig) -> v1::NewConfig {
        let NewConfig { locale, encoding, data_checksums } = config.clone();
        v1::NewConfig { locale, encoding, data_checksums }
    }
}
