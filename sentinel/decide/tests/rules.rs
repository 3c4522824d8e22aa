//! The checker itself: each rule, broken by hand in a commit that was right, is refused.

use stolon::model::{Epoch, LeaseId, Revision, report::PostgresState};

use super::{ms, town::Town};
use crate::decide::{Commit, Holder, PrimaryChange, Proof, check};

/// The election of a failover that is about to be committed.
fn election() -> (Town, Commit) {
    let mut town = Town::running(2, 1);
    town.report("k1", |report| report.postgres.state = PostgresState::Stopped);
    town.step();
    town.fence("p1", 1);
    town.recruit("k2", 2, 1, 1010);
    let commit = town.decide().committed().cloned().expect("an election");
    (town, commit)
}

fn verdict(town: &Town, commit: &Commit) -> Result<(), String> {
    check::allowed(commit, town.data(), &town.mirror, &town.seen)
}

fn change(commit: &mut Commit) -> &mut PrimaryChange {
    commit.change.as_mut().unwrap()
}

#[test]
fn the_election_as_decided_is_allowed() {
    let (town, commit) = election();
    assert_eq!(verdict(&town, &commit), Ok(()));
}

#[test]
fn each_broken_rule_of_an_election_is_refused() {
    type Break = fn(&mut Town, &mut Commit);
    let breaks: [(&str, Break); 11] = [
        ("same epoch", |_, commit| change(commit).key.epoch = Epoch(1)),
        ("skipped epoch", |_, commit| {
            change(commit).key.epoch = Epoch(3);
            commit.next.cluster.status.epoch = Epoch(3);
        }),
        ("no mark", |town, _| town.edit(|data| data.cluster.status.fencing = None)),
        ("mark kept", |town, commit| commit.next.cluster.status.fencing = town.data().fencing().cloned()),
        ("other lease", |_, commit| change(commit).lease = LeaseId(99)),
        ("other holder", |_, commit| change(commit).holder = Holder::Fenced(Revision(1))),
        ("key not gone", |_, commit| change(commit).proof = Proof::KeyGone),
        ("not promised", |_, commit| change(commit).proof = Proof::Promised),
        ("strict", |town, _| town.edit(|data| data.cluster.spec.strict_fencing = Some(true))),
        ("unfenced proxy", |town, _| town.register_proxy("p9")),
        ("no consent", |town, _| town.report("k2", |report| report.promised = Epoch(0))),
    ];
    for (name, spoil) in breaks {
        let (mut town, mut commit) = election();
        spoil(&mut town, &mut commit);
        assert!(verdict(&town, &commit).is_err(), "{name} went through");
    }
}

#[test]
fn a_commit_without_a_key_changes_neither_primary_nor_epoch_nor_mark() {
    let (town, election) = election();
    let mut commit = Commit { change: None, ..election };
    assert!(verdict(&town, &commit).is_err());
    commit.next = town.data().clone();
    commit.next.cluster.status.fencing = None;
    assert!(verdict(&town, &commit).is_err());
    commit.next = town.data().clone();
    commit.next.dbs.clear();
    assert!(verdict(&town, &commit).is_err());
}

#[test]
fn a_specification_and_its_generation_change_together() {
    let mut town = Town::running(2, 0);
    town.edit(|data| data.cluster.spec.max_standbys = Some(9));
    town.pass(ms(100));
    let mut commit = town.decide().committed().cloned().unwrap();
    assert_eq!(verdict(&town, &commit), Ok(()));
    let before = town.data().dbs.values().next().unwrap().generation;
    commit.next.dbs.values_mut().next().unwrap().generation = before;
    assert!(verdict(&town, &commit).is_err());
}
