//! Question: which costs grow that must not? A send by the number of members, unread by the number of feeds, opening
//! and memory by the size of the store; and what a message takes on disk.

use std::path::Path;
use std::time::{Duration, Instant};

use feedlog_core::command::{Action, Command, CreateFeed};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, Role};
use feedlog_core::ids::{FeedId, Uid};
use feedlog_service::Gate;

use super::append::{make_feeds, message, user};
use super::stats::{median, percentile};
use super::text::Texts;
use super::{BenchError, Opened, Report, Settings, pull};

/// Sends of one round to one group.
const SENDS: usize = 2_000;
/// Feeds of the user whose unread is asked for.
const UNREAD_FEEDS: usize = 1_000;

/// The outcome of `bench cost`.
#[derive(Debug, serde::Serialize)]
pub(super) struct CostReport {
    /// Members of the large group.
    pub members: usize,
    /// Time per send to the large group over time per send to a group of two, one figure a round.
    pub large_over_small: Vec<f64>,
    /// Median of it.
    pub large_over_small_median: f64,
    /// Unread of one user over 1,000 feeds with one unread message each, milliseconds, median.
    pub unread_ms: f64,
    /// Messages of the disk row.
    pub messages: usize,
    /// Bytes on disk per message, compacted.
    pub disk_bytes_per_message: f64,
    /// Opening the clean store with all of it, milliseconds.
    pub open_full_ms: f64,
    /// Opening an empty store, milliseconds.
    pub open_empty_ms: f64,
}

/// Runs all of them.
pub(super) async fn run(settings: &Settings, dir: &Path) -> Result<CostReport, BenchError> {
    let opened = settings.open(&dir.join("members"))?;
    let large_over_small = by_members(&opened, settings).await?;
    let unread_ms = unread(&opened, settings).await?;
    opened.close().await;
    let open_empty_ms = timed_open(settings, &dir.join("empty")).await?;
    let disk = disk(settings, &dir.join("disk")).await?;
    let open_full_ms = timed_open(settings, &dir.join("disk")).await?;
    Ok(CostReport {
        members: settings.members,
        large_over_small_median: median(&large_over_small),
        large_over_small,
        unread_ms,
        messages: settings.messages,
        disk_bytes_per_message: disk,
        open_full_ms,
        open_empty_ms,
    })
}

async fn make_group(gate: &Gate, name: &str, members: usize) -> Result<FeedId, BenchError> {
    let feed = FeedId::parse(name).expect("bench names are valid");
    let create = CreateFeed {
        kind: FeedKind::Group,
        title: None,
        members: Vec::new(),
        join: JoinMode::Invite,
        history: HistoryMode::All,
        meta: None,
    };
    gate.submit(Command { feed: feed.clone(), action: Action::CreateFeed(create) }).await?;
    for chunk in (1..members).collect::<Vec<_>>().chunks(2_000) {
        let commands = chunk
            .iter()
            .map(|member| {
                let uid = Uid::parse(&format!("member-{member}")).expect("bench uids are valid");
                Command { feed: feed.clone(), action: Action::AddMember { uid, role: Role::Member } }
            })
            .collect();
        for answer in gate.submit_all(commands).await {
            answer?;
        }
    }
    Ok(feed)
}

async fn by_members(opened: &Opened, settings: &Settings) -> Result<Vec<f64>, BenchError> {
    let gate = opened.service.gate(user("owner"));
    let small = make_group(&gate, "bench/small", 2).await?;
    let large = make_group(&gate, "bench/large", settings.members).await?;
    let mut texts = Texts::new(settings.corpus.as_deref(), settings.payload_bytes, settings.seed)?;
    let mut number = 0_u64;
    let mut ratios = Vec::new();
    for round in 0..=settings.rounds {
        let mut times = [Duration::ZERO; 2];
        // In turn and in short pieces, so that both see the same machine.
        for _ in 0..20 {
            for (time, feed) in times.iter_mut().zip([&small, &large]) {
                let commands = (0..SENDS / 20)
                    .map(|_| {
                        number += 1;
                        message(feed, texts.next(), &format!("m{number}"))
                    })
                    .collect();
                let start = Instant::now();
                for answer in gate.submit_all(commands).await {
                    answer?;
                }
                *time += start.elapsed();
            }
        }
        if round > 0 {
            ratios.push(times[1].as_secs_f64() / times[0].as_secs_f64());
        }
    }
    Ok(ratios)
}

async fn unread(opened: &Opened, settings: &Settings) -> Result<f64, BenchError> {
    let mut texts = Texts::new(settings.corpus.as_deref(), settings.payload_bytes, settings.seed)?;
    let reader = Uid::parse("reader").expect("bench uids are valid");
    let writer = opened.service.gate(user("unread-writer"));
    for number in 0..UNREAD_FEEDS {
        let feed = make_group(&writer, &format!("bench/unread-{number}"), 1).await?;
        let add = Action::AddMember { uid: reader.clone(), role: Role::Member };
        writer.submit(Command { feed: feed.clone(), action: add }).await?;
        writer.submit(message(&feed, texts.next(), "one")).await?;
    }
    let reads = opened.service.gate(user("reader")).reads();
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let total = reads.unread()?;
        times.push(start.elapsed());
        if total.total != UNREAD_FEEDS as u64 {
            return Err(BenchError::Other(format!("unread is {}, not {UNREAD_FEEDS}", total.total)));
        }
    }
    Ok(percentile(&mut times, 50.0).as_secs_f64() * 1e3)
}

async fn disk(settings: &Settings, dir: &Path) -> Result<f64, BenchError> {
    let opened = settings.open(dir)?;
    let feeds = make_feeds(&opened.service, settings).await?;
    opened.storage.compact()?;
    let before = bytes_in(dir)?;
    pull::fill(&opened, settings, &feeds, settings.messages).await?;
    opened.storage.compact()?;
    let after = bytes_in(dir)?;
    opened.close().await;
    Ok(after.saturating_sub(before) as f64 / settings.messages as f64)
}

async fn timed_open(settings: &Settings, dir: &Path) -> Result<f64, BenchError> {
    settings.open(dir)?.close().await;
    let start = Instant::now();
    let opened = settings.open(dir)?;
    let took = start.elapsed();
    opened.close().await;
    Ok(took.as_secs_f64() * 1e3)
}

/// Bytes of all files but write-ahead logs, which hold nothing after a compaction and are kept to be reused.
fn bytes_in(dir: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        let kind = file.metadata()?;
        if kind.is_dir() {
            sum += bytes_in(&file.path())?;
        } else if file.path().extension().is_none_or(|extension| extension != "log") {
            sum += kind.len();
        }
    }
    Ok(sum)
}

impl Report for CostReport {
    fn lines(&self) -> Vec<String> {
        vec![
            format!(
                "send to {} members / send to 2 members: {:.3}",
                self.members, self.large_over_small_median
            ),
            format!("unread of one user over {UNREAD_FEEDS} feeds: {:.2} ms", self.unread_ms),
            format!(
                "disk per message, compacted ({} messages, all rows, hashes and dedup included): {:.1} bytes",
                self.messages, self.disk_bytes_per_message
            ),
            format!("open: {:.0} ms with all of them, {:.0} ms empty", self.open_full_ms, self.open_empty_ms),
        ]
    }
}
