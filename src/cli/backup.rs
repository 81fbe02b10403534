//! `feedlog backup` and `feedlog restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::ServerArgs;
use super::export::engine_failure;
use super::fail::{Exit, Fail};
use super::maintain;
use super::out::Out;
use super::store;

/// Arguments of `feedlog backup`.
#[derive(Debug, Args)]
#[command(
    long_about = "Writes a consistent copy of everything durable: feeds, derived rows and tokens. Through a server \
(scope admin) it goes on working meanwhile, and the backup appears on the server's machine below its \
storage.backup_dir; with --data-dir the copy is made offline in the directory given.",
    after_help = "Examples:\n  feedlog backup 2026-11-20\n  \
feedlog backup --data-dir /var/lib/feedlog /backups/2026-11-20"
)]
pub(super) struct BackupArgs {
    /// The directory of the backup, which does not exist yet; through a server: below its storage.backup_dir.
    dir: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: store::StoreArgs,
}

pub(super) fn backup(args: &BackupArgs, out: Out) -> Result<(), Fail> {
    let Some(data_dir) = &args.store.data_dir else {
        let name = args.dir.to_str().ok_or_else(|| Fail::usage("the directory's name is not UTF-8"))?;
        let (_, answer) = args.server.client()?.post("/v1/admin/backup", &json!({"dir": name}))?;
        return out.either(
            &answer,
            &format!("backup {name} holds everything up to commit {}", answer["commit_no"]),
        );
    };
    let dir = &args.dir;
    if dir.exists() {
        return Err(Fail::new(Exit::Refused, "already_exists", format!("{} exists", dir.display())));
    }
    let store = store::open_existing(data_dir, args.store.accept_loss)?;
    let engine = store.storage.engine();
    engine.backup(dir).map_err(engine_failure)?;
    out.either(
        &json!({"backup": dir, "commit_no": engine.commit_no()}),
        &format!("{} holds everything up to commit {}", dir.display(), engine.commit_no()),
    )
}

/// Arguments of `feedlog restore`.
#[derive(Debug, Args)]
#[command(
    long_about = "Makes a data directory from a backup and verifies it: every feed dense, every checksum and chain \
hash, every derived row. A copy that does not verify is removed again.",
    after_help = "Example:\n  feedlog restore /backups/2026-11-20 --data-dir /var/lib/feedlog"
)]
pub(super) struct RestoreArgs {
    /// The backup.
    backup: PathBuf,
    /// The new data directory; missing or empty.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn restore(args: &RestoreArgs, out: Out) -> Result<(), Fail> {
    match feedlog_storage::engine_of(&args.backup) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(Fail::failed(format!("{} is no backup", args.backup.display()))),
        Err(err) => return Err(store::open_failure(&err)),
    }
    store::require_empty(&args.data_dir)?;
    let result =
        copy(&args.backup, &args.data_dir).and_then(|()| maintain::verify_dir(&args.data_dir, false));
    match result {
        Ok(report) => out.either(
            &json!({"data_dir": args.data_dir, "verify": maintain::verified_json(&report)}),
            &format!("{} is restored; {}", args.data_dir.display(), maintain::verified_text(&report)),
        ),
        Err(fail) => {
            // What is there is our own copy: the directory was empty.
            let _ = std::fs::remove_dir_all(&args.data_dir);
            Err(fail)
        }
    }
}

/// Copies a tree of files and directories, each synced.
fn copy(from: &Path, to: &Path) -> Result<(), Fail> {
    std::fs::create_dir_all(to).map_err(|err| Fail::file(to, err))?;
    for entry in std::fs::read_dir(from).map_err(|err| Fail::file(from, err))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).map_err(|err| Fail::file(&source, err))?;
            sync(&target)?;
        }
    }
    sync(to)
}

fn sync(path: &Path) -> Result<(), Fail> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|err| Fail::file(path, err))
}
