//! Under any order of events: nobody is inside an epoch after its end was acknowledged, never are two epochs served at
//! once, acknowledgements never fall, and every mark is acknowledged once its connections are gone.

use proptest::prelude::*;

use super::{tests::*, *};
use stolon::model::{LeaseId, Revision};

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Renew(u64),
    Register(u64),
    Lose,
    Serve(u64),
    Mark(u64),
    Hear(u64, u64, bool),
    Unready,
    Unreadable,
    Enter,
    Connect(usize),
    Leave(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0u64..3000).prop_map(Event::Wait),
        1 => (0u64..5000).prop_map(Event::Renew),
        1 => (0u64..3).prop_map(Event::Register),
        1 => Just(Event::Lose),
        1 => (0u64..3).prop_map(Event::Serve),
        1 => (0u64..2).prop_map(Event::Mark),
        1 => (0u64..3, 0u64..3, any::<bool>()).prop_map(|(ahead, epoch, mark)| Event::Hear(ahead, epoch, mark)),
        1 => Just(Event::Unready),
        1 => Just(Event::Unreadable),
        3 => Just(Event::Enter),
        2 => any::<usize>().prop_map(Event::Connect),
        3 => any::<usize>().prop_map(Event::Leave),
    ]
}

/// The world around one gate: a clock, a store whose revision and epoch only grow, and the tokens that are out.
#[derive(Default)]
struct World {
    gate: Gate,
    now: u64,
    revision: i64,
    epoch: u64,
    lease: Option<Lease>,
    tokens: Vec<Leased>,
    acknowledged: Epoch,
}

impl World {
    fn read(&mut self, change: impl FnOnce(&mut Facts)) {
        self.revision += 1;
        let mut facts = serving(self.revision, self.epoch.max(1));
        facts.registration = self.lease.map(|lease| lease.id);
        change(&mut facts);
        self.gate.read(facts, at(self.now));
    }

    fn register(&mut self, lease: Option<Lease>) {
        self.lease = lease;
        self.gate.registered(lease, at(self.now));
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Wait(millis) => {
                self.now += millis;
                self.gate.tick(at(self.now));
            }
            Event::Renew(millis) => {
                let deadline = at(self.now + millis);
                self.register(self.lease.map(|lease| Lease { deadline, ..lease }));
            }
            Event::Register(ahead) => {
                let registered_at = Revision(self.revision + ahead as i64);
                let id = LeaseId(1000 + self.revision);
                self.register(Some(Lease { id, deadline: at(self.now + 4000), registered_at }));
            }
            Event::Lose => self.register(None),
            Event::Serve(ahead) => {
                self.epoch += ahead;
                self.read(|_| {});
            }
            Event::Mark(ahead) => {
                self.epoch = (self.epoch + ahead).max(1);
                let ended = self.epoch;
                self.read(|facts| {
                    *facts = Facts { registration: facts.registration, ..marked(facts.revision.0, ended) }
                });
            }
            Event::Hear(ahead, epoch, with_mark) => {
                let epoch = self.epoch + epoch;
                let revision = Revision(self.revision + ahead as i64);
                let heard =
                    Heard { uid: uid(), revision, epoch: Epoch(epoch), mark: mark(epoch).filter(|_| with_mark) };
                self.gate.heard(heard, at(self.now));
            }
            Event::Unready => self.read(|facts| facts.ready = None),
            Event::Unreadable => self.read(|facts| facts.cluster = Cluster::Unusable("x".into())),
            Event::Enter => self.tokens.extend(self.gate.enter(at(self.now))),
            Event::Connect(which) => self.connect(which),
            Event::Leave(which) => {
                if !self.tokens.is_empty() {
                    let leased = self.tokens.swap_remove(which % self.tokens.len());
                    self.gate.leave(leased, at(self.now));
                }
            }
        }
    }

    fn connect(&mut self, which: usize) {
        if self.tokens.is_empty() {
            return;
        }
        let which = which % self.tokens.len();
        let token = &mut self.tokens[which];
        if self.gate.connected(token, at(self.now)) {
            let grant = self.gate.grant().expect("a connection has a grant");
            assert!(at(self.now) < grant.until && grant.route.epoch == token.epoch());
            assert!(self.lease.is_some_and(|lease| at(self.now) < lease.deadline), "connected past the deadline");
        }
    }

    fn check(&mut self) {
        let acknowledged = self.gate.acknowledged();
        assert!(acknowledged >= self.acknowledged, "an acknowledgement fell");
        self.acknowledged = acknowledged;
        let epochs: Vec<Epoch> = self.tokens.iter().map(Leased::epoch).collect();
        assert!(epochs.iter().all(|epoch| *epoch > acknowledged), "{epochs:?} inside, {acknowledged} acknowledged");
        assert!(epochs.windows(2).all(|pair| pair[0] == pair[1]), "two epochs at once: {epochs:?}");
        if let Some(grant) = self.gate.grant() {
            assert!(grant.route.epoch > acknowledged && at(self.now) < grant.until);
            assert!(epochs.iter().all(|epoch| *epoch == grant.route.epoch));
            let lease = self.lease.expect("no grant without a registration");
            assert!(grant.until == lease.deadline && self.revision >= lease.registered_at.0);
        }
        assert_eq!(self.gate.closed().is_none(), self.gate.grant().is_some_and(|grant| grant.open));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_order_of_events_lets_anybody_in_after_the_acknowledgement(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::default();
        for event in events {
            world.apply(event);
            world.check();
        }
        // Whoever is still inside leaves; then the mark is acknowledged, and a new epoch is served.
        for leased in std::mem::take(&mut world.tokens) {
            world.gate.leave(leased, at(world.now));
        }
        world.apply(Event::Mark(1));
        world.check();
        prop_assert_eq!(world.gate.acknowledged(), Epoch(world.epoch));
        world.apply(Event::Register(0));
        world.apply(Event::Serve(1));
        world.check();
        prop_assert_eq!(world.gate.closed(), None);
    }
}
