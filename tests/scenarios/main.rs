//! Runs every script below this folder: `<area>/<name>.txt`, where the area says whose rules it is about. A script that
//! gives another output than the one written in it fails with the difference.
//!
//! `UPDATE_SCENARIOS=1 cargo test -p stolon-scenarios` writes what the cores say now into the scripts: look at the
//! difference in version control, each line of it is a decision. `SCENARIO=word` runs only those whose path contains it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use stolon_scenarios::Script;

/// Paths relative to this folder, sorted.
fn scripts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        read.map(|entry| entry.unwrap().path()).collect()
    };
    let areas = entries(root).into_iter().filter(|path| path.is_dir());
    let files = areas.flat_map(|area| entries(&area)).filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let mut files: Vec<PathBuf> = files.map(|path| path.strip_prefix(root).unwrap().to_owned()).collect();
    files.sort();
    files
}

#[test]
fn every_script_gives_what_it_says() {
    let (update, only) =
        (std::env::var_os("UPDATE_SCENARIOS").is_some(), std::env::var("SCENARIO").unwrap_or_default());
    let (mut ran, mut failures) = (0, Vec::new());
    for path in scripts().into_iter().filter(|path| path.to_string_lossy().contains(&only)) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        let text = fs::read_to_string(&file).unwrap();
        ran += 1;
        match Script::parse(&text).run() {
            Err(trouble) => failures.push(format!("{}: {trouble}\n", path.display())),
            Ok(verdict) if update => fs::write(&file, verdict.text).unwrap(),
            Ok(verdict) => {
                failures.extend(verdict.difference.map(|difference| format!("{}:\n{difference}", path.display())))
            }
        }
    }
    assert!(ran > 0, "no script has {only:?} in its path");
    assert!(
        failures.is_empty(),
        "{} of {ran} scripts give something else (- expected, + found):\n\n{}\nIf the new output is right: \
         UPDATE_SCENARIOS=1 cargo test -p stolon-scenarios",
        failures.len(),
        failures.join("\n")
    );
}

/// The map in the README is complete: every script is in it, and it names no other.
#[test]
fn the_readme_names_every_script_and_no_other() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let there: Vec<String> = scripts().iter().map(|path| path.display().to_string()).collect();
    let missing: Vec<&String> = there.iter().filter(|path| !readme.contains(&format!("`{path}`"))).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
    let named = readme.split('`').filter(|word| word.ends_with(".txt") && !word.contains(['<', ' ']));
    let unknown: Vec<&str> = named.filter(|word| !there.iter().any(|path| path == word)).collect();
    assert!(unknown.is_empty(), "README.md names {unknown:?}, which are not there");
}

#[test]
fn a_wrong_expectation_is_a_difference_that_shows_both_sides() {
    let verdict = Script::parse("running keepers=2\n----\nepoch 1, primary k2\n").run().unwrap();
    let difference = verdict.difference.expect("the primary is k1");
    assert!(difference.contains("- epoch 1, primary k2\n  + epoch 1, primary k1"), "{difference}");
    let again = Script::parse(&verdict.text).run().unwrap();
    assert_eq!((again.difference, again.text), (None, verdict.text), "what was written anew is right");
}

#[test]
fn a_command_that_nobody_knows_is_named() {
    let trouble = Script::parse("running keepers=2\nexplodes k1\n----\n").run().unwrap_err();
    assert_eq!(trouble, "\"explodes k1\": there is no such command");
}
