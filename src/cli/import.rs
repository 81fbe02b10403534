//! `feedlog import`: other people's logs, through a running server; and exports of feedlog itself, offline.

mod crosswoz;
mod feedlog;
mod irc;
mod jsonl;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ServerArgs;
use super::fail::Fail;
use super::out::Out;

/// Arguments of `feedlog import`.
#[derive(Debug, Args)]
#[command(
    about = "Import chat logs through a running server, or an export into an empty store",
    long_about = "Imports chat logs through a running server. Importing again adds nothing: every message has a \
client_msg_id made from its file and line. Lines that are not messages are counted by class.\n\n\
  irc       [hh:mm] <nick> text. One group irc/<file name without .raw.txt> per file, owned by you; each nick\n            \
joins at its first line. sent_ms: the date in the file's name and the time, UTC.\n  \
crosswoz  A .json file of CrossWOZ, or a .zip with one. One group crosswoz/<dialogue> per dialogue, with the\n            \
members crosswoz/<dialogue>/usr and crosswoz/<dialogue>/sys.\n  \
jsonl     One message per line: {\"feed_id\", \"sender\", \"payload\"} and what POST …/messages takes besides.\n            \
Feeds are groups owned by you; senders join at their first line.\n  \
feedlog   An export of feedlog, verbatim and offline, into the empty store --data-dir.\n\n\
The token needs the scopes user and send_as.",
    after_help = "Examples:\n  feedlog import --format irc logs/2004-12-25.raw.txt logs/2005-02-06.raw.txt\n  \
feedlog import --format feedlog --data-dir new-data export.jsonl"
)]
pub(super) struct ImportArgs {
    /// What the files are.
    #[arg(long, value_enum)]
    format: Format,
    /// Files; `-` is standard input (jsonl, feedlog).
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Feeds that are imported at the same time. Each feed is imported in order.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: super::store::StoreArgs,
}

/// What can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Irc,
    Crosswoz,
    Jsonl,
    Feedlog,
}

/// Something that happens in a feed, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A user becomes a member.
    Join(String),
    /// A message of `sender`; `body` is what `POST …/messages` takes.
    Message {
        /// The uid.
        sender: String,
        /// Kind, payload, client_msg_id and so on.
        body: Body,
    },
}

/// The fields of a message; each value is kept as the text it came as.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Body(BTreeMap<String, Box<RawValue>>);

impl Body {
    fn set(&mut self, name: &str, value: impl Serialize) {
        let raw = serde_json::value::to_raw_value(&value).expect("strings and numbers are JSON");
        self.0.insert(name.to_owned(), raw);
    }

    fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.set(name, value);
        self
    }

    /// The value as written, in bytes.
    fn len_of(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, |raw| raw.get().len())
    }

    fn text_of(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        let text = |body: &Self| {
            body.0.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect::<Vec<_>>()
        };
        text(self) == text(other)
    }
}

/// All of one feed that one source brings.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The feed.
    pub feed_id: String,
    /// For people.
    pub title: String,
    /// In order.
    pub steps: Vec<Step>,
    /// Lines that are not messages, by class.
    pub skipped: Skipped,
}

/// Lines that are not messages, by class.
pub(super) type Skipped = BTreeMap<&'static str, u64>;

/// Makes the plan of one feed when its turn comes, so that not all files are in memory at once.
pub(super) type Job = Box<dyn FnOnce() -> Result<Plan, Fail> + Send>;

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or the server refuses something other than what is already there.
pub(super) fn import(args: &ImportArgs, out: Out) -> Result<(), Fail> {
    if args.format == Format::Feedlog {
        return feedlog::import(&args.files, &args.store, out);
    }
    if args.store.data_dir.is_some() {
        return Err(Fail::usage("--data-dir is for --format feedlog; the other formats go through --server"));
    }
    let client = args.server.client()?;
    let mut runner = run::Runner::new(client, usize::from(args.parallel));
    match args.format {
        Format::Irc => {
            let jobs = args.files.iter().map(|path| {
                let path = path.clone();
                Box::new(move || irc::plan(&file_name(&path)?, &read(&path)?)) as Job
            });
            runner.run(jobs.collect())?;
        }
        Format::Crosswoz => {
            for path in &args.files {
                runner.run(crosswoz::jobs(path)?)?;
            }
        }
        Format::Jsonl => {
            for path in &args.files {
                let mut source = jsonl::Source::open(path)?;
                while let Some(jobs) = source.next_jobs()? {
                    runner.run(jobs)?;
                }
            }
        }
        Format::Feedlog => {}
    }
    let sum = runner.finish();
    if out.json { out.value(&sum.to_json()) } else { out.line(&sum.to_text()) }
}

fn read(path: &Path) -> Result<Vec<u8>, Fail> {
    std::fs::read(path).map_err(|err| Fail::file(path, err))
}

/// The file's name without its folder; part of every client_msg_id.
fn file_name(path: &Path) -> Result<String, Fail> {
    path.file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| Fail::file(path, "has no file name in UTF-8"))
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sum {
    /// Feeds touched.
    pub feeds: u64,
    /// Feeds that were not there before.
    pub feeds_created: u64,
    /// Members added.
    pub joined: u64,
    /// Messages of the sources.
    pub messages: u64,
    /// Those appended by this run.
    pub appended: u64,
    /// Those that had been there before.
    pub duplicates: u64,
    /// Lines that are no messages, by class.
    pub skipped: Skipped,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Sum {
    fn per_second(&self) -> u64 {
        self.messages.saturating_mul(1000) / self.took_ms.max(1)
    }

    fn to_json(&self) -> Value {
        json!({
            "feeds": self.feeds,
            "feeds_created": self.feeds_created,
            "members_joined": self.joined,
            "messages": self.messages,
            "appended": self.appended,
            "duplicates": self.duplicates,
            "skipped": self.skipped,
            "took_ms": self.took_ms,
            "messages_per_second": self.per_second(),
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "{} messages in {} feeds: {} appended, {} were there before; {} feeds created, {} members joined\n\
             {:.1} s, {} messages/s",
            self.messages,
            self.feeds,
            self.appended,
            self.duplicates,
            self.feeds_created,
            self.joined,
            self.took_ms as f64 / 1000.0,
            self.per_second(),
        );
        if !self.skipped.is_empty() {
            let classes: Vec<_> =
                self.skipped.iter().map(|(class, lines)| format!("{class} {lines}")).collect();
            text.push_str(&format!(
                "\nskipped {} lines: {}",
                self.skipped.values().sum::<u64>(),
                classes.join(", ")
            ));
        }
        text
    }
}
