//! Where PostgreSQL's programs are, and which version they have.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use stolon::model::cluster::BinaryVersion;

/// The oldest major that follows another server by a reload alone and promotes as this keeper does.
const OLDEST_MAJOR: u32 = 13;
const NEEDED: [&str; 5] = ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind"];
const DISTRIBUTION: &str = "/usr/lib/postgresql";

/// One folder with all the programs that a keeper needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    version: BinaryVersion,
}

impl Binaries {
    /// Looks at `--pg-bin-path` if given, else along PATH, else at Debian's folders (highest version first). The error
    /// is one line that names the missing program.
    pub fn find(pg_bin_path: Option<&Path>) -> Result<Binaries, String> {
        let folder = match pg_bin_path {
            Some(given) => {
                let missing: Vec<_> = missing(given).collect();
                if !missing.is_empty() {
                    return Err(format!("--pg-bin-path {}: no program {}", given.display(), missing.join(", ")));
                }
                given.to_owned()
            }
            None => search()?,
        };
        let version = ask_version(&folder.join("postgres"))?;
        if version.major < OLDEST_MAJOR {
            let found = folder.display();
            return Err(format!("{found} holds PostgreSQL {}; {OLDEST_MAJOR} or newer is needed", version.major));
        }
        Ok(Binaries { folder, version })
    }

    pub fn version(&self) -> BinaryVersion {
        self.version
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

fn missing(folder: &Path) -> impl Iterator<Item = &'static str> {
    let folder = folder.to_owned();
    NEEDED.into_iter().filter(move |program| !folder.join(program).is_file())
}

fn search() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).find(|folder| folder.is_absolute() && missing(folder).next().is_none());
    let installed = || distribution_folders().into_iter().find(|folder| missing(folder).next().is_none());
    on_path.or_else(installed).ok_or_else(|| {
        let nearest = distribution_folders().into_iter().next();
        let lacking = nearest.map(|folder| (missing(&folder).collect::<Vec<_>>().join(", "), folder));
        match lacking {
            Some((programs, folder)) => format!("{} lacks {programs}: install it, or set --pg-bin-path", folder.display()),
            None => format!(
                "PostgreSQL's programs ({}) are neither on PATH nor in {DISTRIBUTION}/*/bin: install PostgreSQL, or set --pg-bin-path",
                NEEDED.join(", ")
            ),
        }
    })
}

/// Debian's folders, the highest major first.
fn distribution_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(DISTRIBUTION).into_iter().flatten().flatten();
    let mut majors: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors.into_iter().map(|major| Path::new(DISTRIBUTION).join(major.to_string()).join("bin")).collect()
}

fn ask_version(postgres: &Path) -> Result<BinaryVersion, String> {
    let name = postgres.display();
    let output = Command::new(postgres).arg("--version").output().map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| format!("{name} --version says {:?}: not PostgreSQL?", text.trim()))
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `18beta1`, `17rc1`, `16devel`.
fn parse_version(text: &str) -> Option<BinaryVersion> {
    let word = text.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
    let number = |text: &str| -> Option<u32> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().ok()
    };
    let major = number(word)?;
    let minor = word.split_once('.').and_then(|(_, rest)| number(rest)).unwrap_or(0);
    Some(BinaryVersion { major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_distributions_and_betas_are_understood() {
        for (text, major, minor) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15, 18),
            ("postgres (PostgreSQL) 18beta1", 18, 0),
            ("postgres (PostgreSQL) 17rc1 (Ubuntu)", 17, 0),
            ("postgres (PostgreSQL) 9.6.24", 9, 6),
        ] {
            assert_eq!(parse_version(text), Some(BinaryVersion { major, minor }), "{text}");
        }
        assert_eq!(parse_version("mysqld 8"), None);
    }

    #[test]
    fn an_empty_folder_is_refused_by_naming_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(folder.path())).unwrap_err();
        assert!(error.contains("pg_rewind") && error.contains("--pg-bin-path"), "{error}");
    }

    #[test]
    fn the_installed_programs_are_found() {
        assert!(Binaries::find(None).unwrap().version().major >= OLDEST_MAJOR);
    }
}
