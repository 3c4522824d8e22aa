//! The original takes flags before its verbs as well (`stolonctl --cluster-name c status`), and its manuals write them so.
//! Here each verb has its own flags; hence verbs are moved to the front.

use std::ffi::OsString;

/// Verbs that are followed by another one.
const PARENTS: [&str; 1] = ["clusterdata"];
/// Flags without a value, all that may come before a verb.
const BARE: [&str; 5] = ["--help", "--version", "--pretty", "--defaults", "--demo"];

/// The program's name, the verbs, then everything else in its order.
pub fn verbs_first(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut rest: Vec<OsString> = args.collect();
    let mut ordered: Vec<OsString> = rest.drain(..rest.len().min(1)).collect();
    while let Some(at) = verb(&rest) {
        let verb = rest.remove(at);
        let parent = PARENTS.iter().any(|name| verb == *name);
        ordered.push(verb);
        if !parent {
            break;
        }
    }
    ordered.extend(rest);
    ordered
}

/// Where the first argument is that is neither a flag nor a flag's value.
fn verb(args: &[OsString]) -> Option<usize> {
    let mut at = 0;
    while let Some(text) = args.get(at).map(|arg| arg.to_string_lossy()) {
        if !text.starts_with('-') || text == "-" {
            return Some(at);
        }
        if text == "--" {
            return None;
        }
        let bare = text.contains('=') || BARE.contains(&&*text) || matches!(&*text, "-h" | "-V");
        at += if bare { 1 } else { 2 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_before_a_verb_are_moved_behind_it() {
        for (line, ordered) in [
            ("x", "x"),
            ("x status -f json", "x status -f json"),
            ("x --cluster-name c status -f json", "x status --cluster-name c -f json"),
            ("x --cluster-name=status --store-timeout 1s status", "x status --cluster-name=status --store-timeout 1s"),
            ("x --cluster-name status status", "x status --cluster-name status"),
            ("x --cluster-name c clusterdata read --pretty", "x clusterdata read --cluster-name c --pretty"),
            ("x clusterdata --pretty --cluster-name c read", "x clusterdata read --pretty --cluster-name c"),
            ("x --help", "x --help"),
            ("x --nonsense", "x --nonsense"),
        ] {
            let args = line.split(' ').map(OsString::from);
            assert_eq!(verbs_first(args).join(" ".as_ref()).to_str(), Some(ordered), "{line}");
        }
    }
}
