//! Safety rules that a test may take out, to see that the simulation notices. What takes a rule out stands in the model's
//! shells, or between them and the cores: no product code knows of it.

use std::fmt;

/// A rule of the failover protocol, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// R2 (a): the transaction compares the leader's own key. etcd ignores that compare.
    ElectionKey,
    /// R2 (b): it compares the revision of the cluster data. etcd ignores that compare.
    ClusterData,
    /// R2 (c), proof (i): the old keeper's promise. The sentinel believes that it was given.
    Promised,
    /// R2 (c), proof (iii): the key is gone. The sentinel believes that it is, and etcd does not compare it.
    KeyGone,
    /// R2 (c), proof (iv): all proxies acknowledged. The gate acknowledges before its connections are closed.
    ProxiesFenced,
    /// R3: the deadline counts from the sending, less a margin. It counts from the answer, and is twice as late.
    Deadline,
    /// R4: a primary without authority is killed at once. Nobody does it.
    SelfFence,
    /// R5: a sentinel acts only within its leadership. It acts when it ever led, and etcd ignores the compare.
    Leadership,
    /// R6: a successor goes on from a mark that it finds. It leaves that to the one who set it.
    Successor,
    /// R6: a successor finds the mark and finishes. The mark is taken off again by a new leader.
    Mark,
    /// R7: proxies are fenced before a promotion. The sentinel believes that they are.
    Fence,
    /// R8: promises and recruits are on disk. They are in memory only.
    Promise,
    /// R8: a recruit has left its primary. It goes on receiving.
    Recruit,
    /// R9: the highest position wins, within the lag. The sentinel is told that all are equal.
    Choose,
    /// R10: proxies route only when the winner serves. The gate takes `primary` for `ready`.
    Ready,
    /// R11: what went its own way is rewound or copied. It follows as it is.
    Rejoin,
    /// R18: a standby counts when a probe commit has confirmed it. It counts when the view says sync.
    Grow,
    /// R18: a name leaves the cluster data before it leaves PostgreSQL. PostgreSQL forgets a standby that is away.
    Shrink,
    /// R19: too few standbys block commits. The blocking name is left out.
    Block,
    /// R20: a restarted synchronous primary admits nobody before its standbys have caught up. It does at once.
    Admit,
    /// R21: of a new primary's first list only recruits of the old list are in sync at once. All of it is.
    FirstList,
    /// R21: standbys run with the blocking name. They run without.
    FirstWait,
    /// R25: what others rely on is on disk before it is told. It is told first, and written when the disk has time.
    Told,
    /// R25: only a linearizable reading grants authority. An event of the watch does.
    Reading,
}

pub const ALL: [Rule; 24] = [
    Rule::ElectionKey,
    Rule::ClusterData,
    Rule::Promised,
    Rule::KeyGone,
    Rule::ProxiesFenced,
    Rule::Deadline,
    Rule::SelfFence,
    Rule::Leadership,
    Rule::Successor,
    Rule::Mark,
    Rule::Fence,
    Rule::Promise,
    Rule::Recruit,
    Rule::Choose,
    Rule::Ready,
    Rule::Rejoin,
    Rule::Grow,
    Rule::Shrink,
    Rule::Block,
    Rule::Admit,
    Rule::FirstList,
    Rule::FirstWait,
    Rule::Told,
    Rule::Reading,
];

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Rule {
    pub fn parse(text: &str) -> Option<Rule> {
        ALL.into_iter().find(|rule| rule.to_string() == text)
    }
}

/// The rules that are taken out; usually none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without(Option<Rule>);

impl Without {
    pub fn none() -> Without {
        Without(None)
    }

    pub fn rule(rule: Rule) -> Without {
        Without(Some(rule))
    }

    pub fn lacks(self, rule: Rule) -> bool {
        self.0 == Some(rule)
    }

    pub fn missing(self) -> Option<Rule> {
        self.0
    }
}
