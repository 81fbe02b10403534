//! `feedlog verify` and `feedlog rebuild`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::export::{Proven, hex};
use feedlog_storage::{Phase, Progress, VerifyReport};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::ServerArgs;
use super::export::{check_lines, engine_failure, open};
use super::fail::Fail;
use super::messages::text_of;
use super::out::{self, Out};
use super::store::{self, StoreArgs};

/// Arguments of `feedlog verify`.
#[derive(Debug, Args)]
#[command(
    long_about = "Proves that every feed is dense from 1, that every checksum, payload hash, chain hash and ordinal is \
right, and that every derived row equals what the log gives. Names the first damage and ends with exit code 5. With a \
file it proves an export; with --data-dir a store that no server has open; else it asks the server (scope admin).",
    after_help = "Examples:\n  feedlog verify\n  feedlog verify --data-dir /var/lib/feedlog\n  feedlog verify --export all.jsonl"
)]
pub(super) struct VerifyArgs {
    /// An export instead of a store; `-` is standard input.
    #[arg(value_name = "EXPORT", conflicts_with_all = ["data_dir", "export"])]
    file: Option<PathBuf>,
    /// The same, by name.
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    export: Option<PathBuf>,
    /// With --data-dir: the store must hold exactly the feeds of this export, with its heads and chain hashes.
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    against: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn verify(args: &VerifyArgs, out: Out) -> Result<(), Fail> {
    if let Some(file) = args.file.as_ref().or(args.export.as_ref()) {
        let totals = check_lines(open(file)?, |_, _| Ok(()))?;
        return out.either(
            &json!({"ok": true, "manifest": totals}),
            &format!(
                "whole: {} feeds, {} entries, {} messages",
                totals.feeds, totals.entries, totals.messages
            ),
        );
    }
    match &args.store.data_dir {
        Some(dir) => {
            let report = verify_dir(dir, args.store.accept_loss)?;
            if let Some(file) = &args.against {
                compare(dir, file, args.store.accept_loss)?;
            }
            out.either(&verified_json(&report), &verified_text(&report))
        }
        None => through_server(&args.server, "verify", out),
    }
}

/// Arguments of `feedlog rebuild`.
#[derive(Debug, Args)]
#[command(
    long_about = "Derives every row (unread, unreplied, members, dedup …) again from the log and replaces those that \
differ. Through a server (scope admin) it goes on working meanwhile.",
    after_help = "Examples:\n  feedlog rebuild\n  feedlog rebuild --data-dir /var/lib/feedlog"
)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn rebuild(args: &RebuildArgs, out: Out) -> Result<(), Fail> {
    match &args.store.data_dir {
        Some(dir) => rebuild_dir(dir, args.store.accept_loss, out),
        None => through_server(&args.server, "rebuild", out),
    }
}

/// Proves a store that nobody has open, every live byte of it.
///
/// # Errors
/// `Damage` with the first place that is not what it must be.
pub(super) fn verify_dir(dir: &Path, accept_loss: bool) -> Result<VerifyReport, Fail> {
    let store = store::open_existing(dir, accept_loss)?;
    let bar = out::progress(0, "");
    let report = store.storage.verify(&mut |progress| show(&bar, progress)).map_err(engine_failure)?;
    bar.finish_and_clear();
    match &report.damage {
        Some(damage) => Err(Fail::damage(format!("damaged: {damage}"))),
        None => Ok(report),
    }
}

