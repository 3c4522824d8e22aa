//! What a keeper stands on before anything runs: its directory, locked; its names; its PostgreSQL programs and users.
//! Everything that a command line or a directory can have wrong is found here, in one line, before anything is made.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rand::Rng;
use rustix::fs::{FlockOperation, fcntl_lock};
use stolon::model::KeeperUid;

use crate::{
    cli::{Cli, PostgresArgs},
    journal::{Files, Folder, KeeperState},
    login,
    pg::{Binaries, Instance, InstanceConfig, Postmaster, RunAs, check_exposure},
};

/// See the module.
#[derive(Debug)]
pub struct Ground {
    pub uid: KeeperUid,
    pub instance: Instance,
    pub files: Files,
    pub state: KeeperState,
    pub place: Place,
    /// Address that others reach PostgreSQL at.
    pub advertised: (String, u16),
    pub open_to_all: bool,
    /// Held for as long as the keeper lives; `None` with `--disable-data-dir-locking`.
    _lock: Option<File>,
}

/// This boot and this directory: what tells a restart from a copy of the directory (execution 21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub boot: String,
    pub device: u64,
    pub inode: u64,
}

impl Place {
    pub fn folder(&self) -> Folder {
        Folder { device: self.device, inode: self.inode }
    }
}

/// Longest path of a Unix socket (`sun_path`), with its end.
const SOCKET_PATH: usize = 108;

impl Ground {
    /// Checks all, then makes or takes the data directory.
    pub fn prepare(cli: &Cli) -> Result<Ground, String> {
        let credentials = login::credentials(&cli.users)?;
        let args = &cli.postgres;
        check_exposure(&args.pg_listen_address, &credentials)
            .map_err(|problem| format!("--pg-listen-address {}: {problem}", args.pg_listen_address))?;
        let advertised = advertised(args)?;
        let binaries = Binaries::find(args.pg_bin_path.as_deref())?;
        let run_as = RunAs::resolve(args.pg_os_user.as_deref())?;
        sockets(args)?;
        // Whose directory it is comes before whether it can be used.
        contradiction(&cli.data_dir, cli.id.as_ref())?;
        let dir = make(&cli.data_dir, run_as.as_ref())?;
        let lock = if cli.disable_data_dir_locking { None } else { Some(lock(&dir)?) };
        let files = Files::new(&dir);
        let (uid, state) = name(&files, cli.id.as_ref(), &dir)?;
        let open_to_all = credentials.open();
        let instance = Instance::new(InstanceConfig {
            keeper_dir: dir.clone(),
            binaries,
            run_as,
            credentials,
            listen_address: args.pg_listen_address.clone(),
            port: args.pg_port,
            socket_dir: args.pg_unix_socket_dir.clone(),
        })?;
        free_port(&instance, args)?;
        Ok(Ground { uid, instance, files, state, place: place(&dir)?, advertised, open_to_all, _lock: lock })
    }
}

fn advertised(args: &PostgresArgs) -> Result<(String, u16), String> {
    let port = args.pg_advertise_port.unwrap_or(args.pg_port);
    if let Some(host) = &args.pg_advertise_address {
        return Ok((host.clone(), port));
    }
    let first = args.pg_listen_address.split(',').next().unwrap_or_default().trim();
    if matches!(first, "" | "*" | "0.0.0.0" | "::") {
        return Err(format!(
            "--pg-listen-address {} names no host: give --pg-advertise-address, where others reach PostgreSQL",
            args.pg_listen_address
        ));
    }
    Ok((first.to_owned(), port))
}

fn make(data_dir: &Path, run_as: Option<&RunAs>) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("--data-dir {}: {error}", data_dir.display());
    match fs::metadata(data_dir) {
        Ok(found) if !found.is_dir() => return Err(format!("--data-dir {} is no directory", data_dir.display())),
        _ => {}
    }
    match run_as {
        Some(user) => user.prepare(data_dir).map_err(|problem| format!("--data-dir: {problem}"))?,
        None => fs::create_dir_all(data_dir).map_err(failed)?,
    }
    let probe = data_dir.join(".writable");
    File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(failed)?;
    data_dir.canonicalize().map_err(failed)
}

