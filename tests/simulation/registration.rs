//! A registration on its lease, as `stolon::store::Registration` keeps it: the deadline counts from the sending of the last
//! answered keepalive (R3), one keepalive is under way at a time, and the key is written when its value changes.

use std::{cell::RefCell, rc::Rc, time::Duration};

use stolon::{
    model::{LeaseId, Moment, Revision},
    store::{Begin, LeaseState, Outcome, StoreError, Txn},
};

use crate::{
    etcd::{Ask, Said},
    rules::Rule,
    runtime::{Proc, Signal},
    store::Store,
    world::{HostId, W},
};

const TTL: u64 = 5;
const MARGIN: Duration = Duration::from_secs(1);
const BEATS: u32 = 5;
const ANSWER: Duration = Duration::from_millis(700);
const LAST_ANSWER: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Registration(Rc<Inner>);

struct Inner {
    world: W,
    host: HostId,
    store: Store,
    key: String,
    value: RefCell<Vec<u8>>,
    value_changed: Signal,
    lease: RefCell<Option<LeaseState>>,
    lease_changed: Signal,
}

impl Registration {
    pub fn start(
        world: &W,
        host: HostId,
        process: &Proc,
        store: &Store,
        key: String,
        value: Vec<u8>,
        begin: Begin,
    ) -> Registration {
        let registration = Registration(Rc::new(Inner {
            world: world.clone(),
            host,
            store: store.clone(),
            key,
            value: RefCell::new(value),
            value_changed: Signal::default(),
            lease: RefCell::new(None),
            lease_changed: Signal::default(),
        }));
        world.rt.spawn(process, registration.clone().keep(begin));
        registration
    }

    pub fn set(&self, value: Vec<u8>) {
        if *self.0.value.borrow() != value {
            *self.0.value.borrow_mut() = value;
            self.0.value_changed.bump();
        }
    }

    pub fn lease(&self) -> Option<LeaseState> {
        self.0.lease.borrow().clone()
    }

    pub fn changed(&self) -> Signal {
        self.0.lease_changed.clone()
    }

    fn now(&self) -> Moment {
        self.0.world.clock(self.0.host)
    }

    async fn pause(&self, time: Duration) {
        self.0.world.until(self.0.host, self.now() + time).await;
    }

    fn tell(&self, lease: Option<LeaseState>) {
        *self.0.lease.borrow_mut() = lease;
        self.0.lease_changed.bump();
    }

    /// Gives it up; nothing that the lease stood for runs any more.
    pub async fn end(&self) {
        let lease = self.lease();
        self.tell(None);
        if let Some(lease) = lease {
            let _ = self.0.world.within_time(self.0.host, Duration::from_secs(2), self.0.store.revoke(lease.id)).await;
        }
    }

    async fn keep(self, mut begin: Begin) {
        loop {
            let state = self.obtain(std::mem::replace(&mut begin, Begin::Anew)).await;
            let lease = state.id;
            self.0.world.say(self.0.host, || format!("{} registered on lease {lease}", self.0.key));
            self.tell(Some(state));
            tokio::select! {
                biased;
                () = self.keep_alive(lease) => {}
                () = self.keep_written(lease) => {}
            }
            self.0.world.say(self.0.host, || format!("{}: lease {lease} has ended", self.0.key));
            self.tell(None);
        }
    }

    async fn obtain(&self, begin: Begin) -> LeaseState {
        let mut adopt = match begin {
            Begin::Adopt(lease) => Some(lease),
            Begin::Anew => None,
        };
        loop {
            let attempt = match adopt {
                Some(lease) => self.adopt(lease).await,
                None => {
                    self.vacant().await;
                    self.anew().await
                }
            };
            match attempt {
                Ok(Some(state)) => return state,
                Ok(None) => adopt = None,
                Err(_) => self.pause(PAUSE).await,
            }
        }
    }

    async fn vacant(&self) {
        let changed = self.0.store.changed();
        loop {
            let mut known = changed.version();
            let seen = self.0.store.mirror();
            if seen.is_some_and(|mirror| mirror.lease_of(self.0.store.keys(), &self.0.key).is_none()) {
                return;
            }
            let _ = self.0.world.within_time(self.0.host, LOOK, changed.changed(&mut known)).await;
        }
    }

