//! Data written by every version opens with today's code: the same entries, hashes and rows, and verify finds nothing
//! (P12).
//!
//! `golden/<version>/<engine>` are data directories. They are never edited; `cargo test -p feedlog-migrations --features … -- --ignored`
//! wrote them once, from `story`, and would write those of a new version beside them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use feedlog_core::entry::{Entry, Head, Payload};
use feedlog_core::event::{Event, FeedKind, HistoryMode, JoinMode, Message, MessageKind, Role, Scope};
use feedlog_core::ids::{ClientMsgId, FeedId, Ordinal, ReactionKey, SeqId, Uid};
use feedlog_core::projection::Fold;
use feedlog_core::rows::{RowKey, RowValue, Rows, RowsError};
use feedlog_storage::{
    Direction, Engine, EngineKind, Group, LogPart, OpenOptions, Record, RowRange, StateKey, StateTable, Store,
};

/// Which versions of the stored event there are in the data.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    V1,
    /// Messages carry something, and a front end keeps a row.
    V2,
}

fn golden(version: Version, engine: EngineKind) -> PathBuf {
    let version = match version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(version).join(engine.name())
}

fn on_disk() -> impl Iterator<Item = EngineKind> {
    [EngineKind::RocksDb, EngineKind::Sled].into_iter().filter(|kind| kind.is_available())
}

fn open(dir: &Path, engine: EngineKind) -> Store {
    let dir = Some(dir.to_owned());
    feedlog_migrations::open(&OpenOptions { dir, engine, node: 1, ..OpenOptions::default() }).unwrap()
}

fn uid(name: &str) -> Uid {
    Uid::parse(name).unwrap()
}

fn message(id: &str) -> Message {
    Message {
        kind: MessageKind::Text,
        content_type: Arc::from("application/json"),
        client_msg_id: ClientMsgId::parse(id).ok(),
        scope: Scope::Sender,
        reply_to: None,
        mentions: vec![],
        to_reply: None,
        seen_seq: SeqId(2),
        sent_ms: Some(1_700_000_000_000),
        expires_ms: None,
        auto: false,
        carried: Payload::None,
    }
}

/// Feeds of every kind, with what can happen in them.
fn story(version: Version) -> Vec<Vec<(Uid, Event, Payload)>> {
    let carrying = |id, bytes: &'static [u8]| {
        let carried =
            if version == Version::V1 { Payload::None } else { Payload::Bytes(Bytes::from_static(bytes)) };
        Event::MessageSent(Message { carried, ..message(id) })
    };
    let text = |text: &'static str| Payload::Bytes(Bytes::from_static(text.as_bytes()));
    let created = |kind, pair| Event::FeedCreated {
        kind,
        title: Some(Arc::from("a title")),
        join: JoinMode::Approval,
        history: HistoryMode::SinceJoin,
        meta: Some(Arc::from("{\"color\":\"blue\"}")),
        pair,
    };
    let (anna, bob) = (uid("anna"), uid("bob"));
    let group = feed("team");
    let mut group_story = vec![
        (anna.clone(), created(FeedKind::Group, None), Payload::None),
        (anna.clone(), Event::MemberJoined { uid: anna.clone(), role: Role::Owner }, Payload::None),
        (bob.clone(), Event::JoinRequested { reason: Some(Arc::from("please")) }, Payload::None),
        (anna.clone(), Event::JoinDecided { uid: bob.clone(), agreed: true }, Payload::None),
        (anna.clone(), Event::MemberJoined { uid: bob.clone(), role: Role::Member }, Payload::None),
        (anna.clone(), Event::MessageSent(message("1")), text("\"hello\"")),
        (
            bob.clone(),
            Event::MessageSent(Message {
                reply_to: Some(SeqId(6)),
                mentions: vec![anna.clone()],
                seen_seq: SeqId(6),
                to_reply: Some(true),
                ..message("2")
            }),
            text("{\"text\":\"hello yourself\"}"),
        ),
        (
            bob.clone(),
            Event::MessageSent(Message { expires_ms: Some(1_800_000_000_000), ..message("3") }),
            text("\"for a while\""),
        ),
        (
            bob.clone(),
            Event::MessageEdited { target: SeqId(7), content_type: Arc::from("text/plain") },
            text("edited"),
        ),
        (
            anna.clone(),
            Event::ReactionChanged { target: SeqId(7), key: ReactionKey::parse("👍").unwrap(), on: true },
            Payload::None,
        ),
        (
            anna.clone(),
            Event::MessageRecalled { target: SeqId(6), target_ordinal: Ordinal(1), reason: None },
            Payload::None,
        ),
        (anna.clone(), Event::HoldPlaced { hold: Arc::from("case 7") }, Payload::None),
        (anna.clone(), Event::RoleChanged { uid: bob.clone(), role: Role::Admin }, Payload::None),
    ];
    if version != Version::V1 {
        group_story.push((
            bob.clone(),
            carrying("4", b"\x01\x03\x00\x0atext/plain"),
            text("with properties"),
        ));
    }
    let direct_story = vec![
        (anna.clone(), created(FeedKind::Direct, Some((anna.clone(), bob.clone()))), Payload::None),
        (anna.clone(), carrying("1", b"\x01erased too"), text("\"\u{4f60}\u{597d}\"")),
        (
            anna.clone(),
            Event::MessagesErased { targets: vec![(SeqId(2), Ordinal(1))], reason: Some(Arc::from("law")) },
            Payload::None,
        ),
    ];
    let open_story = vec![
        (bob.clone(), created(FeedKind::Open, None), Payload::None),
        (
            bob.clone(),
            Event::MessageSent(Message { scope: Scope::Shared(Arc::from("gws")), ..message("1") }),
            text("{\"uuid\":1}"),
        ),
        (
            bob.clone(),
            Event::Broadcast { content_type: Arc::from("application/octet-stream") },
            text("\u{1}raw"),
        ),
    ];
    let personal_story = vec![
        (bob.clone(), created(FeedKind::Personal, None), Payload::None),
        (
            bob.clone(),
            Event::MarkMoved {
                feed: group.clone(),
                read: Some((SeqId(6), Ordinal(1))),
                received: Some(SeqId(8)),
            },
            Payload::None,
        ),
        (bob.clone(), Event::FeedPinned { feed: group.clone(), pinned: true }, Payload::None),
        (bob.clone(), Event::UnrepliedResolved { feed: group, upto: SeqId(6) }, Payload::None),
    ];
    vec![group_story, direct_story, open_story, personal_story]
}

