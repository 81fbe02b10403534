//! What do entries cost, in processor time and on disk? Run by hand, in release:
//! `cargo test -p feedlog-storage --release --features rocksdb,sled --test measure -- --ignored --nocapture`
//!
//! Back of an envelope: a commit of 64 groups hashes 64 × (200 + 150) bytes with BLAKE3 (0.5 µs), encodes and copies them
//! (0.5 µs), and makes three keys and values each (0.5 µs): under 3 µs per group beside the engine's own.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::{Event, FeedKind, HistoryMode, JoinMode, Message, MessageKind, Scope};
use feedlog_core::ids::{ClientMsgId, FeedId, Ordinal, SeqId, Uid};
use feedlog_core::rows::{Bits, DedupScope, RowKey, RowValue, UserCounts};
use feedlog_storage::{Direction, EngineKind, Group, LogPart, OpenOptions, Store, Upcasters, open};

const FEEDS: u64 = 10_000;
const MESSAGES: u64 = 400_000;
const BATCH: u64 = 64;

const WORDS: &str = "the of and to in is you that it he was for on are as with his they at be this have from or one had by \
    word but not what all were we when your can said there use an each which she do how their if will up other about out \
    many then them these so some her would make like him into time has look two more write go see number no way could \
    people my than first water been call who oil its now find long down day did get come made may part";

struct Story {
    seed: u64,
    words: Vec<&'static str>,
    feeds: Vec<FeedId>,
    users: Vec<Uid>,
    heads: Vec<u64>,
    own: Vec<UserCounts>,
}

impl Story {
    fn new() -> Self {
        Self {
            seed: 1,
            words: WORDS.split_whitespace().collect(),
            feeds: (0..FEEDS).map(|i| FeedId::parse(&format!("conversation-{i:06}")).unwrap()).collect(),
            users: (0..FEEDS).map(|i| Uid::parse(&format!("user{i:06}")).unwrap()).collect(),
            heads: vec![0; FEEDS as usize],
            own: vec![UserCounts::default(); FEEDS as usize],
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % end
    }

    /// English words, 200 bytes of JSON text.
    fn text(&mut self) -> Bytes {
        let mut text = String::from("\"");
        while text.len() < 199 {
            let at = self.below(self.words.len() as u64);
            text.push_str(self.words[at as usize]);
            text.push(' ');
        }
        text.truncate(199);
        text.push('"');
        text.into()
    }

    fn group(&mut self, number: u64, feed_at: usize) -> Group {
        let feed = self.feeds[feed_at].clone();
        let sender = self.users[feed_at].clone();
        let head = self.heads[feed_at];
        let mut entries = Vec::with_capacity(2);
        let mut entry = |seq: u64, event, payload| {
            entries.push(Entry {
                feed: feed.clone(),
                seq: SeqId(seq),
                ordinal: Ordinal(seq - 1),
                time_ms: 1_700_000_000_000 + number,
                sender: sender.clone(),
                event,
                payload,
            });
        };
        if head == 0 {
            let event = Event::FeedCreated {
                kind: FeedKind::Group,
                title: None,
                join: JoinMode::Open,
                history: HistoryMode::All,
                meta: None,
                pair: None,
            };
            entry(1, event, Payload::None);
        }
        let seq = head.max(1) + 1;
        let id = ClientMsgId::parse(&format!("m{number:012}")).unwrap();
        let text = self.text();
        let message = Message {
            kind: MessageKind::Text,
            content_type: Arc::from("application/json"),
            client_msg_id: Some(id.clone()),
            scope: Scope::Sender,
            reply_to: None,
            mentions: Vec::new(),
            to_reply: None,
            seen_seq: SeqId(seq - 1),
            sent_ms: None,
            expires_ms: None,
            auto: false,
            carried: Payload::None,
        };
        entry(seq, Event::MessageSent(message), Payload::Bytes(text));
        self.heads[feed_at] = seq;
        let own = &mut self.own[feed_at];
        own.own.insert(Ordinal((seq - 1) % 256));
        own.answered_seq = SeqId(seq - 1);
        if own.own == Bits::EMPTY {
            own.first_own_seq = SeqId(seq);
        }
        let rows = vec![
            (
                RowKey::Dedup(feed.clone(), DedupScope::Sender(sender.clone()), id),
                Some(RowValue::Seq(SeqId(seq))),
            ),
            (
                RowKey::UserCounts(feed.clone(), sender, (seq - 1) / 256),
                Some(RowValue::UserCounts(Box::new(*own))),
            ),
        ];
        Group {
            log: Some(LogPart { feed, expected: SeqId(head), entries, rows, strip: Vec::new() }),
            state: Vec::new(),
        }
    }
}

/// Processor time of this thread: a loaded machine does not change it.
fn cpu() -> std::time::Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    std::time::Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn disk_bytes(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                disk_bytes(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}

fn measure(engine: EngineKind) {
    let dir = tempfile::tempdir_in(std::env::var_os("MEASURE_DIR").unwrap_or("/tmp".into())).unwrap();
    let path = (engine != EngineKind::Memory).then(|| dir.path().join("store"));
    let options = OpenOptions { dir: path.clone(), engine, ..OpenOptions::default() };
    let store: Store = open(&options, Upcasters::default()).unwrap();
    let messages = if engine == EngineKind::Sled { MESSAGES / 8 } else { MESSAGES };
    let mut story = Story::new();
    let (mut commit_time, mut commit_cpu) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    let mut number = 0;
    while number < messages {
        let groups = (0..BATCH)
            .map(|_| {
                let at = story.below(FEEDS) as usize;
                number += 1;
                story.group(number, at)
            })
            .collect();
        let (started, busy) = (Instant::now(), cpu());
        let answers = store.engine().commit(groups);
        commit_time += started.elapsed();
        commit_cpu += cpu() - busy;
        assert!(answers.iter().all(Result::is_ok));
    }
    let per_message = |time: std::time::Duration| time.as_secs_f64() * 1e6 / messages as f64;
    let (wall, busy) = (per_message(commit_time), per_message(commit_cpu));
    println!("{engine:?}: commit {wall:.2} µs per group, {busy:.2} µs of processor");
    let pulls = 20_000;
    let busy = cpu();
    for _ in 0..pulls {
        let at = story.below(FEEDS) as usize;
        let feed = story.feeds[at].clone();
        let page =
            store.engine().read(&feed, SeqId(1), SeqId::MAX, Direction::Backward, 50, 1 << 20).unwrap();
        std::hint::black_box(page);
    }
    let each = (cpu() - busy).as_secs_f64() * 1e6 / f64::from(pulls);
    println!("{engine:?}: newest 50 of a random feed {each:.1} µs of processor");
    if let Some(path) = path {
        let before = disk_bytes(&path);
        store.compact().unwrap();
        let after = disk_bytes(&path);
        println!(
            "{engine:?}: {} bytes on disk per message, {} compacted",
            before / messages,
            after / messages
        );
        println!("{:?}", store.stats());
        store.engine().close().unwrap();
        drop(store);
        let started = Instant::now();
        let store = open(&options, Upcasters::default()).unwrap();
        println!(
            "{engine:?}: open {:.0} ms, {} on disk",
            started.elapsed().as_secs_f64() * 1e3,
            disk_bytes(&path) / messages
        );
        store.engine().close().unwrap();
    }
}

#[test]
#[ignore = "a measurement"]
fn figures() {
    for engine in [EngineKind::Memory, EngineKind::RocksDb, EngineKind::Sled] {
        if engine.is_available() {
            measure(engine);
        }
    }
}
