//! Question: how much of what the bare disk can do is left after authorize, decide, dedup, rows, hashes and index?
//!
//! Back of an envelope: one `fdatasync` takes a few hundred microseconds and carries everything that waits, so both
//! sides are bound by processor time per message once enough writers wait. The store does about ten times the work of
//! the yardstick per message, but the load generator's own tasks and wake-ups, which both pay, weigh as much.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use feedlog_core::command::{Action, Command, CreateFeed, Draft, Principal, Scopes};
use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, MessageKind};
use feedlog_core::ids::{ClientMsgId, FeedId, Uid};
use feedlog_service::{Gate, Store, SubmitError};

use super::load::{Round, drive};
use super::stats::{Random, median, percentile};
use super::text::Texts;
use super::yardstick::Yardstick;
use super::{BenchError, Report, Settings};

/// Payloads made before the clock starts; writers take them in turn.
const PAYLOADS: usize = 10_000;

/// One pair of rounds.
#[derive(Debug, serde::Serialize)]
pub(super) struct Pair {
    /// Durable appends per second of the bare file.
    pub yardstick_per_s: f64,
    /// Durable messages per second of the store.
    pub feedlog_per_s: f64,
    /// The second over the first.
    pub ratio: f64,
    /// Median `fdatasync` of the yardstick, microseconds.
    pub fdatasync_p50_us: f64,
    /// Median time from send to ack of the store, microseconds.
    pub ack_p50_us: f64,
    /// 99th percentile of it.
    pub ack_p99_us: f64,
    /// Median ack over median `fdatasync`.
    pub ack_over_sync: f64,
}

/// The outcome of `bench append`.
#[derive(Debug, serde::Serialize)]
pub(super) struct AppendReport {
    /// Every pair, in the order it ran.
    pub pairs: Vec<Pair>,
    /// Median of the pairs' ratios.
    pub ratio_median: f64,
    /// Median of the pairs' ack over fdatasync.
    pub ack_over_sync_median: f64,
}

/// A user's principal, as authentication would make it.
pub(super) fn user(uid: &str) -> Principal {
    Principal {
        uid: Uid::parse(uid).expect("bench uids are valid"),
        scopes: Scopes { user: true, ..Scopes::default() },
        anonymous: false,
        via: None,
    }
}

/// A text message with its own id.
pub(super) fn message(feed: &FeedId, payload: Bytes, id: &str) -> Command {
    let draft = Draft {
        client_msg_id: Some(ClientMsgId::parse(id).expect("bench ids are valid")),
        ..Draft::new(MessageKind::Text, Arc::from("application/json"), payload)
    };
    Command { feed: feed.clone(), action: Action::SendMessage(Box::new(draft)) }
}

/// Creates a direct feed between a writer and a peer of its own, for every feed. Feed `i` belongs to writer
/// `i % writers`.
pub(super) async fn make_feeds(store: &Store, settings: &Settings) -> Result<Vec<Vec<FeedId>>, BenchError> {
    let mut feeds: Vec<Vec<FeedId>> = vec![Vec::new(); settings.writers()];
    for (writer, own) in feeds.iter_mut().enumerate() {
        let gate = store.gate(user(&format!("writer-{writer}")));
        let mut commands = Vec::new();
        for peer in (writer..settings.feeds).step_by(settings.writers()) {
            let (me, peer) = (gate.principal().uid.clone(), Uid::parse(&format!("peer-{peer}")));
            let peer = peer.expect("bench uids are valid");
            let feed = FeedId::direct(&me, &peer, feedlog_storage::digest);
            let create = CreateFeed {
                kind: FeedKind::Direct,
                title: None,
                members: vec![me, peer],
                join: JoinMode::Invite,
                history: HistoryMode::All,
                meta: None,
            };
            commands.push(Command { feed: feed.clone(), action: Action::CreateFeed(create) });
            own.push(feed);
        }
        for answer in gate.submit_all(commands).await {
            answer?;
        }
    }
    Ok(feeds)
}