/// Compares the head and the chain hash of every feed with what an export says; the chain hash covers all entries.
fn compare(dir: &Path, file: &Path, accept_loss: bool) -> Result<(), Fail> {
    let store = store::open_existing(dir, accept_loss)?;
    let engine = store.storage.engine();
    let mut named = HashSet::new();
    check_lines(open(file)?, |_, proven| {
        let Proven::Feed(sum) = proven else { return Ok(()) };
        let differs = |what: &str| Fail::damage(format!("feed {:?} {what}", sum.feed_id));
        let feed = FeedId::parse(&sum.feed_id).map_err(|_| differs("has no valid name"))?;
        let head = engine.head(&feed).map_err(engine_failure)?;
        if head.seq == SeqId::ZERO {
            return Err(differs("is not in the store"));
        }
        let last = engine.records(&feed, head.seq, head.seq, 1, 0).map_err(engine_failure)?;
        let chain = last.last().map(|record| hex(&record.chain_hash));
        if head.seq.0 != sum.head_seq_id || chain.as_deref() != Some(sum.chain_hash.as_str()) {
            return Err(differs("has another head or chain hash than in the export"));
        }
        named.insert(feed);
        Ok(())
    })?;
    let mut after = None;
    loop {
        let page = engine.feeds(after.as_ref(), 1000).map_err(engine_failure)?;
        if let Some(other) = page.iter().find(|feed| !named.contains(*feed)) {
            return Err(Fail::damage(format!("feed {:?} is not in the export", other.as_str())));
        }
        match page.into_iter().last() {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_message(match progress.phase {
        Phase::Physical => "bytes",
        Phase::Entries => "entries",
        Phase::Changes => "change rows",
        Phase::Rows => "rows",
    });
    bar.set_position(progress.done);
}

/// A sound store for programs.
pub(super) fn verified_json(report: &VerifyReport) -> Value {
    json!({
        "ok": true,
        "feeds": report.feeds,
        "entries": report.entries,
        "messages": report.messages,
        "payload_bytes": report.payload_bytes,
        "rows": report.rows,
        "changes": report.changes,
        "commit_no": report.commit_no,
    })
}

/// A sound store for people.
pub(super) fn verified_text(report: &VerifyReport) -> String {
    format!(
        "whole: {} feeds, {} entries, {} messages, {} rows",
        report.feeds, report.entries, report.messages, report.rows
    )
}

fn rebuild_dir(dir: &Path, accept_loss: bool, out: Out) -> Result<(), Fail> {
    let store = store::open_existing(dir, accept_loss)?;
    let bar = out::progress(0, "");
    let report = store.storage.rebuild(&mut |progress| show(&bar, progress)).map_err(engine_failure)?;
    bar.finish_and_clear();
    store.storage.engine().close().map_err(engine_failure)?;
    out.either(
        &json!({
            "feeds": report.feeds,
            "entries": report.entries,
            "rows": report.rows,
            "added": report.added,
            "removed": report.removed,
            "changed": report.changed,
        }),
        &format!(
            "rebuilt from {} entries of {} feeds: {} rows, of them {} added, {} changed; {} removed",
            report.entries, report.feeds, report.rows, report.added, report.changed, report.removed
        ),
    )
}

fn entry_name(seq: u64) -> String {
    if seq == 0 { " (rows)".to_owned() } else { format!(", entry {seq}") }
}

/// Starts the job on the server and waits for its end.
fn through_server(server: &ServerArgs, kind: &str, out: Out) -> Result<(), Fail> {
    let client = server.client()?;
    let (_, mut job) = client.post(&format!("/v1/admin/{kind}"), &json!({}))?;
    let bar = out::progress(0, "entries");
    while job["state"] == "running" {
        std::thread::sleep(Duration::from_millis(200));
        job = client.get(&format!("/v1/admin/jobs/{}", job["id"]))?;
        bar.set_position(job["entries_done"].as_u64().unwrap_or_default());
    }
    bar.finish_and_clear();
    if job["state"] != "done" {
        return Err(Fail::failed(format!("the server stopped before the end, at {}", text_of(&job["at"]))));
    }
    let problems = job["problem_count"].as_u64().unwrap_or_default();
    let text = format!(
        "{}: {} feeds, {} entries, {} rows",
        if problems == 0 { "whole".to_owned() } else { format!("{problems} rows replaced") },
        job["feeds_done"],
        job["entries_done"],
        job["rows_done"]
    );
    if kind == "rebuild" || problems == 0 {
        return out.either(&job, &text);
    }
    if out.json {
        out.value(&job)?;
    }
    let first = &job["problems"][0];
    Err(Fail::damage(format!(
        "{problems} problems; the first: feed {}{}: {}",
        first["feed_id"],
        entry_name(first["seq_id"].as_u64().unwrap_or_default()),
        text_of(&first["what"])
    )))
}
