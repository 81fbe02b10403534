//! `feedlog export`, and proving what it wrote.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::export::{Checker, LINE_BYTES_MAX, Proven, Totals, Writer};
use feedlog_storage::Engine;
use serde_json::json;

use super::ServerArgs;
use super::fail::{Exit, Fail};
use super::out::{self, Out};
use super::store::{self, StoreArgs};

/// Arguments of `feedlog export`.
#[derive(Debug, Args)]
#[command(
    long_about = "Writes feeds as lines of JSON: each entry verbatim with its hashes, after each feed its counts, head \
and chain hash, at the end a manifest. `feedlog verify --export FILE` proves the file without a store; `feedlog \
import --format feedlog` makes the same entries and the same chain hashes again.\n\nThrough a server it needs a token \
with the scope admin. Tokens and other state are not part of an export: see `feedlog backup`.",
    after_help = "Examples:\n  feedlog export --output all.jsonl\n  feedlog export team-x --output team-x.jsonl\n  \
feedlog export --data-dir /var/lib/feedlog | zstd > all.jsonl.zst"
)]
pub(super) struct ExportArgs {
    /// Only these feeds; none: all.
    feeds: Vec<String>,
    /// The file; it appears when it is complete. Without it: standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Entries read at once.
const PAGE_ENTRIES: usize = 1000;
/// Feed names read at once.
const PAGE_FEEDS: usize = 1000;

pub(super) fn export(args: &ExportArgs, out: Out) -> Result<(), Fail> {
    let mut feeds = Vec::new();
    for feed in &args.feeds {
        feeds.push(FeedId::parse(feed).map_err(|err| Fail::usage(format!("feed: {err}")))?);
    }
    // An export holds feeds in the order of their names, each once.
    feeds.sort();
    feeds.dedup();
    let Some(path) = &args.output else {
        if std::io::stdout().is_terminal() {
            return Err(Fail::usage(
                "an export is for files and programs: give --output FILE or redirect the output",
            ));
        }
        let mut sink = BufWriter::new(std::io::stdout().lock());
        write_to(args, &feeds, &mut sink)?;
        return Ok(());
    };
    // Under its own name only when complete and on disk.
    let partial = partial_name(path);
    let write = || -> Result<Totals, Fail> {
        let file = File::create(&partial).map_err(|err| Fail::file(&partial, err))?;
        let mut sink = BufWriter::new(file);
        let totals = write_to(args, &feeds, &mut sink)?;
        sink.into_inner().map_err(|err| Fail::file(&partial, err.error()))?.sync_all()?;
        std::fs::rename(&partial, path).map_err(|err| Fail::file(path, err))?;
        Ok(totals)
    };
    let totals = write();
    if totals.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    report(&totals?, path, out)
}

fn report(totals: &Totals, path: &Path, out: Out) -> Result<(), Fail> {
    out.either(
        &json!({"file": path, "manifest": totals}),
        &format!(
            "{}: {} feeds, {} entries, {} messages",
            path.display(),
            totals.feeds,
            totals.entries,
            totals.messages
        ),
    )
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn write_to(args: &ExportArgs, feeds: &[FeedId], sink: &mut impl Write) -> Result<Totals, Fail> {
    match &args.store.data_dir {
        Some(dir) => {
            let store = store::open_existing(dir, args.store.accept_loss)?;
            offline(store.storage.engine().as_ref(), feeds, sink)
        }
        None => through_server(args, feeds, sink),
    }
}

/// From an open engine. Feeds that do not exist are refused, not skipped.
fn offline(engine: &dyn Engine, only: &[FeedId], sink: &mut impl Write) -> Result<Totals, Fail> {
    let bar = out::progress(0, "entries");
    let mut writer = Writer::default();
    writeln!(sink, "{}", writer.header(out::now_ms()))?;
    let mut write_feed = |feed: &FeedId| -> Result<bool, Fail> {
        // The head of this moment: entries appended meanwhile are not part of it.
        let head = engine.head(feed).map_err(engine_failure)?.seq;
        let mut after = SeqId::ZERO;
        while after < head {
            let records =
                engine.records(feed, after.next(), head, PAGE_ENTRIES, 8 << 20).map_err(engine_failure)?;
            let Some(last) = records.last() else { break };
            after = last.entry.seq;
            for record in &records {
                writeln!(sink, "{}", writer.entry(record))?;
            }
            bar.inc(records.len() as u64);
        }
        match writer.end_feed() {
            Some(line) => {
                writeln!(sink, "{line}")?;
                Ok(true)
            }
            None => Ok(false),
        }
    };
    for feed in only {
        if !write_feed(feed)? {
            return Err(Fail::new(Exit::Refused, "feed_not_found", format!("no such feed: {feed}")));
        }
    }
    let mut after = None;
    while only.is_empty() {
        let page = engine.feeds(after.as_ref(), PAGE_FEEDS).map_err(engine_failure)?;
        for feed in &page {
            write_feed(feed)?;
        }
        match page.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    writeln!(sink, "{}", writer.manifest())?;
    sink.flush()?;
    bar.finish_and_clear();
    Ok(writer.totals())
}

pub(super) fn engine_failure(err: feedlog_storage::EngineError) -> Fail {
    match err {
        feedlog_storage::EngineError::Damaged(_) => Fail::damage(err),
        _ => Fail::failed(err),
    }
}

/// From a server, proving every line on the way: what is written is whole.
fn through_server(args: &ExportArgs, feeds: &[FeedId], sink: &mut impl Write) -> Result<Totals, Fail> {
    let mut path = "/v1/admin/export".to_owned();
    for (i, feed) in feeds.iter().enumerate() {
        path.push(if i == 0 { '?' } else { '&' });
        path.push_str("feed=");
        path.push_str(&crate::client::segment(feed.as_str()));
    }
    let body = args.server.client()?.stream(&path, "application/x-ndjson", None)?;
    let totals = check_lines(body, |line, _| Ok(writeln!(sink, "{line}")?))?;
    sink.flush()?;
    Ok(totals)
}

/// Proves an export line by line and hands each proven line on.
pub(super) fn check_lines(
    mut body: impl BufRead,
    mut each: impl FnMut(&str, Proven) -> Result<(), Fail>,
) -> Result<Totals, Fail> {
    let bar = out::progress(0, "entries");
    let mut checker = Checker::default();
    let mut line = String::new();
    let mut totals = None;
    loop {
        line.clear();
        let read =
            (&mut body).take(LINE_BYTES_MAX as u64).read_line(&mut line).map_err(|err| match err.kind() {
                std::io::ErrorKind::InvalidData => Fail::damage("the export is not UTF-8"),
                _ => Fail::failed(err),
            })?;
        if read == 0 {
            break;
        }
        let text = line.trim_end_matches(['\n', '\r']);
        let proven = checker.line(text).map_err(Fail::damage)?;
        match &proven {
            Proven::Manifest(found) => totals = Some(found.clone()),
            Proven::Entry(_) => bar.inc(1),
            Proven::Header | Proven::Feed(_) => {}
        }
        each(text, proven)?;
    }
    checker.end().map_err(Fail::damage)?;
    bar.finish_and_clear();
    totals.ok_or_else(|| Fail::damage("the export has no manifest"))
}

/// Opens an export; `-` is standard input.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, Fail> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|err| Fail::file(path, err))?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}
