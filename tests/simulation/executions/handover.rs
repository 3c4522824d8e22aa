//! Handovers without any other fault: granted or refused, carried out, and nothing that was acknowledged is lost, in either
//! mode of replication (R8).

use stolon_simulation::{keeper, operator};

use crate::story::Story;

/// Hands over to each of the others in turn, and once to anybody.
fn hand_over_thrice(story: &Story, seed: u64) {
    for round in 0..3 {
        let (old, epoch) = (story.primary(), story.epoch());
        let to = story.candidates().first().copied().filter(|_| round < 2);
        story.until(10, "somebody who could take over", |story| !story.candidates().is_empty());
        operator::wish(&story.town, to.map(keeper::uid));
        story.until(10, "the handover", |story| story.epoch() > epoch && story.serves(story.primary()));
        assert_ne!(story.primary(), old, "seed {seed}: it was elected again");
        assert!(to.is_none_or(|to| story.primary() == to), "seed {seed}: another one than asked for");
        story.settle();
        story.nothing_lost();
    }
    assert_eq!(story.count("handovers granted"), 3, "seed {seed}\n{}", story.log());
    story.ends_well();
    story.nothing_lost();
}

#[test]
fn a_handover_loses_nothing_in_asynchronous_mode() {
    for seed in 300..315 {
        hand_over_thrice(&Story::begin(seed), seed);
    }
}

#[test]
fn a_handover_loses_nothing_in_synchronous_mode() {
    for seed in 315..330 {
        let max = if seed % 2 == 0 { 1 } else { 2 };
        hand_over_thrice(&Story::synchronous(seed, 1, max), seed);
    }
}

#[test]
fn a_handover_to_nobody_that_could_take_it_is_refused_and_changes_nothing() {
    for seed in 330..335 {
        let story = Story::synchronous(seed, 1, 1);
        let (old, epoch) = (story.primary(), story.epoch());
        let out = story.others().into_iter().find(|host| !story.electable().contains(host)).expect("a third host");
        operator::wish(&story.town, Some(keeper::uid(out)));
        story.until(5, "a refusal", |story| story.count("handovers refused") == 1);
        story.ends_well();
        assert_eq!((story.primary(), story.epoch()), (old, epoch), "seed {seed}");
    }
}
