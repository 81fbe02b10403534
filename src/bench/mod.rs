//! `feedlog bench`: what the store does per second on this machine, beside the limit of its disk, in one run.

mod append;
mod cost;
mod load;
mod mqtt;
mod pull;
mod stats;
mod text;
mod yardstick;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use feedlog_service::{ReadError, StoreConfig, SubmitError};
use feedlog_storage::{EngineKind, OpenOptions};

/// Measures the store on this machine, beside the limit of its disk, and MQTT brokers from outside.
///
/// Except for `mqtt`, everything runs in this process, in a data directory of its own that is removed afterwards. Close other programs
/// first, and quote the medians: single rounds are noisy.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Durable messages per second, beside a bare append file.
    ///
    /// Rounds alternate: the bare preallocated file with group-committed fdatasync, then the whole store (authorize,
    /// decide, dedup, rows, hashes, sync), with the same writers and payloads.
    ///
    /// Example: feedlog bench append --writers 64 --rounds 5
    Append(Settings),
    /// Processor time of one pull of the 50 newest entries of a random feed.
    ///
    /// Example: feedlog bench pull --feeds 10000 --messages 1000000
    Pull(Settings),
    /// Costs that must stay flat: send by members, unread over 1,000 feeds, start-up, disk per message.
    ///
    /// Example: feedlog bench cost --members 100000
    Cost(Settings),
    /// Any MQTT broker from outside, beside a bare echo, Redis, other brokers, and rooms and channels over WebSocket.
    ///
    /// Example: feedlog bench mqtt publish --broker feedlog=127.0.0.1:1883 --echo
    ///   feedlog bench ws fanout --broker rooms=127.0.0.1:7171,wire=room --broker mosquitto=127.0.0.1:1884
    #[command(visible_alias = "ws", verbatim_doc_comment)]
    Mqtt {
        /// What is measured.
        #[command(subcommand)]
        mode: mqtt::Mode,
    },
}

/// What is measured, and how. Printed beside the figures.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Tasks that each keep one message in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    writers: u16,
    /// Feeds that the messages are spread over.
    #[arg(long, default_value_t = 10_000)]
    feeds: usize,
    /// Messages stored before pulls are measured.
    #[arg(long, default_value_t = 1_000_000)]
    messages: usize,
    /// Members of the large group of `bench cost`.
    #[arg(long, default_value_t = 100_000)]
    members: usize,
    /// Size of a payload, in bytes.
    #[arg(long, default_value_t = 200)]
    payload_bytes: usize,
    /// File whose lines make the payloads; common English words when not given.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Length of one round, in seconds.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Rounds; the median of them is the figure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Repeats the same sequence of feeds and payloads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The engine.
    #[arg(long, value_enum, default_value_t = BenchEngine::Rocksdb)]
    engine: BenchEngine,
    /// Memory for cached blocks, in bytes.
    #[arg(long, default_value_t = 64 << 20)]
    cache_bytes: usize,
    /// Where the data directory is made; it must be on the disk that is to be measured.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Nothing but the report is printed.
    #[arg(skip)]
    json: bool,
}

/// An engine that benches run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum BenchEngine {
    Rocksdb,
    Sled,
    Memory,
}

impl BenchEngine {
    fn kind(self) -> EngineKind {
        match self {
            Self::Rocksdb => EngineKind::RocksDb,
            Self::Sled => EngineKind::Sled,
            Self::Memory => EngineKind::Memory,
        }
    }
}

/// Why a bench ended without figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file of the bench.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A send.
    #[error("a send failed: {0}")]
    Submit(#[from] SubmitError),
    /// A read.
    #[error("a read failed: {0}")]
    Read(#[from] ReadError),
    /// The store did not open.
    #[error(transparent)]
    Storage(#[from] feedlog_storage::OpenError),
    /// The service did not start.
    #[error(transparent)]
    Service(#[from] feedlog_service::OpenError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] feedlog_storage::EngineError),
    /// The runtime or the output.
    #[error("{0}")]
    Other(String),
}

/// A store in a directory of the bench.
struct Opened {
    service: feedlog_service::Store,
    storage: feedlog_storage::Store,
}

impl Opened {
    async fn close(self) {
        self.service.drain(Duration::from_secs(30)).await;
    }
}

impl Settings {
    fn lasting(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn writers(&self) -> usize {
        usize::from(self.writers)
    }

    fn open(&self, dir: &Path) -> Result<Opened, BenchError> {
        let options = OpenOptions {
            dir: Some(dir.to_owned()),
            engine: self.engine.kind(),
            cache_bytes: self.cache_bytes,
            ..OpenOptions::default()
        };
        let storage = feedlog_migrations::open(&options)?;
        let service = feedlog_service::Store::open(StoreConfig::default(), storage.engine())?;
        Ok(Opened { service, storage })
    }

    fn engine_name(&self) -> &'static str {
        self.engine.kind().name()
    }
}

/// Runs a bench and prints its figures.
pub(crate) fn run(bench: &Bench, json: bool) -> Result<(), BenchError> {
    let settings = match bench {
        Bench::Append(settings) | Bench::Pull(settings) | Bench::Cost(settings) => settings,
        Bench::Mqtt { mode } => return mqtt::run(mode, json),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run_here(bench, &Settings { json, ..settings.clone() }))
}

async fn run_here(bench: &Bench, settings: &Settings) -> Result<(), BenchError> {
    let dir = tempfile::Builder::new().prefix("feedlog-bench-").tempdir_in(&settings.dir)?;
    match bench {
        Bench::Append(_) => print(settings.json, &append::run(settings, dir.path()).await?),
        Bench::Pull(_) => print(settings.json, &pull::run(settings, dir.path()).await?),
        Bench::Cost(_) => print(settings.json, &cost::run(settings, dir.path()).await?),
        // Needs no store here.
        Bench::Mqtt { .. } => Ok(()),
    }
}

/// A report as people read it.
trait Report: serde::Serialize {
    fn lines(&self) -> Vec<String>;
}

fn print(json: bool, report: &impl Report) -> Result<(), BenchError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if json {
        let text =
            serde_json::to_string_pretty(report).map_err(|error| BenchError::Other(error.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        for line in report.lines() {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