fn feed(name: &str) -> FeedId {
    FeedId::parse(name).unwrap()
}

fn feeds() -> Vec<FeedId> {
    let direct = FeedId::direct(&uid("anna"), &uid("bob"), feedlog_storage::digest);
    vec![feed("team"), direct, feed("lobby"), FeedId::personal(&uid("bob"))]
}

/// The entries of the story with their places.
fn entries(version: Version) -> Vec<Vec<Entry>> {
    feeds()
        .into_iter()
        .zip(story(version))
        .map(|(feed, story)| {
            let mut ordinal = Ordinal(0);
            story
                .into_iter()
                .zip(1..)
                .map(|((sender, event, payload), seq)| {
                    if event.is_message() {
                        ordinal = ordinal.next();
                    }
                    let time_ms = 1_700_000_000_000 + 1000 * seq;
                    Entry { feed: feed.clone(), seq: SeqId(seq), ordinal, time_ms, sender, event, payload }
                })
                .collect()
        })
        .collect()
}

struct Gather<'a> {
    engine: &'a dyn Engine,
    own: Vec<(RowKey, Option<RowValue>)>,
}

fn failed(error: feedlog_storage::EngineError) -> RowsError {
    RowsError(Box::new(error))
}

impl Rows for Gather<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        match self.own.iter().rev().find(|(own, _)| own == key) {
            Some((_, value)) => Ok(value.clone()),
            None => self.engine.row(key).map_err(failed),
        }
    }
    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        self.engine.head(feed).map_err(failed)
    }
    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        let read = self.engine.read(feed, seq, seq, Direction::Forward, 1, 0);
        read.map(|mut entries| entries.pop()).map_err(failed)
    }
    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        self.own.push((key, value));
    }
}

/// Plays the story into an empty store.
fn write(version: Version, store: &Store) {
    let engine = store.engine();
    for entries in entries(version) {
        let mut fold = Fold::default();
        for entry in entries {
            let mut rows = Gather { engine: &*engine, own: Vec::new() };
            fold.apply(&entry, &mut rows).unwrap();
            let strip = match &entry.event {
                Event::MessagesErased { targets, .. } => targets.iter().map(|(seq, _)| *seq).collect(),
                _ => Vec::new(),
            };
            let part = LogPart {
                feed: entry.feed.clone(),
                expected: entry.seq.prev(),
                rows: rows.own,
                strip,
                entries: vec![entry],
            };
            let group = Group { log: Some(part), state: Vec::new() };
            engine.commit(vec![group]).into_iter().for_each(|answer| drop(answer.unwrap()));
        }
    }
    for (key, value) in states(version) {
        let group = Group { log: None, state: vec![(key, Some(value))] };
        engine.commit(vec![group]).into_iter().for_each(|answer| drop(answer.unwrap()));
    }
}

