//! That FAULTS.md tells the truth: all rows are there, and every test and fault that it names exists.

use std::fs;

use stolon_tests::bins;

use crate::table::FAULTS;

/// What stands between two of the same marks, in one line.
fn between(line: &str, mark: char) -> Vec<&str> {
    line.split(mark).skip(1).step_by(2).collect()
}

/// Whether `e2e::file::name` (or `chaos::`, or `keeper::pg::tests::`) is a test.
fn is_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let Some((name, folders)) = parts.split_last() else { return false };
    let file = match folders.first() {
        Some(&"keeper") => folders.join("/"),
        _ => format!("tests/{}", folders.join("/")),
    };
    let text = fs::read_to_string(bins::workspace().join(file).with_extension("rs")).unwrap_or_default();
    text.contains(&format!("fn {name}()"))
}

#[test]
fn every_catalogued_failure_has_its_row_and_every_name_in_it_exists() {
    let text = fs::read_to_string(bins::workspace().join("tests/FAULTS.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| L")).collect();
    for number in 1..=28 {
        let found = rows.iter().filter(|row| row.starts_with(&format!("| L{number} |"))).count();
        assert_eq!(found, 1, "rows of L{number}");
    }
    let mut tests = 0;
    for row in rows {
        for name in between(row, '*') {
            assert!(FAULTS.iter().any(|fault| fault.name == name), "no fault is named {name:?}: {row}");
        }
        for path in between(row, '`').into_iter().filter(|path| path.contains("::")) {
            assert!(is_test(path), "no test is named {path:?}: {row}");
            tests += 1;
        }
    }
    assert!(tests > 10, "only {tests} tests are named");
    assert!(!is_test("e2e::failover::nothing") && !is_test("e2e::nothing::once"));
}

#[test]
fn names_of_faults_are_unique() {
    let mut names: Vec<&str> = FAULTS.iter().map(|fault| fault.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
}
