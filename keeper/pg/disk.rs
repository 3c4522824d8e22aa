//! R13's other probe: whether the data directory's disk takes a write. The server's own probe writes only WAL, whose
//! segments are there already and may lie on another disk, so a full or hung disk under the data would go unnoticed.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use stolon::{model::Moment, task::clock};
use tokio::{sync::oneshot, time::timeout};

use super::{Instance, PgError, files};

/// Left out of base backups, by its beginning.
const FILE: &str = "pgsql_tmp_stolon_probe";
/// More than a file system keeps inside an inode, and what PostgreSQL asks for when it extends a few tables.
static CONTENTS: [u8; 32 << 10] = [0x5a; 32 << 10];

/// One write at a time, on a thread of its own that may hang for ever without holding anything else up.
#[derive(Debug)]
pub struct DiskProbe {
    instance: Instance,
    running: Option<(Moment, oneshot::Receiver<io::Result<()>>)>,
}

impl DiskProbe {
    pub fn new(instance: Instance) -> DiskProbe {
        DiskProbe { instance, running: None }
    }

    /// Writes and syncs a new file, and removes it again. Returns when the write that succeeded was begun. One that takes
    /// longer than `patience` is an error, and what the next call waits for. Errors are one line that names the directory
    /// and does not change while the trouble is the same.
    pub async fn write(&mut self, patience: Duration) -> Result<Moment, PgError> {
        let data = self.instance.data_dir();
        let refused = |what: String| PgError::Refused(format!("data directory {} {what}", data.display()));
        let (began, mut result) = match self.running.take() {
            Some(running) => running,
            None => (clock::now(), self.begin().map_err(|error| refused(format!("can't be probed: {error}")))?),
        };
        let result = match timeout(patience, &mut result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(io::Error::other("the thread that wrote has ended")),
            Err(_) => {
                self.running = Some((began, result));
                return Err(refused("does not complete a write: its disk hangs".to_owned()));
            }
        };
        match result {
            Ok(()) => Ok(began),
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                Err(refused("is full".to_owned()))
            }
            Err(error) => Err(refused(format!("does not take a write: {error}"))),
        }
    }

    fn begin(&self) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let (instance, (done, result)) = (self.instance.clone(), oneshot::channel());
        let work = move || {
            let path = instance.data_dir().join(FILE);
            let written = instance.as_owner(|| write(&path).map_err(PgError::io("write", &path)));
            let _ = done.send(match written {
                Err(PgError::Io { source, .. }) => Err(source),
                Err(error) => Err(io::Error::other(error.to_string())),
                Ok(()) => Ok(()),
            });
        };
        std::thread::Builder::new().name("probe-disk".into()).spawn(work)?;
        Ok(result)
    }
}

/// A new file each time: on a full disk an old one would lend its own room.
fn write(path: &Path) -> io::Result<()> {
    files::remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(&CONTENTS).and_then(|()| file.sync_all());
    files::remove(path)?;
    written
}