fn lock(dir: &Path) -> Result<File, String> {
    let path = dir.join("lock");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(errno) if matches!(errno.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => Err(format!(
            "--data-dir {}: another keeper holds its lock and runs on it: stop that one first, or choose another directory",
            dir.display()
        )),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// The keeper's name: what is saved wins, and contradicting it is an error.
fn name(files: &Files, given: Option<&KeeperUid>, dir: &Path) -> Result<(KeeperUid, KeeperState), String> {
    let mut state = files.keeper_state().map_err(|error| error.to_string())?;
    contradiction(dir, given)?;
    match (&state.uid, given) {
        (Some(saved), _) => Ok((saved.clone(), state)),
        (None, given) => {
            let uid = match given {
                Some(uid) => uid.clone(),
                None => KeeperUid::parse(format!("{:08x}", rand::rng().next_u32())).map_err(|bad| bad.to_string())?,
            };
            state.uid = Some(uid.clone());
            files.save_keeper_state(&state).map_err(|error| error.to_string())?;
            Ok((uid, state))
        }
    }
}

fn contradiction(dir: &Path, given: Option<&KeeperUid>) -> Result<(), String> {
    let saved = Files::new(dir).keeper_state().ok().and_then(|state| state.uid);
    match (saved, given) {
        (Some(saved), Some(given)) if saved != *given => Err(format!(
            "--data-dir {} belongs to keeper {saved}, not to --id {given}: give that id, or another directory",
            dir.display()
        )),
        _ => Ok(()),
    }
}

fn sockets(args: &PostgresArgs) -> Result<(), String> {
    let shown = args.pg_unix_socket_dir.display();
    if !args.pg_unix_socket_dir.is_absolute() || !args.pg_unix_socket_dir.is_dir() {
        return Err(format!("--pg-unix-socket-dir {shown}: give the full path of an existing folder"));
    }
    let socket = args.pg_unix_socket_dir.join(format!(".s.PGSQL.{}", args.pg_port));
    if socket.as_os_str().len() >= SOCKET_PATH {
        return Err(format!("--pg-unix-socket-dir {shown}: too long a path for a socket"));
    }
    Ok(())
}

fn place(dir: &Path) -> Result<Place, String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let meta = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(Place { boot, device: meta.dev(), inode: meta.ino() })
}

/// A port that somebody else has is told now, not by PostgreSQL's log later. Our own server, adopted, may have it.
fn free_port(instance: &Instance, args: &PostgresArgs) -> Result<(), String> {
    if Postmaster::adopt(instance).map_err(|error| error.to_string())?.is_some() {
        return Ok(());
    }
    let port = args.pg_port;
    for host in args.pg_listen_address.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        let host = if host == "*" { "0.0.0.0" } else { host };
        match TcpListener::bind((host, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(format!(
                    "--pg-port {port}: {host}:{port} is in use by another process, choose another port"
                ));
            }
            Err(error) => return Err(format!("--pg-listen-address {host}: PostgreSQL can't listen there: {error}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_keepers_name_and_says_so_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        let k0 = KeeperUid::parse("k0").unwrap();
        assert_eq!(name(&files, Some(&k0), dir.path()).unwrap().0, k0);
        assert_eq!(name(&files, None, dir.path()).unwrap().0, k0);
        let error = name(&files, Some(&KeeperUid::parse("k1").unwrap()), dir.path()).unwrap_err();
        assert!(error.contains("k0") && error.contains("--id k1"), "{error}");
    }

    #[test]
    fn a_made_up_name_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        let made = name(&files, None, dir.path()).unwrap().0;
        assert_eq!(name(&files, None, dir.path()).unwrap().0, made);
    }
}
