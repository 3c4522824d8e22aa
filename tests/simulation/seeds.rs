//! Random histories: no invariant is broken, and everything that the cores can do did happen in them.

use stolon_simulation::{rules::Without, run};

/// What has to have happened in so many histories; a counter at zero means that the world is too kind.
const EXPECTED: [&str; 57] = [
    "promotions",
    "epochs given up",
    "recruits",
    "rewinds",
    "base backups",
    "former primaries that follow as they are",
    "keys put back",
    "servers adopted",
    "steps dropped half-way",
    "keepers that handed over and ended",
    "primaries killed for want of authority",
    "primaries killed by the guard",
    "etcd elections",
    "watches that broke",
    "watches that had to read anew",
    "commits of unknown outcome",
    "terms of office",
    "resignations",
    "rounds of witnesses",
    "leases of proxies revoked",
    "acknowledgements of proxies",
    "routes opened",
    "commit: initialise",
    "commit: members",
    "commit: mark",
    "commit: stage",
    "commit: lapse",
    "commit: elect",
    "proof: First",
    "proof: Promised",
    "proof: KeyGone",
    "proof: ProxiesFenced",
    "double failures",
    "finished by a successor",
    "commits acknowledged directly",
    "commits acknowledged through proxies",
    "proof: ListBlocked",
    "proofs that commits wait",
    "proofs that commits wait that came too early",
    "commits that prove a list",
    "everybody admitted after a restart",
    "synchronous replication switched on",
    "synchronous replication switched off",
    "handovers asked for",
    "handovers that nobody could be asked for",
    "handovers refused",
    "handovers granted",
    "handovers carried out",
    "handovers after which the old primary goes on",
    "commit: handover",
    "commit: call off",
    "handovers asked for twice",
    "requests of etcd that were applied again",
    "requests of etcd whose earlier copy came last",
    "streams that open when their peer has given them up",
    "reports that come after a later one, and are dropped",
    "reports of an old stream that come after its successor",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_seed_breaks_an_invariant() {
    let sum = run::many(number("FROM", 0), number("SEEDS", 10_000), Without::none(), 5);
    print!("{}", sum.report(Without::none()));
    assert!(sum.failed.is_empty(), "{} histories failed; the first can be seen with: {}", sum.failed.len(), {
        run::replay(sum.failed[0].0, Without::none())
    });
    if sum.seeds >= 1_000 {
        let missing: Vec<&&str> = EXPECTED.iter().filter(|what| sum.coverage.of(what) == 0).collect();
        assert!(missing.is_empty(), "these never happened in {} histories: {missing:?}", sum.seeds);
    }
}

#[test]
fn a_seed_is_one_history() {
    for seed in [1, 2, 3] {
        let (one, two) = (run::history(seed, Without::none(), true), run::history(seed, Without::none(), true));
        assert_eq!(one.log, two.log, "seed {seed} is not deterministic");
    }
}
