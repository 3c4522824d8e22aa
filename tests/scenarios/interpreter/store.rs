//! What somebody writes in etcd, or what etcd loses.

use std::sync::Arc;

use stolon::{
    model::{ClusterData, Epoch, Lsn, Revision, cluster::Lineage, registration::PrimaryKey, spec::StoredSpec},
    store::{Held, Mirror, Stored},
};

use super::{
    args::{Command, Trouble, position},
    keeper,
    world::World,
};

impl World {
    /// Runs a command about the store; false when it is none.
    pub fn stored(&mut self, command: &Command) -> Result<bool, Trouble> {
        match command.verb.as_str() {
            "spec" => self.patch(command.json.as_deref().ok_or("spec {…}")?)?,
            "initial-spec" => {
                let text = command.json.as_deref().ok_or("initial-spec {…}")?;
                self.town.initial = Some(serde_json::from_str::<StoredSpec>(text).map_err(|e| e.to_string())?);
            }
            "fails" => {
                let uid = keeper(command.name()?);
                self.town.edit(|data| {
                    if let Some(keeper) = data.keepers.get_mut(&uid) {
                        keeper.status.force_fail = true;
                    }
                });
            }
            "loses-key" => self.lost = self.town.mirror.primary.take(),
            "puts-back" => {
                self.town.info(command.name()?, |_| ());
                let modified = self.town.mirror.revision;
                let held = self.lost.take().ok_or("no key was lost")?;
                self.town.mirror.primary = Some(Held { modified, ..held });
            }
            "epoch-key" => self.town.mirror.highest_epoch = Some((Epoch(command.number(0)?), Revision(2))),
            // A snapshot of the store, and its return.
            "remember" => self.snapshot = Some(self.town.mirror.clone()),
            "restore" => {
                let revision = self.town.mirror.revision;
                let snapshot = self.snapshot.clone().ok_or("nothing was remembered")?;
                self.town.mirror = Mirror { revision: Revision(revision.0 + 1), ..snapshot };
            }
            // The incumbent's keeper was started anew: the key, on its new lease.
            "puts-back-anew" => self.put_back_anew(command.name()?)?,
            "cluster-data-lost" => {
                self.town.mirror.cluster = None;
                self.town.mirror.primary = None;
            }
            "cluster-data" => {
                let bytes = command.json.clone().ok_or("cluster-data {…}")?.into_bytes();
                let data = ClusterData::parse(&bytes).map(Arc::new);
                let revision = self.town.mirror.revision;
                self.town.mirror.cluster = Some(Stored { revision, bytes: Arc::new(bytes), data });
            }
            "forgets-positions" => self.town.edit(|data| {
                data.dbs.values_mut().for_each(|db| db.status.xlog_pos = Lsn(0));
            }),
            // The next promotion begins at this position of the timeline before.
            "lineage" => {
                let (epoch, at) = (Epoch(command.number(0)?), position(command.nth(1)?)?);
                self.town.edit(|data| {
                    let db = data.primary().map(|(uid, _)| uid.clone());
                    if let Some(db) = db {
                        data.cluster.status.history.push(Lineage {
                            epoch,
                            timeline: at.timeline,
                            switch_lsn: at.lsn,
                            db,
                        });
                    }
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn put_back_anew(&mut self, name: &str) -> Result<(), Trouble> {
        self.town.info(name, |_| ());
        let (data, modified) = (self.town.data().clone(), self.town.mirror.revision);
        let (db, _) = data.db_of(&keeper(name)).ok_or("it has no db")?;
        let traceparent = String::new();
        let value = PrimaryKey { keeper: keeper(name), db: db.clone(), epoch: data.epoch(), traceparent };
        let lease = self.town.mirror.keepers[&keeper(name)].lease;
        self.town.mirror.primary = Some(Held { value, lease, modified });
        Ok(())
    }

    /// As `stolonctl update --patch` does it.
    fn patch(&mut self, text: &str) -> Result<(), Trouble> {
        let patch: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut spec = serde_json::to_value(&self.town.data().cluster.spec).map_err(|e| e.to_string())?;
        let fields = spec.as_object_mut().ok_or("a specification is no object")?;
        fields.extend(patch);
        let spec: StoredSpec = serde_json::from_value(spec).map_err(|e| e.to_string())?;
        self.town.edit(|data| data.cluster.spec = spec);
        Ok(())
    }
}
