//! R11, as `keeper/steps/resync.rs` does it: what lies in the directory is kept if it can follow, else rewound, else copied.

use stolon::model::{
    DbUid, WalPosition,
    registration::ReadyKey,
    view::{Assignment, InitMode, Upstream},
};
use stolon_keeper::{
    journal::{Branch, DbState},
    plan::{Data, Fit, Method, fit},
};

use super::{
    Keeper,
    converge::{Done, Problem},
};
use crate::{
    postgres::Machine,
    rules::Rule,
    world::{HostId, MS},
};

const ATTEMPTS: u32 = 3;

impl Keeper {
    pub(super) async fn resync(self: std::rc::Rc<Keeper>, db: &DbUid, upstream: &Upstream, method: Method) -> Done {
        let assignment = self.assignment()?;
        let copy = assignment.db == *db && !matches!(assignment.init, InitMode::New(_) | InitMode::Existing);
        let from = upstream.address.as_ref().and_then(|(host, _)| Machine::host_of(host)).filter(|_| copy);
        let from = from.ok_or(Problem::NotNow("another copy is wanted now"))?;
        let mirror = self.look(|state, _| state.mirror.clone());
        let ready = mirror.and_then(|mirror| mirror.ready.as_ref().map(|held| held.value.clone()));
        let ready = ready.filter(|ready| ready.db == upstream.db).ok_or(Problem::NotNow("it does not serve"))?;
        self.stop().await?;
        self.join_cluster().await?;
        self.copying(true);
        let made = self.make(&assignment, from, &ready, method).await;
        self.copying(false);
        made?;
        self.note(|state, _| state.keep_failures = 0);
        self.journal(|journal| {
            journal.branch = Some(Branch { epoch: ready.epoch, timeline: ready.timeline });
            (journal.recruit, journal.primary_epoch) = (None, Default::default());
        })
        .await;
        self.db_state(|state| *state = DbState { uid: Some(db.clone()), ..DbState::default() }).await;
        self.look_at_control();
        Ok(())
    }

    async fn make(&self, assignment: &Assignment, from: HostId, ready: &ReadyKey, method: Method) -> Done {
        let data = self.look(|state, _| state.data);
        if let Some(ours) = self.machine.with_data(|data| data.system_id) {
            let theirs = self.machine.source(from).await.ok_or(Problem::Failed("the primary can't be asked".into()))?;
            if ours != theirs.system_id {
                return Err(Problem::Failed("this directory holds another database".into()));
            }
        }
        if method == Method::KeepIfPossible && matches!(data, Data::Primary | Data::Standby) {
            match self.keep(assignment, from, ready).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(problem) if self.may_pass(&problem) => return Err(problem),
                Err(_) => self.look_at_data(),
            }
        }
        self.world.say(self.host, || format!("keeper: copies h{from}"));
        match self.machine.base_backup(from).await {
            true => {
                self.world.count("base backups");
                Ok(())
            }
            false => Err(Problem::Failed("the copy broke off".into())),
        }
    }

    fn may_pass(&self, problem: &Problem) -> bool {
        let whole = self.machine.with_data(|data| !data.incomplete).unwrap_or(false);
        match problem {
            Problem::NotNow(_) => true,
            Problem::Failed(_) if !whole => false,
            Problem::Failed(_) => self.note(|state, _| {
                state.keep_failures += 1;
                state.keep_failures < ATTEMPTS
            }),
        }
    }

    /// True when the present data can go on as a standby of this primary.
    async fn keep(&self, assignment: &Assignment, from: HostId, ready: &ReadyKey) -> Result<bool, Problem> {
        self.world.pass(2 * MS, 20 * MS).await;
        let found = self.machine.with_data(|data| (data.known_position(), data.clean));
        let (position, clean) = found.ok_or(Problem::NotNow("no data"))?;
        let lineage = self.present_view()?.lineage;
        let (branch, data) = self.look(|state, _| (state.journal.branch_of_primary(position.timeline), state.data));
        let mut end: WalPosition = position;
        end.lsn.0 += u64::from(clean);
        match fit(branch, Some(end), &lineage, ready) {
            _ if self.world.lacks(Rule::Rejoin) => {
                self.write_conf(true, None)?;
                return Ok(true);
            }
            Fit::OtherLineage => return Ok(false),
            Fit::Follows if clean => {
                if data == Data::Primary {
                    self.write_conf(true, None)?;
                }
                self.world.count("former primaries that follow as they are");
                return Ok(true);
            }
            _ => {}
        }
        if !assignment.use_pg_rewind {
            return Ok(false);
        }
        self.world.say(self.host, || format!("keeper: rewinds to h{from}"));
        match self.machine.rewind(from).await {
            Some(()) => {
                self.world.count("rewinds");
                Ok(true)
            }
            None => Err(Problem::Failed("the rewind failed".into())),
        }
    }
}
