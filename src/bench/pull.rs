//! Question: what does one pull of the newest 50 entries cost, in processor time, when it is not the last feed written?
//!
//! Back of an envelope: one seek (a few block look-ups), 50 records of about 300 bytes to check and decode, one look at
//! what happened to them since: some ten microseconds when the blocks are in memory.

use std::path::Path;

use feedlog_core::ids::FeedId;
use feedlog_core::limits::PAGE_ENTRIES_MAX;
use feedlog_core::views::HistoryQuery;

use super::append::{make_feeds, message, user};
use super::stats::{Random, median, percentile, thread_cpu};
use super::text::Texts;
use super::{BenchError, Opened, Report, Settings};

/// Entries of a pull.
const PAGE: usize = 50;
/// Pulls of one round.
const PULLS: usize = 20_000;
/// Messages handed over at once while filling.
const FILL: usize = 2_000;

const _: () = assert!(PAGE <= PAGE_ENTRIES_MAX);

/// The outcome of `bench pull`.
#[derive(Debug, serde::Serialize)]
pub(super) struct PullReport {
    /// Messages in the store.
    pub messages: usize,
    /// Feeds that they are spread over.
    pub feeds: usize,
    /// Processor time of one pull, microseconds, one figure a round.
    pub cpu_us: Vec<f64>,
    /// Median of the rounds.
    pub cpu_us_median: f64,
    /// Time of one pull, 99th percentile of the last round, microseconds.
    pub wall_us_p99: f64,
}

/// Sends `count` messages round robin over all feeds.
pub(super) async fn fill(
    opened: &Opened,
    settings: &Settings,
    feeds: &[Vec<FeedId>],
    count: usize,
) -> Result<(), BenchError> {
    let mut texts = Texts::new(settings.corpus.as_deref(), settings.payload_bytes, settings.seed)?;
    let mut left = count;
    let mut number = 0;
    while left > 0 {
        for (writer, own) in feeds.iter().enumerate() {
            let gate = opened.service.gate(user(&format!("writer-{writer}")));
            let batch = FILL.min(left);
            let commands = (0..batch)
                .map(|_| {
                    number += 1;
                    message(&own[number % own.len()], texts.next(), &format!("fill-{number}"))
                })
                .collect();
            for answer in gate.submit_all(commands).await {
                answer?;
            }
            left -= batch;
            if left == 0 {
                break;
            }
        }
        if !settings.json {
            eprint!("\rfilling: {} of {count} messages", count - left);
        }
    }
    if !settings.json {
        eprintln!();
    }
    Ok(())
}

/// Fills a store and pulls.
pub(super) async fn run(settings: &Settings, dir: &Path) -> Result<PullReport, BenchError> {
    let opened = settings.open(&dir.join("store"))?;
    let feeds = make_feeds(&opened.service, settings).await?;
    fill(&opened, settings, &feeds, settings.messages).await?;
    let gates: Vec<_> =
        (0..settings.writers()).map(|w| opened.service.gate(user(&format!("writer-{w}"))).reads()).collect();
    let mut random = Random::new(settings.seed);
    let mut cpu_us = Vec::new();
    let mut wall = Vec::new();
    // One round more than asked for: the first warms the caches.
    for round in 0..=settings.rounds {
        wall.clear();
        let before = thread_cpu().ok_or_else(|| BenchError::Other("no processor time in /proc".into()))?;
        for _ in 0..PULLS {
            let writer = random.below(feeds.len());
            let feed = &feeds[writer][random.below(feeds[writer].len())];
            let start = std::time::Instant::now();
            let page =
                gates[writer].history(feed, HistoryQuery::Before(feedlog_core::ids::SeqId::MAX), PAGE)?;
            wall.push(start.elapsed());
            if page.entries.is_empty() {
                return Err(BenchError::Other("a feed is empty".into()));
            }
        }
        let after = thread_cpu().unwrap_or(before);
        let each = (after - before).as_secs_f64() * 1e6 / PULLS as f64;
        if round > 0 {
            cpu_us.push(each);
        }
        if !settings.json {
            eprintln!("round {round}: {each:.1} µs of processor time a pull");
        }
    }
    drop(gates);
    opened.close().await;
    Ok(PullReport {
        messages: settings.messages,
        feeds: settings.feeds,
        cpu_us_median: median(&cpu_us),
        cpu_us,
        wall_us_p99: percentile(&mut wall, 99.0).as_secs_f64() * 1e6,
    })
}

impl Report for PullReport {
    fn lines(&self) -> Vec<String> {
        vec![format!(
            "pull of the {PAGE} newest of a random feed ({} messages in {} feeds): {:.1} µs of processor time, p99 {:.0} µs",
            self.messages, self.feeds, self.cpu_us_median, self.wall_us_p99
        )]
    }
}
