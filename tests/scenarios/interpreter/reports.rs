//! What keepers and proxies say, by their streams and by their registrations.

use stolon::model::{
    DbUid, Epoch, Generation,
    registration::DataDir,
    report::{KeeperReport, PostgresState},
};

use super::{
    args::{Command, Trouble, duration, number, position, yes},
    keeper, proxy,
    town::SYSTEM,
    world::World,
};

impl World {
    /// Promises, recruits, reports.
    pub fn keeper_says(&mut self, command: &Command) -> Result<bool, Trouble> {
        match command.verb.as_str() {
            "promises" | "recruited" | "postgres-ends" | "reports" => self.heard(command.name()?)?,
            "registration-of" => self.registered(command.name()?)?,
            _ => {}
        }
        match command.verb.as_str() {
            "promises" => {
                let name = command.name()?;
                self.held.remove(name);
                self.town.promise(name, number(command.need("epoch")?)?);
            }
            // At a position on the old timeline.
            "recruited" => {
                let (name, at) = (command.name()?, position(command.need("at")?)?);
                self.town.recruit(name, number(command.need("epoch")?)?, at.timeline, at.lsn.0);
            }
            "serves" => self.serve(),
            "confirms" => self.town.confirming = yes(command.name()?)?,
            "postgres-ends" => {
                let name = command.name()?;
                self.held.insert(name.to_owned());
                self.town.report(name, |report| {
                    report.postgres.state = PostgresState::Stopped;
                    report.postgres.wal_streaming = false;
                });
            }
            "reports" => {
                let name = command.name()?;
                self.held.insert(name.to_owned());
                let uid = keeper(name);
                let peer = &self.town.seen.keepers[&uid];
                let mut report = peer.report.as_ref().map(|(report, _)| report.clone()).unwrap_or_default();
                for (key, value) in command.pairs() {
                    tell(&mut report, key, value)?;
                }
                self.town.seen.keeper_report(self.town.now, &uid, report);
            }
            "registration-of" => {
                for (key, value) in command.pairs() {
                    self.register_as(command.name()?, key, value)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn registered(&self, name: &str) -> Result<(), Trouble> {
        let there = self.town.mirror.keepers.contains_key(&keeper(name));
        if there { Ok(()) } else { Err(format!("{name} is not registered")) }
    }

    fn heard(&self, name: &str) -> Result<(), Trouble> {
        self.registered(name)?;
        let there = self.town.seen.keepers.contains_key(&keeper(name));
        if there { Ok(()) } else { Err(format!("{name} has no stream to this sentinel")) }
    }

    fn register_as(&mut self, name: &str, key: &str, value: &str) -> Result<(), Trouble> {
        let own = self.town.mirror.data().and_then(|(data, _)| data.db_of(&keeper(name)).map(|(db, _)| db.clone()));
        match key {
            "can-be-master" => {
                let yes = yes(value)?;
                self.town.info(name, |info| info.can_be_master = yes);
            }
            "can-be-synchronous" => {
                let yes = yes(value)?;
                self.town.info(name, |info| info.can_be_synchronous_replica = yes);
            }
            "data" => {
                let data = match value {
                    "none" => None,
                    "own" => Some(DataDir { system_id: SYSTEM, db: own }),
                    "foreign" => Some(DataDir { system_id: SYSTEM + 1, db: None }),
                    other => return Err(format!("{other:?} is no data")),
                };
                self.town.info(name, |info| info.data = data);
            }
            "promised" => {
                let epoch = Epoch(number(value)?);
                self.town.info(name, |info| info.promised = epoch);
            }
            "recruit" => {
                let (epoch, at) = value.split_once('@').ok_or("recruit=EPOCH@TIMELINE/LSN")?;
                let recruit =
                    stolon::model::registration::Recruit { epoch: Epoch(number(epoch)?), position: position(at)? };
                self.town.info(name, |info| info.recruit = Some(recruit));
            }
            other => return Err(format!("a keeper's registration has no {other:?}")),
        }
        Ok(())
    }

    pub fn proxy_does(&mut self, command: &Command) -> Result<bool, Trouble> {
        match command.verb.as_str() {
            "fences" => self.town.fence(command.name()?, number(command.need("epoch")?)?),
            "fences-in-etcd" => {
                let epoch = Epoch(number(command.need("epoch")?)?);
                let own = self.town.mirror.proxies.get_mut(&proxy(command.name()?)).ok_or("it is not registered")?;
                own.info.fenced_epoch = epoch;
            }
            "proxy-registers" => command.names().iter().for_each(|name| self.town.register_proxy(name)),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// One field of a keeper's report.
fn tell(report: &mut KeeperReport, key: &str, value: &str) -> Result<(), Trouble> {
    let postgres = &mut report.postgres;
    match key {
        "state" => {
            postgres.state = match value {
                "absent" => PostgresState::Absent,
                "copying" => PostgresState::Copying,
                "stopped" => PostgresState::Stopped,
                "starting" => PostgresState::Starting,
                "standby" => PostgresState::Standby,
                "primary" => PostgresState::Primary,
                other => return Err(format!("{other:?} is no state of PostgreSQL")),
            }
        }
        "db" => postgres.db = (value != "none").then(|| DbUid::parse(value)).transpose().map_err(|e| e.to_string())?,
        "streaming" => postgres.wal_streaming = yes(value)?,
        "wal-advances" => postgres.wal_advances += number::<u64>(value)?,
        "position" => postgres.position = (value != "unknown").then(|| position(value)).transpose()?,
        "position-final" => postgres.position_final = yes(value)?,
        "generation" => postgres.generation = Generation(number(value)?),
        "system" => postgres.system_id = if value == "other" { SYSTEM + 1 } else { SYSTEM },
        "probe-age" => postgres.probe_age = Some(duration(value)?),
        "failure" => value.clone_into(&mut report.failure),
        "leaving" => report.leaving = yes(value)?,
        "prepared" => report.prepared = Epoch(number(value)?),
        "authority" => report.authority = report.authority.filter(|_| value != "none"),
        other => return Err(format!("a keeper's report has no {other:?}")),
    }
    Ok(())
}
