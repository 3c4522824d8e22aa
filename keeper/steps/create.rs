//! The first database: made by initdb, or taken as it lies in the directory.

use serde_json::{Map, Value};
use stolon::model::{DbUid, Generation, spec::NewConfig};

use super::{Done, Hands, StepError};
use crate::{journal::DbState, pg::ConfRole};

/// stolon's name in `dbstate` for the parameters that the database came with.
const INITIAL: &str = "InitPGParameters";

impl Hands {
    pub(super) async fn create(&self, db: &DbUid, config: &NewConfig) -> Done {
        self.join_cluster()?;
        // Until the end, what is in the directory must not be started.
        self.db_state(|state| *state = DbState { uid: Some(db.clone()), initializing: true, ..DbState::default() })?;
        self.copying(true);
        let made = self.instance.initdb(config).await;
        self.copying(false);
        let parameters = made?.parameters;
        self.own(db, parameters).await?;
        self.write_conf(ConfRole::Primary)?;
        tracing::info!(%db, "created the first database");
        Ok(())
    }

    pub(super) async fn take_over(&self, db: &DbUid) -> Done {
        if self.assignment()?.db != *db {
            return Err(StepError::NotNow("another db is assigned now".into()));
        }
        self.join_cluster()?;
        let parameters = self.instance.file_parameters()?;
        self.own(db, parameters).await?;
        tracing::info!(%db, "the cluster starts from the data in this directory");
        Ok(())
    }

    /// The directory holds this db, whole.
    async fn own(&self, db: &DbUid, parameters: std::collections::BTreeMap<String, String>) -> Done {
        let initial: Map<String, Value> = parameters.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
        self.journal(|journal| (journal.branch, journal.recruit) = (None, None))?;
        self.db_state(|state| {
            let mut extra = Map::new();
            extra.insert(INITIAL.to_owned(), Value::Object(initial));
            *state = DbState { uid: Some(db.clone()), generation: Generation(0), initializing: false, extra };
        })?;
        self.shared.change(|state, _| state.parameters = parameters);
        self.look_at_control().await
    }

    pub(super) fn copying(&self, runs: bool) {
        self.shared.change(|state, _| state.copying = runs);
        self.shared.urge(String::new());
    }
}

/// The parameters that a database came with, as `dbstate` remembers them.
pub fn initial_parameters(db: &DbState) -> std::collections::BTreeMap<String, String> {
    let saved = db.extra.get(INITIAL).and_then(Value::as_object).into_iter().flatten();
    saved.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