    async fn anew(&self) -> Result<Option<LeaseState>, StoreError> {
        let sent = self.now();
        let (lease, seconds) = self.0.store.grant(TTL).await?;
        let granted = Duration::from_secs(seconds);
        match self.create(lease).await {
            Ok(Some(registered_at)) => {
                let deadline = self.deadline(sent, granted);
                Ok(Some(LeaseState { id: lease, deadline, granted, registered_at }))
            }
            Ok(None) => self.0.store.revoke(lease).await.map(|()| None),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, lease: LeaseId) -> Result<Option<Revision>, StoreError> {
        let value = self.0.value.borrow().clone();
        match self.0.store.transact(&Txn::register(lease, &self.0.key, value)).await {
            Ok(Outcome::Done(revision)) => Ok(Some(revision)),
            Ok(Outcome::Conflict) | Err(StoreError::Unknown(_)) => self.found_on(lease).await,
            Err(error) => Err(error),
        }
    }

    async fn found_on(&self, lease: LeaseId) -> Result<Option<Revision>, StoreError> {
        let mirror = self.0.store.read().await?;
        let ours = mirror.lease_of(self.0.store.keys(), &self.0.key) == Some(lease);
        Ok(ours.then_some(mirror.revision))
    }

    async fn adopt(&self, lease: LeaseId) -> Result<Option<LeaseState>, StoreError> {
        let Some(granted) = self.0.store.granted_ttl(lease).await? else { return Ok(None) };
        let sent = self.now();
        match self.0.store.once(Ask::Alive(lease), LAST_ANSWER).await {
            Ok(Said::Ttl(0)) => return Ok(None),
            Ok(_) => {}
            Err(_) => return Err(StoreError::Unavailable("no answer to a keepalive".into())),
        }
        let found = self.found_on(lease).await?;
        let deadline = self.deadline(sent, granted);
        Ok(found.map(|registered_at| LeaseState { id: lease, deadline, granted, registered_at }))
    }

    async fn keep_alive(&self, lease: LeaseId) {
        let granted = self.lease().map_or(Duration::from_secs(TTL), |state| state.granted);
        let (mut failures, mut pause) = (0u32, granted / BEATS);
        loop {
            self.pause(pause).await;
            let limit = (ANSWER * 2u32.pow((failures / 3).min(4))).min(LAST_ANSWER);
            let sent = self.now();
            match self.0.store.once(Ask::Alive(lease), limit).await {
                Ok(Said::Ttl(0)) => return,
                Ok(_) => {
                    failures = 0;
                    self.renewed(lease, self.deadline(sent, granted));
                    pause = (sent + granted / BEATS).since(self.now());
                }
                Err(_) => {
                    failures += 1;
                    pause = PAUSE;
                }
            }
        }
    }

    /// R3: from the sending, less the margin.
    fn deadline(&self, sent: Moment, granted: Duration) -> Moment {
        match self.0.world.lacks(Rule::Deadline) {
            false => sent + granted.saturating_sub(MARGIN),
            true => self.now() + granted * 2,
        }
    }

    fn renewed(&self, lease: LeaseId, deadline: Moment) {
        let ours = {
            let mut state = self.0.lease.borrow_mut();
            match state.as_mut().filter(|state| state.id == lease) {
                Some(state) => {
                    state.deadline = deadline;
                    true
                }
                None => false,
            }
        };
        if ours {
            self.0.lease_changed.bump();
        }
    }

    async fn keep_written(&self, lease: LeaseId) {
        let (changed, mirror) = (self.0.value_changed.clone(), self.0.store.changed());
        let mut written: Option<Vec<u8>> = None;
        loop {
            let (mut values, mut mirrors) = (changed.version(), mirror.version());
            let wanted = self.0.value.borrow().clone();
            if written.as_ref() != Some(&wanted) {
                match self.write(lease, &wanted).await {
                    Ok(true) => written = Some(wanted),
                    Ok(false) | Err(StoreError::Refused(_)) => return,
                    Err(_) => {
                        self.pause(PAUSE).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                biased;
                () = changed.changed(&mut values) => {}
                () = mirror.changed(&mut mirrors) => {
                    let since = self.lease().map_or(Revision(0), |state| state.registered_at);
                    let Some(seen) = self.0.store.mirror().filter(|seen| seen.revision >= since) else { continue };
                    if seen.lease_of(self.0.store.keys(), &self.0.key) != Some(lease) {
                        written = None;
                    }
                }
            }
        }
    }

    async fn write(&self, lease: LeaseId, value: &[u8]) -> Result<bool, StoreError> {
        if let Outcome::Done(_) = self.0.store.transact(&Txn::rewrite(lease, &self.0.key, value)).await? {
            return Ok(true);
        }
        let Some(registered_at) = self.create(lease).await? else { return Ok(false) };
        if let Some(state) = self.0.lease.borrow_mut().as_mut().filter(|state| state.id == lease) {
            state.registered_at = state.registered_at.max(registered_at);
        }
        self.0.lease_changed.bump();
        Ok(true)
    }
}
