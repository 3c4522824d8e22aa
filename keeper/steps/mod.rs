//! One step of the plan, done for real: what the plan says as a value becomes files, processes and transactions. Each step
//! may be dropped at any await and run again from its beginning; what others rely on is on disk before it is told (R25).

mod apply;
mod arm;
mod create;
mod primary;
mod recruit;
mod resync;
mod start;
mod stop;
mod synchronous;

pub use create::initial_parameters;

use std::sync::Arc;

use stolon::{
    model::{
        DbUid, Epoch,
        view::{Assignment, InitMode, KeeperView},
    },
    store::{Store, StoreError},
};

use crate::{
    ground::Place,
    guard,
    journal::{DbState, Files, Journal, JournalError, KeeperState},
    pg::{Admit, ConfChange, ConfInput, ConfRole, Instance, PgError, Sampler},
    plan::Step,
    report::Fixed,
    shared::Shared,
    synchronous::setting,
};

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("{0}")]
    Postgres(#[from] PgError),
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Guard(String),
    /// Things have changed since the plan was made: not a fault.
    #[error("{0}")]
    NotNow(String),
}

/// What the steps work with. Cheap to clone.
#[derive(Clone)]
pub struct Hands {
    pub shared: Shared,
    pub instance: Instance,
    pub store: Store,
    pub files: Files,
    pub place: Place,
    pub fixed: Arc<Fixed>,
    pub sampler: Sampler,
    pub guard: guard::Watch,
}

type Done = Result<(), StepError>;

impl Hands {
    pub async fn run(&self, step: &Step) -> Done {
        match step {
            Step::Wait | Step::Exit => Ok(()),
            Step::Kill => self.kill().await,
            Step::Stop => self.stop().await,
            Step::GiveUp { epoch, planned } => self.give_up(*epoch, *planned).await,
            Step::Recruit { epoch } => self.recruit(*epoch).await,
            Step::Create { db, config } => self.create(db, config).await,
            Step::TakeOver { db } => self.take_over(db).await,
            Step::StartPrimary { epoch } => self.start_primary(*epoch).await,
            Step::StartStandby { upstream } => self.start_standby(upstream.as_ref()).await,
            Step::Promote { epoch } => self.promote(*epoch).await,
            Step::AdoptEpoch { epoch } => self.adopt_epoch(*epoch),
            Step::Announce { epoch } => self.announce(*epoch).await,
            Step::PutBack { epoch } => self.put_back(*epoch).await,
            Step::Follow { upstream } => self.follow(upstream).await,
            Step::Resync { db, upstream, method } => self.resync(db, upstream, *method).await,
            Step::Apply { db, generation } => self.apply(db, *generation).await,
            Step::Prepare { epoch } => self.prepare(*epoch).await,
            Step::Admit => self.admit().await,
        }
    }

    /// Changes the journal: on disk when this returns, in memory only then. Done in one go, so that a dropped step can't
    /// leave an older version to be written after a newer one.
    fn journal(&self, change: impl FnOnce(&mut Journal)) -> Done {
        let mut next = self.shared.look(|state, _| state.journal.clone());
        change(&mut next);
        tokio::task::block_in_place(|| self.files.save_journal(&next))?;
        self.shared.change(|state, _| state.journal = next);
        Ok(())
    }

    /// Who wrote the journal (R1).
    pub fn sign(&self, writer: crate::journal::Writer) -> Done {
        self.journal(|journal| journal.writer = Some(writer))
    }

    fn db_state(&self, change: impl FnOnce(&mut DbState)) -> Done {
        let mut next = self.shared.look(|state, _| state.db.clone());
        change(&mut next);
        tokio::task::block_in_place(|| self.files.save_db_state(&next))?;
        self.shared.change(|state, _| state.db = next);
        Ok(())
    }

    /// This directory belongs to the view's cluster from now on.
    fn join_cluster(&self) -> Done {
        let view = self.view()?;
        let mut next = self.shared.look(|state, _| state.keeper.clone());
        if next.cluster_uid.as_ref() == Some(&view.cluster_uid) {
            return Ok(());
        }
        next.cluster_uid = Some(view.cluster_uid);
        self.save_keeper_state(next)
    }