/// Runs the pairs.
pub(super) async fn run(settings: &Settings, dir: &Path) -> Result<AppendReport, BenchError> {
    let mut texts = Texts::new(settings.corpus.as_deref(), settings.payload_bytes, settings.seed)?;
    println_settings(settings, &texts.name);
    let payloads: Arc<Vec<Bytes>> = Arc::new((0..PAYLOADS).map(|_| texts.next()).collect());
    let opened = settings.open(&dir.join("store"))?;
    let store = &opened.service;
    let feeds = Arc::new(make_feeds(store, settings).await?);
    let gates: Arc<Vec<Gate>> =
        Arc::new((0..settings.writers()).map(|w| store.gate(user(&format!("writer-{w}")))).collect());

    let mut pairs = Vec::new();
    for round in 0..settings.rounds {
        let (mut bare, mut syncs) = yardstick(settings, dir, round, payloads.clone()).await?;
        let mut full = feedlog(settings, round, &gates, &feeds, &payloads).await?;
        let sync = percentile(&mut syncs, 50.0);
        let ack = percentile(&mut full.latencies, 50.0);
        let pair = Pair {
            yardstick_per_s: bare.rate(),
            feedlog_per_s: full.rate(),
            ratio: full.rate() / bare.rate(),
            fdatasync_p50_us: micros(sync),
            ack_p50_us: micros(ack),
            ack_p99_us: micros(percentile(&mut full.latencies, 99.0)),
            ack_over_sync: ack.as_secs_f64() / sync.as_secs_f64(),
        };
        if !settings.json {
            eprintln!(
                "round {round}: bare file {:8.0}/s (ack p50 {:5.0} µs, fdatasync p50 {:5.0} µs)   feedlog {:8.0}/s (ack p50 {:5.0} µs, p99 {:6.0} µs)   ratio {:.3}   ack/fdatasync {:.2}",
                pair.yardstick_per_s,
                micros(percentile(&mut bare.latencies, 50.0)),
                pair.fdatasync_p50_us,
                pair.feedlog_per_s,
                pair.ack_p50_us,
                pair.ack_p99_us,
                pair.ratio,
                pair.ack_over_sync
            );
        }
        pairs.push(pair);
    }
    drop(gates);
    opened.close().await;
    Ok(AppendReport {
        ratio_median: median(&pairs.iter().map(|p| p.ratio).collect::<Vec<_>>()),
        ack_over_sync_median: median(&pairs.iter().map(|p| p.ack_over_sync).collect::<Vec<_>>()),
        pairs,
    })
}

async fn yardstick(
    settings: &Settings,
    dir: &Path,
    round: usize,
    payloads: Arc<Vec<Bytes>>,
) -> Result<(Round, Vec<Duration>), BenchError> {
    let path = dir.join(format!("yardstick-{round}.log"));
    let (file, thread) = Yardstick::start(&path)?;
    let appender = file.clone();
    let measured = drive(settings.writers(), settings.lasting(), move |writer, n| {
        let (appender, payload) =
            (appender.clone(), payloads[(writer * 157 + n as usize) % payloads.len()].clone());
        async move { appender.append(payload.as_ref().into()).await }
    })
    .await?;
    drop(file);
    let report = thread.join().expect("the writing thread does not panic")?;
    std::fs::remove_file(&path)?;
    Ok((measured, report.syncs))
}

async fn feedlog(
    settings: &Settings,
    round: usize,
    gates: &Arc<Vec<Gate>>,
    feeds: &Arc<Vec<Vec<FeedId>>>,
    payloads: &Arc<Vec<Bytes>>,
) -> Result<Round, SubmitError> {
    let randoms: Arc<Vec<Mutex<Random>>> = Arc::new(
        (0..settings.writers()).map(|w| Mutex::new(Random::new(settings.seed + w as u64))).collect(),
    );
    let (gates, feeds, payloads) = (gates.clone(), feeds.clone(), payloads.clone());
    drive(settings.writers(), settings.lasting(), move |writer, n| {
        let pick = randoms[writer].lock().expect("no writer panics").below(feeds[writer].len());
        let payload = payloads[(writer * 157 + n as usize) % payloads.len()].clone();
        let command = message(&feeds[writer][pick], payload, &format!("{round}-{writer}-{n}"));
        let gates = gates.clone();
        async move { gates[writer].submit(command).await.map(drop) }
    })
    .await
}

fn println_settings(settings: &Settings, texts: &str) {
    if settings.json {
        return;
    }
    eprintln!(
        "bench append: engine {}, {} writers with one message in flight each, {}-byte payloads ({texts}), {} direct feeds, {} rounds of {} s, seed {}, sync on every commit",
        settings.engine_name(),
        settings.writers(),
        settings.payload_bytes,
        settings.feeds,
        settings.rounds,
        settings.seconds,
        settings.seed
    );
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Report for AppendReport {
    fn lines(&self) -> Vec<String> {
        let column = |pick: fn(&Pair) -> f64| median(&self.pairs.iter().map(pick).collect::<Vec<_>>());
        vec![
            format!(
                "medians of {} rounds: bare file {:.0}/s, feedlog {:.0}/s",
                self.pairs.len(),
                column(|pair| pair.yardstick_per_s),
                column(|pair| pair.feedlog_per_s)
            ),
            format!("feedlog / bare file: {:.3}", self.ratio_median),
            format!(
                "ack p50 {:.0} µs, p99 {:.0} µs, fdatasync p50 {:.0} µs, ack / fdatasync {:.2}",
                column(|pair| pair.ack_p50_us),
                column(|pair| pair.ack_p99_us),
                column(|pair| pair.fdatasync_p50_us),
                self.ack_over_sync_median
            ),
        ]
    }
}
