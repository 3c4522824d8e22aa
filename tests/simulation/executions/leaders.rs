//! R2 (a): what a leader has sent may arrive when another leads. A handover is asked for, its commit is held up by the etcd
//! member that it was sent to until the leader's lease is over, and nobody has changed the cluster data meanwhile.

use stolon_simulation::{
    faults::Fault,
    operator,
    rules::{Rule, Without},
    settings::Replication,
    world::{MS, SEC},
};

use crate::story::Story;

/// `None` where the sentinel's member leads etcd: then nothing else would go on either.
fn late_commit(seed: u64, without: Without) -> Option<Story> {
    let story = Story::of(seed, Replication::Asynchronous, without);
    let leader = story.town.leader().expect("a sentinel leads");
    if story.town.etcd.leader.get() == Some(leader) {
        return None;
    }
    let (epoch, conflicts) = (story.epoch(), story.town.etcd.conflicts.get());
    story.strike(Fault::PauseEtcd, leader, 9.0);
    operator::wish(&story.town, None);
    story.pass(80 * MS);
    story.strike(Fault::PauseSentinel, leader, 10.0);
    story.until(8, "another sentinel to lead", |story| story.town.leader().is_some_and(|now| now != leader));
    assert_eq!(story.epoch(), epoch, "seed {seed}: the commit was not held up");
    story.pass(8 * SEC);
    if without.missing().is_none() {
        assert!(story.town.etcd.conflicts.get() > conflicts, "seed {seed}: the late commit never came");
    }
    Some(story)
}

#[test]
fn a_commit_that_comes_when_another_leads_changes_nothing() {
    let stories: Vec<Story> = (400..420).filter_map(|seed| late_commit(seed, Without::none())).collect();
    assert!(stories.len() >= 5, "only {} histories had a leader beside etcd's", stories.len());
    for story in stories {
        story.ends_well();
        assert_eq!(story.count("handovers carried out"), 0);
    }
}

#[test]
fn without_r2s_compare_of_the_election_key_a_deposed_leader_writes() {
    let found = (400..420).find_map(|seed| {
        let story = late_commit(seed, Without::rule(Rule::ElectionKey))?;
        story.found(&["leaders"]).first().map(|found| format!("seed {seed}, {found}"))
    });
    println!("ElectionKey: {}", found.expect("nothing went wrong in 20 histories"));
}
