//! The proof can fail: each rule taken out, and what then goes wrong is found within a stated number of histories. What needs
//! several accidents in one order (R18's proof, R20, R21's list) has directed histories: `executions/synchronous.rs`.

use stolon_simulation::{
    rules::{Rule, Without},
    run,
};

/// Runs seeds without a rule until one breaks one of these invariants; no more than `seeds`. What else breaks is no answer.
fn breaks(rule: Rule, seeds: u64, invariants: &[&str]) {
    let (mut from, mut others) = (0, Vec::new());
    while from < seeds {
        let sum = run::many(from, seeds - from, Without::rule(rule), 1);
        let Some((last, _)) = sum.failed.last() else { break };
        from = last + 1;
        for (seed, findings) in &sum.failed {
            match findings.iter().find(|finding| invariants.contains(&finding.invariant)) {
                Some(found) => {
                    println!("{rule:<14} seed {seed}: {}: {}", found.invariant, found.what);
                    println!("{}", run::replay(*seed, Without::rule(rule)));
                    return;
                }
                None => others.push((*seed, findings[0].invariant)),
            }
        }
    }
    panic!("{rule}: none of {invariants:?} broke in {seeds} histories; what else did: {others:?}");
}

#[test]
fn without_r5_a_deposed_leader_goes_on() {
    breaks(Rule::Leadership, 200, &["leaders", "epochs"]);
}

#[test]
fn without_the_compare_of_the_cluster_data_decisions_are_made_from_the_past() {
    breaks(Rule::ClusterData, 100, &["epochs", "eligible", "fenced", "one primary", "writable"]);
}

#[test]
fn without_the_old_keepers_promise_it_goes_on() {
    breaks(Rule::Promised, 1_000, &["fenced", "one primary"]);
}

#[test]
fn without_the_end_of_the_lease_the_old_primary_goes_on() {
    breaks(Rule::KeyGone, 500, &["fenced", "one primary"]);
}

#[test]
fn without_connections_cut_before_the_acknowledgement_two_primaries_have_clients() {
    breaks(Rule::ProxiesFenced, 500, &["fenced", "one primary"]);
}

#[test]
fn without_r3_a_primary_outlives_its_lease() {
    breaks(Rule::Deadline, 500, &["fenced", "one primary"]);
}

#[test]
fn without_r4_a_primary_outlives_its_authority() {
    breaks(Rule::SelfFence, 500, &["fenced", "one primary"]);
}

#[test]
fn without_r7_two_primaries_are_found() {
    breaks(Rule::Fence, 500, &["fenced", "one primary", "histories"]);
}

#[test]
fn without_r8_a_promise_is_forgotten() {
    breaks(Rule::Promise, 500, &["fenced", "eligible", "one primary", "own check"]);
}

#[test]
fn without_r9_a_worse_member_is_chosen() {
    breaks(Rule::Choose, 1_000, &["eligible"]);
}

#[test]
fn without_r10_clients_come_before_the_primary_serves() {
    breaks(Rule::Ready, 200, &["one primary"]);
}

#[test]
fn without_r11_histories_are_mixed() {
    breaks(Rule::Rejoin, 500, &["histories", "durable", "writable", "whole"]);
}

#[test]
fn without_r8_a_recruit_still_receives() {
    breaks(Rule::Recruit, 1_000, &["eligible", "histories", "durable", "fenced", "whole"]);
}

#[test]
fn without_r18s_order_postgres_acknowledges_what_an_electable_standby_lacks() {
    breaks(Rule::Shrink, 500, &["durable", "enough", "visible"]);
}

#[test]
fn without_r19_too_few_standbys_have_what_is_acknowledged() {
    breaks(Rule::Block, 500, &["enough", "durable"]);
}

#[test]
fn without_r21s_blocking_name_the_first_commits_do_not_wait() {
    breaks(Rule::FirstWait, 500, &["enough", "durable"]);
}

#[test]
fn without_r6_nobody_finishes_what_a_lost_leader_began() {
    breaks(Rule::Successor, 200, &["writable"]);
}

#[test]
fn without_r25_what_is_told_is_on_no_disk() {
    breaks(Rule::Told, 50, &["fenced"]);
}
