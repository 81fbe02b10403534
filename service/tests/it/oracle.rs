//! The whole service against the naive oracle of the core, on every engine that is compiled in: random commands,
//! everything that can be asked, every row (P1, P3, P5 to P9). `FEEDLOG_SEED` repeats a run, `FEEDLOG_OPERATIONS` sets
//! its length on each engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use feedlog_core::command::{Command, Principal};
use feedlog_core::entry::Entry;
use feedlog_core::feed::Settings;
use feedlog_core::ids::{Digest, FeedId, SeqId, TimeMs, Uid};
use feedlog_core::policy::Denied;
use feedlog_core::read::{Owed, UnreadCount};
use feedlog_core::rows::{RowKey, RowValue};
use feedlog_core::sequencer::{Answer, Refusal};
use feedlog_core::testing::{Options, Played, System, run};
use feedlog_core::views::{ExplainedUnread, HistoryQuery, Page};
use feedlog_service::check::check_feed;
use feedlog_service::clock::{Clock, ManualClock};
use feedlog_service::{ReadError, Reads, Store, StoreConfig, SubmitError};
use feedlog_storage::{Direction, Engine, EngineKind, OpenOptions, Upcasters};

use crate::world::*;

const OPERATIONS_DEFAULT: u64 = 100_000;
const OPERATIONS_PER_WORLD: u64 = 2_500;

struct Service {
    runtime: tokio::runtime::Runtime,
    store: Store,
    engine: Arc<dyn Engine>,
    time: ManualClock,
    clock: Clock,
    settings: Settings,
    _dir: tempfile::TempDir,
}

impl Service {
    fn open(kind: EngineKind) -> Self {
        let (clock, time) = Clock::manual(NOW_MS);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let settings = Settings { recall_window_ms: 5_000, edit_window_ms: 5_000, ..Settings::default() };
        let config = StoreConfig {
            recall_window_ms: settings.recall_window_ms,
            clock: clock.clone(),
            // The oracle lets time pass and expires by itself.
            expire_every_ms: 60_000,
            // Merged moves are answered with one entry, which is not what the oracle expects of each.
            received_every_ms: 0,
            // Small enough that lanes and rows are dropped and loaded again all the time.
            feeds_cached_max: 2,
            rows_cached_max: 64,
            shards: 2,
            auth: Default::default(),
            ..StoreConfig::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let on_disk = (kind != EngineKind::Memory).then(|| dir.path().join("data"));
        let options = OpenOptions { dir: on_disk, engine: kind, ..OpenOptions::default() };
        let engine = feedlog_storage::open(&options, Upcasters::default()).unwrap().engine();
        let store = Store::open(config, engine.clone()).unwrap();
        Self { runtime, store, engine, time, clock, settings, _dir: dir }
    }

    /// Stops the service and closes the engine, so that its files can go.
    fn close(self) {
        assert!(self.runtime.block_on(self.store.drain(std::time::Duration::from_secs(60))));
    }

    fn reads(&self, uid: &Uid) -> Reads {
        self.store.gate(user(uid.as_str())).reads()
    }
}

impl System for Service {
    fn digest(&self) -> Digest {
        feedlog_storage::digest
    }

    fn settings(&self) -> Settings {
        self.settings
    }

    fn now_ms(&self) -> TimeMs {
        self.clock.now_ms()
    }

    fn advance(&mut self, ms: u64) {
        self.time.advance(ms);
    }

    fn submit(&mut self, commands: Vec<(Principal, Command)>) -> Vec<Answer> {
        let submits = commands.into_iter().map(|(principal, command)| {
            let gate = self.store.gate(principal);
            async move { gate.submit(command).await }
        });
        // Polled in order: each is handed over before the next.
        let answers = self.runtime.block_on(futures_util::future::join_all(submits));
        answers
            .into_iter()
            .map(|answer| match answer {
                Ok(receipt) => Answer::Done(receipt.done().clone()),
                Err(SubmitError::Denied(denied)) => Answer::Refused(Refusal::Denied(denied)),
                Err(SubmitError::Rejected(rejected)) => Answer::Refused(Refusal::Rejected(rejected)),
                Err(SubmitError::Unavailable(_) | SubmitError::RateLimited { .. }) => Answer::Retry,
                Err(SubmitError::Unknown) => Answer::Unknown,
            })
            .collect()
    }

    fn log(&mut self, feed: &FeedId, after: SeqId) -> Vec<Entry> {
        self.engine.read(feed, after.next(), SeqId::MAX, Direction::Forward, 1_000_000, 1 << 40).unwrap()
    }

    fn unread(&mut self, uid: &Uid, feed: &FeedId) -> UnreadCount {
        let reads = self.reads(uid);
        let unread = reads.unread_of(feed).unwrap().unread;
        // The total over all feeds says the same.
        let total = reads.unread().unwrap();
        let listed = total.feeds.iter().find(|row| row.feed == *feed);
        assert_eq!(listed.map_or((0, 0), |row| (row.unread, row.mentions)), (unread.unread, unread.mentions));
        assert_eq!(total.total, total.feeds.iter().map(|row| row.unread).sum::<u64>());
        UnreadCount { unread: unread.unread, mentions: unread.mentions }
    }

    fn explain(&mut self, uid: &Uid, feed: &FeedId) -> ExplainedUnread {
        self.reads(uid).unread_of(feed).unwrap()
    }

    fn unreplied(&mut self, uid: &Uid, feed: &FeedId) -> Option<Owed> {
        let rows = self.reads(uid).unreplied(1000).unwrap();
        let row = rows.into_iter().find(|row| row.feed == *feed)?;
        Some(Owed { seq: row.seq, from: row.from, waiting_since_ms: row.waiting_since_ms, count: row.count })
    }

    fn history(
        &mut self,
        principal: &Principal,
        feed: &FeedId,
        query: HistoryQuery,
        limit: usize,
    ) -> Result<Page, Denied> {
        match self.store.gate(principal.clone()).reads().history(feed, query, limit) {
            Ok(page) => Ok(page),
            Err(ReadError::Denied(denied)) => Err(denied),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn rows(&mut self) -> Option<BTreeMap<RowKey, RowValue>> {
        for feed in self.engine.feeds(None, 100_000).unwrap() {
            let report = check_feed(&*self.engine, &feed, &|| true).unwrap().unwrap();
            assert_eq!(report.problems, Vec::new());
        }
        None
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn the_service_agrees_with_the_oracle() {
    let seed = seed();
    for kind in EngineKind::ALL.into_iter().filter(|kind| kind.is_available()) {
        agrees(kind, seed);
    }
}

fn agrees(kind: EngineKind, seed: u64) {
    let operations = number("FEEDLOG_OPERATIONS").unwrap_or(OPERATIONS_DEFAULT);
    let mut total = Played::default();
    for world in 0..operations.div_ceil(OPERATIONS_PER_WORLD) {
        let options = Options {
            seed: seed.wrapping_add(world),
            operations: OPERATIONS_PER_WORLD.min(operations),
            prefix: String::new(),
            refusing: false,
        };
        let mut service = Service::open(kind);
        let played = run(&mut service, &options);
        service.close();
        total.appended += played.appended;
        total.repeated += played.repeated;
        total.refused += played.refused;
        total.entries += played.entries;
    }
    println!("{}: {operations} operations: {total:?}", kind.name());
    assert!(total.appended > operations / 3, "{total:?}");
}
