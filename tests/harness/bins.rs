//! The four programs, built once per test process. Cargo builds no programs of other workspace members for an
//! integration test and lets it run stale ones, hence the build here.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Environment variable that names a folder of ready programs; nothing is built then.
pub const BIN_DIR: &str = "STOLON_BIN_DIR";

static DIR: OnceLock<PathBuf> = OnceLock::new();

/// Takes the programs of this folder from now on, whatever the environment says; nothing is built then.
pub fn use_folder(folder: &Path) {
    let taken = DIR.set(folder.to_owned());
    assert!(taken.is_ok(), "the programs' folder is chosen once, before the first program is started");
}

/// Path of `stolon-keeper`, `stolon-sentinel`, `stolon-proxy` or `stolonctl`.
pub fn bin(name: &str) -> PathBuf {
    let path = DIR.get_or_init(folder).join(name);
    assert!(path.is_file(), "no program {}", path.display());
    path
}

/// The workspace's root.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace")
}

/// The folder of this build: `target/debug`, or wherever the test program lies in.
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test program");
    test.ancestors().nth(2).expect("test programs are in TARGET/PROFILE/deps").to_owned()
}

fn folder() -> PathBuf {
    match std::env::var_os(BIN_DIR) {
        Some(given) => given.into(),
        None => {
            build(&build_folder());
            build_folder()
        }
    }
}

fn build(folder: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace());
    if folder.ends_with("release") {
        command.arg("--release");
    }
    // What cargo gave to this test would make the inner build believe that its inputs changed, and rebuild for minutes.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let keep = matches!(&*text, "CARGO_HOME" | "CARGO_TARGET_DIR");
        if text.starts_with("CARGO") && !keep || matches!(&*text, "LD_LIBRARY_PATH" | "OUT_DIR") {
            command.env_remove(&name);
        }
    }
    let status = command.status().expect("cargo can be started");
    assert!(status.success(), "building the programs failed: {status}");
}
