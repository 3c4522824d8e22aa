//! What the primary's commits wait for (R18): the list that PostgreSQL was told, and what of it is proven. A list counts
//! when backends were seen to wait (`pg_stat_replication` says *sync* before they really do), and a standby in it when it
//! has flushed a commit that was made under that list. Values only; asks nobody.

use std::collections::{BTreeMap, BTreeSet};

use stolon::model::{Lsn, cluster::BLOCKING_NAME};

use crate::pg::Follower;

/// Of one run of the server. Application names throughout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synchronous {
    /// In the settings that the server was started with or told to read; empty: commits wait for nobody.
    names: Vec<String>,
    /// A commit was seen to wait since the list was last empty.
    waits: bool,
    /// End of a commit made under this list, from a connection opened after it was told.
    probed: Option<Lsn>,
    confirmed: BTreeSet<String>,
    /// Only internal users are admitted (R20).
    pub restricted: bool,
}

impl Synchronous {
    /// The server starts with this list: nothing is proven yet.
    pub fn started(names: Vec<String>, restricted: bool) -> Synchronous {
        Synchronous { names, restricted, ..Synchronous::default() }
    }

    /// Found running with settings that a former keeper had applied to the end.
    pub fn adopted(names: Vec<String>, restricted: bool) -> Synchronous {
        Synchronous { waits: !names.is_empty(), ..Synchronous::started(names, restricted) }
    }

    /// The server is told to read another list.
    pub fn told(&mut self, names: Vec<String>) {
        if self.names == names {
            return;
        }
        let known: BTreeSet<&String> = self.names.iter().collect();
        if names.iter().any(|name| !known.contains(name)) {
            self.probed = None;
        }
        self.waits &= !names.is_empty();
        self.confirmed.retain(|name| names.contains(name));
        self.names = names;
    }

    /// A commit hung in the wait for this list.
    pub fn seen_waiting(&mut self) {
        self.waits = !self.names.is_empty();
    }

    /// The end of a commit that was made while the server had `names` in force.
    pub fn probed(&mut self, names: &[String], end: Lsn) {
        if self.names == names && self.waits {
            self.probed = Some(end);
        }
    }

    /// What the primary says of its followers now.
    pub fn seen(&mut self, followers: &BTreeMap<String, Follower>) {
        let Some(end) = self.probed else { return };
        let flushed = |name: &&String| followers.get(*name).is_some_and(|f| f.in_sync && f.flushed >= end);
        self.confirmed.extend(self.names.iter().filter(flushed).cloned());
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Standbys that every commit has waited for since they were confirmed.
    pub fn confirmed(&self) -> impl Iterator<Item = &String> {
        self.confirmed.iter()
    }

    pub fn waits(&self) -> bool {
        self.waits
    }

    /// All of the list is confirmed: a restarted primary may admit everybody (R20).
    pub fn complete(&self) -> bool {
        self.names.iter().all(|name| self.confirmed.contains(name))
    }

    /// A probe commit is needed: some real name is not confirmed, and no commit under this list is known.
    pub fn needs_probe(&self) -> bool {
        self.waits && self.probed.is_none() && self.unconfirmed()
    }

    /// Somebody may be confirmed by the next look at the followers.
    pub fn awaits_followers(&self) -> bool {
        self.probed.is_some() && self.unconfirmed()
    }

    fn unconfirmed(&self) -> bool {
        self.names.iter().any(|name| name != BLOCKING_NAME && !self.confirmed.contains(name))
    }
}

/// `synchronous_standby_names` for these: all of them (the first n of n); empty for none.
pub fn setting(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("{} ({})", quoted.len(), quoted.join(","))
}

/// The same list, with a name that nobody has: commits wait until it is taken out.
pub fn blocked(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    if !names.iter().any(|name| name == BLOCKING_NAME) {
        names.push(BLOCKING_NAME.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn followers(text: &str, flushed: u64) -> BTreeMap<String, Follower> {
        names(text).into_iter().map(|name| (name, Follower { in_sync: true, flushed: Lsn(flushed) })).collect()
    }

    fn confirmed(sync: &Synchronous) -> Vec<&str> {
        sync.confirmed().map(String::as_str).collect()
    }

    fn waiting(text: &str) -> Synchronous {
        let mut sync = Synchronous::default();
        sync.told(names(text));
        sync.seen_waiting();
        sync
    }

    #[test]
    fn a_name_counts_when_a_commit_under_the_list_was_flushed_there() {
        let mut sync = waiting("a b");
        sync.seen(&followers("a b", 900));
        assert_eq!(confirmed(&sync), [""; 0], "in sync by the view alone (L5)");
        sync.probed(&names("a b"), Lsn(100));
        sync.seen(&followers("a", 99));
        assert_eq!(confirmed(&sync), [""; 0]);
        sync.seen(&followers("a", 100));
        assert_eq!(confirmed(&sync), ["a"]);
        assert!(!sync.complete() && sync.awaits_followers());
        sync.seen(&followers("b", 100));
        assert!(sync.complete() && !sync.awaits_followers());
    }

    #[test]
    fn a_probe_before_a_commit_was_seen_to_wait_or_under_another_list_says_nothing() {
        let mut sync = Synchronous::default();
        sync.told(names("a"));
        assert!(!sync.needs_probe());
        sync.probed(&names("a"), Lsn(100));
        sync.seen(&followers("a", 100));
        assert!(confirmed(&sync).is_empty());
        let mut sync = waiting("a");
        sync.told(names("a b"));
        sync.probed(&names("a"), Lsn(100));
        assert!(sync.needs_probe());
    }

    #[test]
    fn growth_confirms_anew_what_is_new_and_shrinking_keeps_the_rest() {
        let mut sync = waiting("a b");
        sync.probed(&names("a b"), Lsn(100));
        sync.seen(&followers("a b", 100));
        sync.told(names("b"));
        assert!(confirmed(&sync) == ["b"] && sync.complete());
        sync.told(names("b c"));
        assert!(sync.needs_probe());
        sync.seen(&followers("b c", 200));
        assert_eq!(confirmed(&sync), ["b"]);
        sync.told(Vec::new());
        sync.told(names("b"));
        assert!(!sync.waits() && confirmed(&sync).is_empty(), "an empty list in between: commits waited for nobody");
    }

    #[test]
    fn the_blocking_name_is_never_confirmed_and_needs_no_probe() {
        let mut sync = waiting(BLOCKING_NAME);
        assert!(!sync.needs_probe() && !sync.complete());
        assert_eq!(blocked(&names("a")), ["a", BLOCKING_NAME]);
        assert_eq!(blocked(&blocked(&names("a"))), ["a", BLOCKING_NAME]);
        sync.told(blocked(&names("a")));
        assert!(sync.needs_probe() && sync.waits());
        assert_eq!(setting(&names("a b")), r#"2 ("a","b")"#);
        assert_eq!(setting(&[]), "");
    }
}