    fn save_keeper_state(&self, next: KeeperState) -> Done {
        tokio::task::block_in_place(|| self.files.save_keeper_state(&next))?;
        self.shared.change(|state, _| state.keeper = next);
        Ok(())
    }

    /// An operator gave this keeper's data to another cluster (`existing`): epochs, promises and db of the former one mean
    /// nothing there (R5).
    pub fn rehome(&self) -> Done {
        let view = self.view()?;
        tracing::warn!(cluster = %view.cluster_uid, "this keeper's data was given to a new cluster");
        self.journal(|journal| *journal = Journal { writer: journal.writer.take(), ..Journal::default() })?;
        self.db_state(|db| *db = DbState::default())?;
        self.join_cluster()
    }

    fn view(&self) -> Result<KeeperView, StepError> {
        let view = self.shared.look(|state, _| state.view.clone());
        view.ok_or_else(|| StepError::NotNow("there are no cluster data".into()))
    }

    fn assignment(&self) -> Result<Assignment, StepError> {
        self.view()?.assignment.ok_or_else(|| StepError::NotNow("no db is assigned to this keeper".into()))
    }

    /// R3: authority for this epoch, now.
    fn granted(&self, epoch: Epoch) -> Done {
        let held = self.shared.look(|state, now| state.grant(now).map(|grant| grant.epoch));
        if held == Some(epoch) {
            Ok(())
        } else {
            Err(StepError::NotNow(format!("no authority for epoch {epoch} any more")))
        }
    }

    /// Writes PostgreSQL's files for the present assignment. What the server was told of the synchronous list follows.
    fn write_conf(&self, role: ConfRole) -> Result<ConfChange, StepError> {
        let names = synchronous::wanted(&self.assignment()?, &role);
        self.write_names(role, &names)
    }

    /// As `write_conf`, with another synchronous list.
    fn write_names(&self, role: ConfRole, names: &[String]) -> Result<ConfChange, StepError> {
        let assignment = self.assignment()?;
        let restricted = self.shared.look(|state, _| state.synchronous.restricted) && role == ConfRole::Primary;
        let mut settings = assignment.settings.clone();
        if assignment.merge_parameters {
            // What initdb (or the former owner) chose holds until the specification says otherwise.
            let initial = self.shared.look(|state, _| state.parameters.clone());
            for (name, value) in initial {
                settings.parameters.entry(name).or_insert(value);
            }
        }
        let input = ConfInput {
            db: &assignment.db,
            settings: &settings,
            synchronous_standby_names: setting(names),
            role,
            admit: if restricted { Admit::InternalOnly } else { Admit::Everybody },
        };
        let change = tokio::task::block_in_place(|| self.instance.write_conf(&input))?;
        // Before the server reads it: a name that goes is confirmed no longer.
        self.shared.note(|state, _| state.synchronous.told(names.to_vec()));
        Ok(change)
    }

    /// What the directory holds now, by its files.
    pub fn look_at_data(&self) {
        let found = tokio::task::block_in_place(|| self.instance.data_state());
        self.shared.note(|state, _| state.data = crate::look::data(found, state.db.initializing));
    }

    /// Identity and last position of data that no server runs on.
    pub async fn look_at_control(&self) -> Done {
        self.look_at_data();
        if !self.instance.is_initialized() {
            return Ok(());
        }
        let control = self.instance.control().await?;
        self.shared.change(|state, _| {
            state.system_id = control.system_id;
            (state.stopped_at, state.stopped_clean) = (Some(control.known_position()), false);
        });
        self.note_the_end();
        Ok(())
    }
}

/// The copy's source must be the db that the plan named, still primary.
fn is_copy(assignment: &Assignment, db: &DbUid) -> bool {
    assignment.db == *db && !matches!(assignment.init, InitMode::New(_) | InitMode::Existing)
}