fn states(version: Version) -> Vec<(StateKey, Bytes)> {
    let row = |table, key: &[u8]| (StateKey { table, key: key.to_vec() }, Bytes::from_static(b"value"));
    match version {
        Version::V1 => vec![row(StateTable::Token, b"token")],
        Version::V2 => vec![row(StateTable::Token, b"token"), row(StateTable::FrontEnd, b"mqtt\0key")],
    }
}

fn records(store: &Store) -> Vec<Vec<Record>> {
    let all = |feed: &FeedId| store.engine().records(feed, SeqId(1), SeqId::MAX, 999, 1 << 20).unwrap();
    feeds().iter().map(all).collect()
}

fn rows(store: &Store) -> Vec<(RowKey, RowValue)> {
    let team = feed("team");
    let ranges = [
        RowRange::Members(team.clone()),
        RowRange::Counts(team.clone(), 0, 9),
        RowRange::UserCounts(team.clone(), uid("bob"), 0, 9),
        RowRange::Fates(team.clone(), SeqId(1), SeqId::MAX),
        RowRange::Reactions(team.clone(), SeqId(7)),
        RowRange::Expiries(u64::MAX),
        RowRange::UserFeeds(uid("bob")),
        RowRange::Places(uid("bob")),
        RowRange::Receipts(team),
    ];
    ranges
        .iter()
        .flat_map(|range| store.engine().rows(range, Direction::Forward, None, 99).unwrap())
        .collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn data_of_version_1_opens() {
    opens(Version::V1, 23);
}

#[test]
fn data_of_version_2_opens() {
    opens(Version::V2, 24);
}

fn opens(version: Version, entries: u64) {
    for engine in on_disk() {
        let dir = tempfile::tempdir().unwrap();
        copy(&golden(version, engine), &dir.path().join("store"));
        let old = open(&dir.path().join("store"), engine);
        let new = open(&dir.path().join("new"), engine);
        write(version, &new);
        assert_eq!(records(&old), records(&new), "{engine:?}");
        assert_eq!(rows(&old), rows(&new), "{engine:?}");
        assert!(rows(&old).len() >= 12, "{engine:?}");
        assert_eq!(old.engine().changes(0, 99).unwrap(), new.engine().changes(0, 99).unwrap());
        for (key, value) in states(version) {
            assert_eq!(old.engine().state(&key).unwrap(), Some(value), "{key:?}");
        }
        let report = old.verify(&mut |_| {}).unwrap();
        assert_eq!(report.damage, None, "{engine:?}");
        assert_eq!((report.feeds, report.entries), (4, entries));
        old.engine().close().unwrap();
        new.engine().close().unwrap();
    }
}

#[test]
fn there_is_an_upcaster_for_every_older_version_and_a_step_for_every_layout() {
    let versions = (feedlog_storage::EVENT_VERSION_OLDEST, feedlog_storage::EVENT_VERSION);
    assert_eq!(
        versions,
        (1, 2),
        "a new version needs golden bytes and this line, one no longer written an upcaster"
    );
    let numbers: Vec<u32> = feedlog_migrations::layout_steps().iter().map(|step| step.number()).collect();
    let expected: Vec<u32> = (2..2 + numbers.len() as u32).collect();
    assert_eq!(numbers, expected, "steps are numbered from 2 without gaps");
}

/// Writes the data of the current version; only where there is none.
#[test]
#[ignore = "writes golden data"]
fn write_golden_data() {
    let version = Version::V2;
    for engine in on_disk() {
        let dir = golden(version, engine);
        if dir.exists() {
            continue;
        }
        let scratch = tempfile::tempdir().unwrap();
        let store = open(&scratch.path().join("live"), engine);
        write(version, &store);
        store.engine().close().unwrap();
        drop(store);
        // Opened once more, so that everything lies in its place and not in a log.
        let store = open(&scratch.path().join("live"), engine);
        store.compact().unwrap();
        store.engine().backup(&dir).unwrap();
    }
}
