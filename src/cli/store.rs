//! A data directory that a command opens itself, with no server running on it.

use std::path::{Path, PathBuf};

use clap::Args;
use feedlog_storage::{OpenError, OpenOptions};

use super::fail::{Exit, Fail};
use crate::config::Engine;

/// Which data directory.
#[derive(Debug, Clone, Args)]
pub(super) struct StoreArgs {
    /// Work on this data directory itself; no server may be running on it.
    #[arg(long, value_name = "DIR", help_heading = "Offline")]
    pub(super) data_dir: Option<PathBuf>,
    /// The engine of a new data directory: rocksdb or sled; an existing one tells its own.
    #[arg(long, help_heading = "Offline")]
    pub(super) engine: Option<Engine>,
    /// Open although the newest acknowledged commits are missing.
    #[arg(long, help_heading = "Offline")]
    pub(super) accept_loss: bool,
}

/// A store that this process has open.
pub(super) struct Offline {
    pub(super) storage: feedlog_storage::Store,
}

impl Drop for Offline {
    fn drop(&mut self) {
        // Where the command closed it already, and looked at the answer, closing again changes nothing.
        let _ = self.storage.engine().close();
    }
}

/// Opens an existing store.
pub(super) fn open_existing(dir: &Path, accept_loss: bool) -> Result<Offline, Fail> {
    let engine = match feedlog_storage::engine_of(dir) {
        Ok(Some(engine)) => engine,
        Ok(None) => return Err(Fail::failed(format!("{} holds no feedlog store", dir.display()))),
        Err(err) => return Err(open_failure(&err)),
    };
    open(dir, engine, accept_loss)
}

/// Makes a new store in a directory that is missing or empty.
pub(super) fn create(dir: &Path, engine: Option<Engine>) -> Result<Offline, Fail> {
    require_empty(dir)?;
    let engine = crate::wiring::engine_kind(engine.unwrap_or_else(default_engine));
    open(dir, engine, false)
}

/// RocksDB where it is compiled in.
fn default_engine() -> Engine {
    if cfg!(feature = "rocksdb") { Engine::Rocksdb } else { Engine::Sled }
}

/// Refuses a directory that has something in it.
pub(super) fn require_empty(dir: &Path) -> Result<(), Fail> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Fail::new(Exit::Refused, "not_empty", format!("{} is not empty", dir.display()))),
        },
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(Fail::file(dir, err)),
    }
}

fn open(dir: &Path, engine: feedlog_storage::EngineKind, accept_loss: bool) -> Result<Offline, Fail> {
    let options = OpenOptions { dir: Some(dir.to_owned()), engine, accept_loss, ..OpenOptions::default() };
    let storage = feedlog_migrations::open(&options).map_err(|err| open_failure(&err))?;
    Ok(Offline { storage })
}

/// The exit code of a store that does not open.
pub(super) fn open_failure(err: &OpenError) -> Fail {
    match err {
        OpenError::Damaged(_) | OpenError::TailLost { .. } | OpenError::GuardDamaged { .. } => {
            Fail::damage(err)
        }
        OpenError::Locked(_) => Fail::unavailable(err),
        OpenError::OtherEngine { .. } | OpenError::Unavailable(_) => Fail::usage(err),
        _ => Fail::failed(err),
    }
}
