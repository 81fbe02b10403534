//! The cases of the suite.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use feedlog_core::entry::{Entry, Head, Payload};
use feedlog_core::event::{Event, FeedKind, Role};
use feedlog_core::ids::{ClientMsgId, FeedId, Ordinal, ReactionKey, SeqId};
use feedlog_core::projection::Fold;
use feedlog_core::rows::{
    Bits, Counts, DedupScope, Member, Place, Receipt, RowKey, RowValue, Rows, RowsError, UserCounts, UserFeed,
};

use super::Make;
use super::kit::{carrying, created, entry, feed, group, message, rows_group, sent, state_group, uid};
use crate::{
    Direction, Engine, EngineError, Group, LogPart, OpenError, RowRange, StateKey, StateTable, Store,
};

fn open(make: Make<'_>, dir: &Path) -> Store {
    make(dir).unwrap_or_else(|error| panic!("{error}"))
}

/// Commits groups that all must be taken.
fn commit(engine: &dyn Engine, groups: Vec<Group>) -> Vec<Vec<Entry>> {
    engine
        .commit(groups)
        .into_iter()
        .map(|result| result.unwrap_or_else(|e| panic!("{e}")).into_entries())
        .collect()
}

fn all(engine: &dyn Engine, feed: &FeedId) -> Vec<Entry> {
    engine
        .read(feed, SeqId::ZERO, SeqId::MAX, Direction::Forward, usize::MAX, usize::MAX)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A feed of `messages` messages, each payload its seq_id.
fn fill(engine: &dyn Engine, feed: &FeedId, messages: u64) -> Vec<Entry> {
    let mut entries = vec![created(feed)];
    entries.extend((2..2 + messages).map(|seq| sent(feed, seq, seq.to_string().as_bytes())));
    commit(engine, vec![group(entries.clone())]);
    entries
}

pub(super) fn appends_and_reads(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let (a, b) = (feed("a"), feed("b"));
    assert_eq!(engine.head(&a).unwrap(), Head::default());
    assert!(all(engine, &a).is_empty());
    assert_eq!(engine.commit_no(), 0);
    let first = vec![created(&a), sent(&a, 2, b"one")];
    let answers = engine.commit(vec![group(first.clone()), group(vec![created(&b)])]);
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers[0].entries(), first);
    assert_eq!(answers.iter().map(|c| c.commit_no()).collect::<Vec<_>>(), [1, 1]);
    commit(engine, vec![group(vec![sent(&a, 3, b"two")])]);
    assert_eq!(engine.commit_no(), 2);
    let three = vec![created(&a), sent(&a, 2, b"one"), sent(&a, 3, b"two")];
    assert_eq!(all(engine, &a), three);
    assert_eq!(engine.head(&a).unwrap(), Head::of(&three[2]));
    assert_eq!(engine.head(&b).unwrap(), Head::of(&created(&b)));
    assert!(engine.commit(vec![]).is_empty());
    assert_eq!(engine.commit_no(), 2);
    engine.close().unwrap();
}

/// These cases write no projected rows: a rebuild adds them, then everything must be right.
fn assert_sound(store: &Store) {
    store.rebuild(&mut |_| {}).unwrap();
    assert_eq!(store.verify(&mut |_| {}).unwrap().damage, None);
}

pub(super) fn pages(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let a = feed("a");
    // Neighbours in the tables must not show.
    fill(engine, &feed("before"), 3);
    let entries = fill(engine, &a, 9);
    fill(engine, &feed("after"), 3);
    let read = |from, to, direction, max, bytes| {
        let page = engine.read(&a, SeqId(from), SeqId(to), direction, max, bytes).unwrap();
        page.iter().map(|entry| entry.seq.0).collect::<Vec<_>>()
    };
    use Direction::{Backward, Forward};
    assert_eq!(read(0, 99, Forward, 99, 999), (1..=10).collect::<Vec<_>>());
    assert_eq!(read(3, 5, Forward, 99, 999), [3, 4, 5]);
    assert_eq!(read(3, 5, Backward, 99, 999), [5, 4, 3]);
    assert_eq!(read(1, SeqId::MAX.0, Backward, 3, 999), [10, 9, 8]);
    assert_eq!(read(1, u64::MAX, Backward, 1, 999), [10]);
    assert_eq!(read(4, 9, Forward, 2, 999), [4, 5]);
    assert_eq!(read(10, 10, Forward, 2, 999), [10]);
    assert!(read(11, 99, Forward, 2, 999).is_empty());
    assert!(read(5, 4, Forward, 2, 999).is_empty());
    assert!(read(1, 9, Forward, 0, 999).is_empty());
    // Payloads have one byte; entry 1 has none. At least one entry, then as many as fit.
    assert_eq!(read(2, 9, Forward, 99, 3), [2, 3, 4]);
    assert_eq!(read(2, 9, Forward, 99, 0), [2]);
    assert_eq!(read(1, 9, Forward, 99, 1), [1, 2]);
    assert_eq!(all(engine, &a), entries);
    engine.close().unwrap();
}

fn refused(engine: &dyn Engine, group: Group) -> EngineError {
    let mut answers = engine.commit(vec![group]);
    answers.pop().expect("one answer").expect_err("the group must be refused")
}

pub(super) fn moved_heads(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let (a, b) = (feed("a"), feed("b"));
    let entries = fill(engine, &a, 2);
    let moved = |error| matches!(error, EngineError::HeadMoved { head: SeqId(3) });
    assert!(moved(refused(engine, group(vec![created(&a)]))));
    assert!(moved(refused(engine, group(vec![sent(&a, 3, b"x")]))));
    assert!(moved(refused(engine, group(vec![sent(&a, 5, b"x")]))));
    assert!(matches!(
        refused(engine, group(vec![sent(&b, 5, b"x")])),
        EngineError::HeadMoved { head: SeqId(0) }
    ));
    // A refused group leaves nothing, not even its rows and its state, and others of the commit go on.
    let mut bad = state_group(b"k", Some(b"v"));
    bad.log = group(vec![sent(&a, 9, b"x")]).log;
    let answers = engine.commit(vec![bad, group(vec![created(&b)]), group(vec![sent(&a, 4, b"x")])]);
    assert!(matches!(answers[0], Err(EngineError::HeadMoved { head: SeqId(3) })));
    assert!(answers[1].is_ok());
    // Later ones of the same feed rest on the refused one.
    assert!(matches!(answers[2], Err(EngineError::HeadMoved { head: SeqId(3) })));
    assert_eq!(all(engine, &a), entries);
    assert_eq!(engine.state(&StateKey { table: StateTable::Checkpoint, key: b"k".to_vec() }).unwrap(), None);
    // In the next commit all is new.
    commit(engine, vec![group(vec![sent(&a, 4, b"x")])]);
    engine.close().unwrap();
}

pub(super) fn bad_groups(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let (a, b) = (feed("a"), feed("b"));
    fill(engine, &a, 2);
    let before = engine.commit_no();
    let change = |change: &dyn Fn(&mut LogPart)| {
        let mut group = group(vec![sent(&a, 4, b"x"), sent(&a, 5, b"y")]);
        change(group.log.as_mut().expect("made with a log"));
        group
    };
    let other = Some(RowValue::Seq(SeqId(1)));
    let dedup = |feed: &FeedId| {
        RowKey::Dedup(feed.clone(), DedupScope::Sender(uid("x")), ClientMsgId::parse("1").unwrap())
    };
    let cases: Vec<Group> = vec![
        change(&|part| part.entries[1].seq = SeqId(6)),
        change(&|part| part.entries[1].feed = feed("b")),
        change(&|part| part.entries[1].ordinal = Ordinal(9)),
        change(&|part| part.entries[0].ordinal = Ordinal(2)),
        change(&|part| part.entries[1].time_ms = 5),
        change(&|part| part.entries[0].time_ms = 5),
        change(&|part| part.rows.push((dedup(&b), other.clone()))),
        change(&|part| part.rows.push((RowKey::UserFeed(uid("x"), feed("b")), None))),
        change(&|part| part.rows.push((RowKey::Place(uid("x"), feed("a")), None))),
        change(&|part| part.rows.push((RowKey::Member(feed("a"), uid("x")), other.clone()))),
        change(&|part| part.strip.push(SeqId(4))),
        change(&|part| part.strip.push(SeqId(0))),
        change(&|part| {
            part.feed = feed("absent");
            part.expected = SeqId(0);
            part.entries.clear();
            part.rows.push((RowKey::UserFeed(uid("x"), feed("absent")), None));
        }),
    ];
    for (i, bad) in cases.into_iter().enumerate() {
        let error = refused(engine, bad);
        assert!(matches!(error, EngineError::BadGroup(_)), "case {i}: {error}");
    }
    assert_eq!(engine.commit_no(), before);
    assert_eq!(engine.head(&a).unwrap().seq, SeqId(3));
    assert_eq!(engine.feeds(None, 9).unwrap(), [a]);
    engine.close().unwrap();
}

pub(super) fn groups_build_on_each_other(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let a = feed("a");
    let row = RowKey::Fate(a.clone(), SeqId(2));
    let value = |seq| {
        Some(RowValue::Fate(Box::new(feedlog_core::rows::Fate {
            edited: Some(SeqId(seq)),
            ..Default::default()
        })))
    };
    let answers = engine.commit(vec![
        group(vec![created(&a), sent(&a, 2, b"1")]),
        rows_group(sent(&a, 3, b"2"), vec![(row.clone(), value(3))]),
        group(vec![sent(&a, 3, b"stale")]),
        group(vec![sent(&a, 4, b"3")]),
    ]);
    assert!(answers[0].is_ok() && answers[1].is_ok());
    for refused in &answers[2..] {
        assert!(matches!(refused, Err(EngineError::HeadMoved { head: SeqId(3) })));
    }
    commit(
        engine,
        vec![
            rows_group(sent(&a, 4, b"3"), vec![(row.clone(), value(4))]),
            rows_group(sent(&a, 5, b"4"), vec![(row.clone(), value(5))]),
        ],
    );
    assert_eq!(engine.row(&row).unwrap(), value(5), "the last one wins");
    assert_eq!(all(engine, &a).len(), 5);
    assert_eq!(engine.changes(0, 9).unwrap()[1].feeds, [(a, SeqId(4), SeqId(5))]);
    engine.close().unwrap();
}

fn sample_rows(a: &FeedId) -> Vec<(RowKey, RowValue)> {
    let member = |joined| {
        RowValue::Member(Member {
            role: Role::Member,
            joined_seq: SeqId(joined),
            joined_ordinal: Ordinal(0),
            joined_ms: 1,
        })
    };
    let mut bits = Bits::EMPTY;
    bits.insert(Ordinal(77));
    let counts = |_| RowValue::Counts(Box::new(Counts { gone: bits, ..Counts::default() }));
    let user_counts = |_| RowValue::UserCounts(Box::new(UserCounts { own: bits, ..UserCounts::default() }));
    let mut rows = Vec::new();
    for name in ["anna", "bob", "bo", "zoë", "b"] {
        rows.push((RowKey::Member(a.clone(), uid(name)), member(3)));
        rows.push((
            RowKey::UserFeed(uid(name), a.clone()),
            RowValue::UserFeed(UserFeed {
                kind: FeedKind::Open,
                since_ordinal: Ordinal(0),
                since_seq: SeqId(1),
            }),
        ));
        for block in [0, 1, 255, 256, 70_000] {
            rows.push((RowKey::UserCounts(a.clone(), uid(name), block), user_counts(block)));
        }
        for seq in [2, 300] {
            let key = RowKey::Reaction(a.clone(), SeqId(seq), ReactionKey::parse("+1").unwrap(), uid(name));
            rows.push((key, RowValue::Seq(SeqId(9))));
        }
    }
    for block in [0, 1, 255, 256, 70_000] {
        rows.push((RowKey::Counts(a.clone(), block), counts(block)));
    }
    for (time, seq) in [(5, 2), (5, 3), (7, 4), (1 << 40, 300)] {
        rows.push((RowKey::Expiry(time, a.clone(), SeqId(seq)), RowValue::Seq(SeqId(seq))));
    }
    rows
}

pub(super) fn rows_and_ranges(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let (a, b) = (feed("a"), feed("b"));
    let rows = sample_rows(&a);
    let put = |rows: &[(RowKey, RowValue)]| {
        rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect::<Vec<_>>()
    };
    commit(engine, vec![rows_group(created(&a), put(&rows)), rows_group(created(&b), put(&sample_rows(&b)))]);
    for (key, value) in &rows {
        assert_eq!(engine.row(key).unwrap().as_ref(), Some(value), "{key:?}");
    }
    assert_eq!(engine.row(&RowKey::Member(a.clone(), uid("nobody"))).unwrap(), None);
    assert_eq!(engine.row(&RowKey::Member(feed("absent"), uid("bob"))).unwrap(), None);
    let keys = |range: &RowRange, direction, after: Option<&RowKey>, limit| {
        let rows = engine.rows(range, direction, after, limit).unwrap();
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    use Direction::{Backward, Forward};
    let members: Vec<_> =
        ["anna", "b", "bo", "bob", "zoë"].map(|name| RowKey::Member(a.clone(), uid(name))).to_vec();
    let range = RowRange::Members(a.clone());
    assert_eq!(keys(&range, Forward, None, 99), members);
    assert_eq!(keys(&range, Forward, None, 2), members[..2]);
    assert_eq!(keys(&range, Forward, Some(&members[1]), 2), members[2..4]);
    assert_eq!(keys(&range, Backward, Some(&members[1]), 9), members[..1]);
    assert_eq!(keys(&range, Backward, None, 2), [members[4].clone(), members[3].clone()]);
    assert!(keys(&range, Forward, Some(&members[4]), 9).is_empty());
    assert!(keys(&range, Forward, None, 0).is_empty());
    assert!(keys(&RowRange::Members(feed("absent")), Forward, None, 9).is_empty());
    let blocks = |uid_, from, to| {
        keys(&RowRange::UserCounts(a.clone(), uid(uid_), from, to), Forward, None, 99)
            .into_iter()
            .map(|key| match key {
                RowKey::UserCounts(_, _, block) => block,
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(blocks("bo", 0, u64::MAX), [0, 1, 255, 256, 70_000]);
    assert_eq!(blocks("bo", 1, 256), [1, 255, 256]);
    assert!(blocks("bo", 2, 254).is_empty());
    // From one user to the next, however many blocks each has.
    let users = RowRange::AllUserCounts(a.clone());
    let mut after = None;
    let mut found = Vec::new();
    while let Some(RowKey::UserCounts(_, next, _)) = keys(&users, Forward, after.as_ref(), 1).pop() {
        after = Some(RowKey::UserCounts(a.clone(), next.clone(), u64::MAX));
        found.push(next);
    }
    let whole = keys(&users, Forward, None, 999).into_iter().map(|key| match key {
        RowKey::UserCounts(_, user, _) => user,
        other => panic!("{other:?}"),
    });
    let mut whole: Vec<_> = whole.collect();
    whole.dedup();
    assert_eq!(found, whole);
    assert!(found.contains(&uid("bo")) && found.is_sorted());
    assert_eq!(keys(&RowRange::Counts(a.clone(), 1, 256), Backward, None, 99).len(), 3);
    assert_eq!(keys(&RowRange::Reactions(a.clone(), SeqId(300)), Forward, None, 99).len(), 5);
    let user_feeds: Vec<_> = [&a, &b].map(|feed| RowKey::UserFeed(uid("bo"), feed.clone())).to_vec();
    assert_eq!(keys(&RowRange::UserFeeds(uid("bo")), Forward, None, 99), user_feeds);
    let expiry = |time, feed: &FeedId, seq| RowKey::Expiry(time, feed.clone(), SeqId(seq));
    assert_eq!(
        keys(&RowRange::Expiries(7), Forward, None, 99),
        [
            expiry(5, &a, 2),
            expiry(5, &a, 3),
            expiry(5, &b, 2),
            expiry(5, &b, 3),
            expiry(7, &a, 4),
            expiry(7, &b, 4)
        ]
    );
    assert_eq!(keys(&RowRange::Expiries(7), Forward, Some(&expiry(5, &b, 2)), 1), [expiry(5, &b, 3)]);
    assert!(keys(&RowRange::Expiries(4), Forward, None, 99).is_empty());
    // Marks: written by the personal feed, found by user and by feed.
    let personal = FeedId::personal(&uid("bo"));
    let (place, receipt) = (RowKey::Place(uid("bo"), a.clone()), RowKey::Receipt(a.clone(), uid("bo")));
    commit(
        engine,
        vec![rows_group(
            created(&personal),
            vec![
                (place.clone(), Some(RowValue::Place(Place { pinned: true, ..Place::default() }))),
                (receipt.clone(), Some(RowValue::Receipt(Receipt { read_ms: 5, ..Receipt::default() }))),
            ],
        )],
    );
    assert_eq!(keys(&RowRange::Places(uid("bo")), Forward, None, 99), [place]);
    assert_eq!(keys(&RowRange::Receipts(a.clone()), Forward, None, 99), [receipt]);
    // Removed.
    commit(engine, vec![rows_group(sent(&a, 2, b"x"), vec![(members[1].clone(), None)])]);
    assert_eq!(engine.row(&members[1]).unwrap(), None);
    assert_eq!(keys(&range, Forward, None, 99).len(), 4);
    engine.close().unwrap();
}

/// A prefix bounds what is read on both sides, also where it ends with the largest byte.
fn prefixes(engine: &dyn Engine) {
    let rows = [&b"a"[..], b"b\0", b"b\0x", b"b\0\xff", b"b\0\xff\xff", b"b\x01", b"c"];
    let group = |key: &[u8]| Group {
        log: None,
        state: vec![(StateKey { table: StateTable::FrontEnd, key: key.to_vec() }, Some(Bytes::new()))],
    };
    commit(engine, rows.into_iter().map(group).collect());
    let names = |prefix: &[u8], after: Option<&[u8]>, limit| {
        let rows = engine.states(StateTable::FrontEnd, prefix, after, limit).unwrap();
        rows.into_iter().map(|(key, _)| key.key).collect::<Vec<_>>()
    };
    assert_eq!(names(b"", None, 99), rows);
    assert_eq!(names(b"b\0", None, 99), rows[1..5]);
    assert_eq!(names(b"b\0", None, 2), rows[1..3]);
    assert_eq!(names(b"b\0", Some(b"b\0x"), 99), rows[3..5]);
    assert_eq!(names(b"b\0", Some(b"a"), 99), rows[1..5], "what is before the prefix is not read");
    assert_eq!(names(b"b\0", Some(b"c"), 99), [b""; 0]);
    assert_eq!(names(b"b\0\xff", None, 99), rows[3..5]);
    assert_eq!(names(b"d", None, 99), [b""; 0]);
}

pub(super) fn state(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let token = StateKey { table: StateTable::Token, key: b"k1".to_vec() };
    let group = |key: &StateKey, value: Option<&'static [u8]>| Group {
        log: None,
        state: vec![(key.clone(), value.map(Bytes::from_static))],
    };
    commit(
        engine,
        vec![
            state_group(b"k1", Some(b"1")),
            state_group(b"k2", Some(b"2")),
            state_group(b"", Some(b"0")),
            group(&token, Some(b"secret")),
        ],
    );
    assert_eq!(engine.commit_no(), 0, "only entries are numbered");
    let names = |after: Option<&[u8]>, limit| {
        let rows = engine.states(StateTable::Checkpoint, &[], after, limit).unwrap();
        rows.into_iter().map(|(key, _)| key.key).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 9), [&b""[..], b"k1", b"k2"]);
    assert_eq!(names(Some(b""), 1), [b"k1"]);
    assert_eq!(names(Some(b"k1"), 9), [b"k2"]);
    prefixes(engine);
    assert_eq!(engine.state(&token).unwrap().as_deref(), Some(&b"secret"[..]));
    commit(engine, vec![group(&token, None), state_group(b"k1", Some(b"3"))]);
    assert_eq!(engine.state(&token).unwrap(), None);
    let rows = engine.states(StateTable::Checkpoint, &[], None, 2).unwrap();
    assert_eq!(&*rows[1].1, b"3");
    engine.close().unwrap();
    drop(store);
    let store = open(make, dir);
    assert_eq!(store.engine().states(StateTable::Checkpoint, &[], None, 9).unwrap().len(), 3);
    store.engine().close().unwrap();
}

pub(super) fn names_of_feeds(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let longest = "x".repeat(255);
    let names = ["b", "a", "é", "b/c", &longest, "0"];
    for name in names {
        fill(engine, &feed(name), 1);
    }
    let mut sorted: Vec<_> = names.iter().map(|name| feed(name)).collect();
    sorted.sort();
    assert_eq!(engine.feeds(None, 99).unwrap(), sorted);
    assert_eq!(engine.feeds(None, 2).unwrap(), sorted[..2]);
    assert_eq!(engine.feeds(Some(&sorted[1]), 2).unwrap(), sorted[2..4]);
    assert_eq!(engine.feeds(Some(&feed("b/")), 9).unwrap(), sorted[3..]);
    for name in &sorted {
        assert_eq!(engine.head(name).unwrap().seq, SeqId(2));
    }
    engine.close().unwrap();
}

pub(super) fn changes(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let (a, b) = (feed("a"), feed("b"));
    fill(engine, &a, 1);
    commit(engine, vec![group(vec![sent(&a, 3, b"x"), sent(&a, 4, b"y")]), group(vec![created(&b)])]);
    commit(engine, vec![state_group(b"k", Some(b"v"))]);
    (5..9).for_each(|seq| {
        commit(engine, vec![group(vec![sent(&a, seq, b"z")])]);
    });
    let all = engine.changes(0, 99).unwrap();
    assert_eq!(all.iter().map(|change| change.commit_no).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(all[1].feeds, [(a.clone(), SeqId(3), SeqId(4)), (b, SeqId(1), SeqId(1))]);
    assert_eq!(engine.changes(2, 2).unwrap(), all[2..4]);
    assert!(engine.changes(6, 9).unwrap().is_empty());
    assert!(engine.changes(u64::MAX, 9).unwrap().is_empty());
    engine.prune_changes(3).unwrap();
    assert_eq!(engine.changes(0, 9).unwrap(), all[3..]);
    engine.prune_changes(99).unwrap();
    assert_eq!(engine.changes(0, 9).unwrap(), all[5..], "the newest stays: it tells the next number");
    engine.close().unwrap();
    drop(store);
    let store = open(make, dir);
    let engine = &*store.engine();
    commit(engine, vec![group(vec![sent(&a, 9, b"z")])]);
    assert_eq!(engine.commit_no(), 7);
    assert_sound(&store);
    engine.close().unwrap();
}

pub(super) fn strip(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let a = feed("a");
    fill(engine, &a, 3);
    let before = engine.records(&a, SeqId(1), SeqId::MAX, 99, 999).unwrap();
    let strip = |entries: Vec<Entry>, expected, strip: &[u64]| Group {
        log: Some(LogPart {
            feed: a.clone(),
            expected: SeqId(expected),
            entries,
            rows: Vec::new(),
            strip: strip.iter().map(|seq| SeqId(*seq)).collect(),
        }),
        state: Vec::new(),
    };
    // Of a durable entry, of one of the same commit, twice, and of one without a payload.
    commit(
        engine,
        vec![
            group(vec![carrying(&a, 5, b"short-lived", b"as this")]),
            strip(vec![sent(&a, 6, b"x")], 5, &[1, 3, 5]),
            strip(vec![], 6, &[3]),
        ],
    );
    let after = engine.records(&a, SeqId(1), SeqId::MAX, 99, 999).unwrap();
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(
            (old.chain_hash, old.payload_hash, old.commit_no),
            (new.chain_hash, new.payload_hash, new.commit_no)
        );
    }
    let hash = |bytes: &[u8]| Payload::Stripped { hash: crate::digest(bytes) };
    assert_eq!(after[0].entry.payload, Payload::None);
    assert_eq!(after[1].entry.payload, Payload::Bytes(Bytes::from_static(b"2")));
    assert_eq!(after[2].entry.payload, hash(b"3"));
    assert_eq!(after[4].entry.payload, hash(b"short-lived"));
    assert_eq!(after[4].entry.message().unwrap().carried, hash(b"as this"));
    assert_sound(&store); // the chain holds without the payloads
    engine.close().unwrap();
}

pub(super) fn proofs(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let a = feed("a");
    let entries = fill(engine, &a, 4);
    commit(engine, vec![group(vec![carrying(&a, 6, b"later", b"props")])]);
    let records = engine.records(&a, SeqId(1), SeqId::MAX, 99, 999).unwrap();
    assert_eq!(records.len(), 6);
    assert_eq!(records.iter().map(|r| r.version).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 2]);
    let mut previous = [0; 32];
    for record in &records {
        let payload = record.entry.payload.bytes().map_or(&b""[..], |bytes| bytes);
        assert_eq!(record.payload_hash, crate::digest(payload));
        let chain = crate::chain_hash(&record.entry, record.version, &record.payload_hash, &previous);
        assert_eq!(chain, Some(record.chain_hash));
        previous = record.chain_hash;
    }
    assert_eq!(records.iter().map(|r| r.commit_no).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 2]);
    assert_eq!(records[..5].iter().map(|r| r.entry.clone()).collect::<Vec<_>>(), entries);
    assert_eq!(engine.records(&a, SeqId(2), SeqId(9), 2, 999).unwrap(), records[1..3]);
    engine.close().unwrap();
}

pub(super) fn opened_again(make: Make<'_>, dir: &Path) {
    let (a, b) = (feed("a"), feed("b"));
    let mut expected = Vec::new();
    // Twice with a clean end, the rest dropped without one: what was answered is there all the same.
    for round in 0..5_u64 {
        let row = RowKey::Fate(a.clone(), SeqId(round + 2));
        let fate = feedlog_core::rows::Fate { edited: Some(SeqId(9)), ..Default::default() };
        let value = RowValue::Fate(Box::new(fate));
        {
            let engine = open(make, dir).engine();
            assert_eq!(all(&*engine, &a), expected);
            assert_eq!(engine.commit_no(), round * 2);
            let next = expected.len() as u64 + 1;
            let first = if round == 0 { created(&a) } else { sent(&a, next, b"first") };
            let new = vec![first, sent(&a, next + 1, &vec![b'x'; 3000 * round as usize])];
            let mut both = group(new.clone());
            both.log.as_mut().expect("made with a log").rows.push((row.clone(), Some(value.clone())));
            commit(&*engine, vec![both]);
            let other = engine.head(&b).unwrap().seq.next().0;
            let other = if other == 1 { created(&b) } else { sent(&b, other, b"") };
            commit(&*engine, vec![group(vec![other])]);
            expected.extend(new);
            if round < 2 {
                engine.close().unwrap();
            }
        }
        let engine = open(make, dir).engine();
        assert_eq!(all(&*engine, &a), expected);
        assert_eq!(engine.row(&row).unwrap(), Some(value));
        assert_eq!(engine.head(&a).unwrap(), Head::of(&expected[expected.len() - 1]));
    }
}

pub(super) fn backup_while_writing(make: Make<'_>, dir: &Path) {
    let store = open(make, &dir.join("live"));
    let engine = store.engine();
    let a = feed("a");
    fill(&*engine, &a, 200);
    commit(&*engine, vec![state_group(b"k", Some(b"v"))]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (engine, stop, a) = (engine.clone(), stop.clone(), a.clone());
        move || {
            let mut seq = 202;
            while !stop.load(Ordering::Relaxed) {
                commit(&*engine, vec![group(vec![sent(&a, seq, b"more")])]);
                seq += 1;
            }
        }
    });
    let acknowledged = engine.head(&a).unwrap().seq;
    engine.backup(&dir.join("copy")).unwrap();
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer does not panic");
    assert!(engine.backup(&dir.join("copy")).is_err(), "never over something");
    let copy = open(make, &dir.join("copy"));
    let entries = all(&*copy.engine(), &a);
    assert!(entries.len() as u64 >= acknowledged.0);
    assert_eq!(entries, all(&*engine, &a)[..entries.len()]);
    assert_sound(&copy);
    let checkpoint = StateKey { table: StateTable::Checkpoint, key: b"k".to_vec() };
    assert_eq!(copy.engine().state(&checkpoint).unwrap().as_deref(), Some(&b"v"[..]));
    commit(&*copy.engine(), vec![group(vec![sent(&a, entries.len() as u64 + 1, b"own")])]);
    copy.engine().close().unwrap();
    engine.close().unwrap();
}

pub(super) fn readers_while_writing(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = store.engine();
    let feeds: Vec<FeedId> = (0..3).map(|i| feed(&format!("feed-{i}"))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (engine, stop, feeds) = (engine.clone(), stop.clone(), feeds.clone());
            std::thread::spawn(move || {
                let mut seen = vec![0; feeds.len()];
                while !stop.load(Ordering::Relaxed) {
                    for (feed, seen) in feeds.iter().zip(&mut seen) {
                        let head = engine.head(feed).unwrap();
                        assert!(head.seq.0 >= *seen, "a head went back");
                        *seen = head.seq.0;
                        let entries = all(&*engine, feed);
                        assert!(entries.len() as u64 >= head.seq.0, "a durable entry is missing");
                        assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq.0 == seq), "a gap");
                        // The row is written with the entry: never behind it.
                        let row = engine.row(&RowKey::Fate(feed.clone(), SeqId(1))).unwrap();
                        let edited = row.and_then(RowValue::into_fate).and_then(|fate| fate.edited);
                        assert!(edited.unwrap_or_default() >= head.seq, "a row is behind its entry");
                    }
                }
            })
        })
        .collect();
    for round in 0..60 {
        let groups = feeds
            .iter()
            .map(|feed| {
                let entry = if round == 0 { created(feed) } else { sent(feed, round + 1, b"x") };
                let fate = feedlog_core::rows::Fate { edited: Some(entry.seq), ..Default::default() };
                let key = RowKey::Fate(feed.clone(), SeqId(1));
                rows_group(entry, vec![(key, Some(RowValue::Fate(Box::new(fate))))])
            })
            .collect();
        commit(&*engine, groups);
        for feed in &feeds {
            assert_eq!(engine.head(feed).unwrap().seq.0, round + 1, "a read after Ok sees it");
        }
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().expect("a reader saw what must not be"));
    engine.close().unwrap();
}

pub(super) fn closed(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let a = feed("a");
    fill(engine, &a, 1);
    engine.close().unwrap();
    engine.close().unwrap();
    assert!(matches!(engine.head(&a), Err(EngineError::Closed)));
    assert!(matches!(engine.feeds(None, 1), Err(EngineError::Closed)));
    assert!(matches!(engine.prune_changes(1), Err(EngineError::Closed)));
    assert!(matches!(refused(engine, group(vec![sent(&a, 3, b"x")])), EngineError::Closed));
}

pub(super) fn one_holder(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    assert!(matches!(make(dir), Err(OpenError::Locked(_))));
    store.engine().close().unwrap();
    let again = open(make, dir);
    again.engine().close().unwrap();
}

/// Rows of a projection on the way to the engine.
struct Gather<'a> {
    engine: &'a dyn Engine,
    own: Vec<(RowKey, Option<RowValue>)>,
}

impl Rows for Gather<'_> {
    fn get(&mut self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        if let Some((_, value)) = self.own.iter().rev().find(|(own, _)| own == key) {
            return Ok(value.clone());
        }
        self.engine.row(key).map_err(|error| RowsError(Box::new(error)))
    }
    fn head(&mut self, feed: &FeedId) -> Result<Head, RowsError> {
        self.engine.head(feed).map_err(|error| RowsError(Box::new(error)))
    }
    fn entry(&mut self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        let read = self.engine.read(feed, seq, seq, Direction::Forward, 1, 0);
        read.map(|mut entries| entries.pop()).map_err(|error| RowsError(Box::new(error)))
    }
    fn put(&mut self, key: RowKey, value: Option<RowValue>) {
        self.own.push((key, value));
    }
}

fn project(engine: &dyn Engine, entries: Vec<Entry>) {
    let mut fold = Fold::default();
    for entry in entries {
        let mut rows = Gather { engine, own: Vec::new() };
        fold.apply(&entry, &mut rows).unwrap_or_else(|error| panic!("{error}"));
        let own = rows.own;
        commit(engine, vec![rows_group(entry, own)]);
    }
}

pub(super) fn verify_and_rebuild(make: Make<'_>, dir: &Path) {
    let store = open(make, dir);
    let engine = &*store.engine();
    let mut id = message();
    for name in ["a", "b", "c"] {
        let feed = feed(name);
        let mut entries = vec![created(&feed)];
        for seq in 2..20 {
            id.client_msg_id = ClientMsgId::parse(&format!("{seq}")).ok();
            let payload = Payload::Bytes(Bytes::from_static(b"hello"));
            entries.push(entry(&feed, seq, seq - 1, Event::MessageSent(id.clone()), payload));
        }
        let recall = Event::MessageRecalled { target: SeqId(3), target_ordinal: Ordinal(2), reason: None };
        entries.push(entry(&feed, 20, 18, recall, Payload::None));
        project(engine, entries);
    }
    let mut phases = Vec::new();
    let report = store.verify(&mut |progress| phases.push(progress.phase)).unwrap();
    assert_eq!(report.damage, None);
    assert_eq!((report.feeds, report.entries, report.messages), (3, 60, 54));
    assert_eq!((report.payload_bytes, report.changes, report.commit_no), (54 * 5, 60, 60));
    assert!(report.rows >= 54, "{report:?}");
    assert!(phases.contains(&crate::Phase::Rows));
    let untouched = store.rebuild(&mut |_| {}).unwrap();
    assert_eq!((untouched.added, untouched.removed, untouched.changed), (0, 0, 0));
    assert_eq!(untouched.rows, report.rows);

    // One row too many, one changed, one missing: each is found, and the rebuild leaves none.
    let b = feed("b");
    let counts = RowKey::UserCounts(b.clone(), uid("alice"), 0);
    let sound = engine.row(&counts).unwrap();
    assert!(sound.is_some());
    let spoil: [(RowKey, Option<RowValue>); 3] = [
        (RowKey::Fate(b.clone(), SeqId(9)), Some(RowValue::Fate(Box::default()))),
        (counts.clone(), Some(RowValue::UserCounts(Box::default()))),
        (RowKey::UserFeed(uid("alice"), b.clone()), None),
    ];
    for (i, (key, value)) in spoil.into_iter().enumerate() {
        let mut bad = group(vec![sent(&b, 21, b"")]);
        let part = bad.log.as_mut().expect("made with a log");
        part.entries.clear();
        part.rows.push((key, value));
        commit(engine, vec![bad]);
        let damage = store.verify(&mut |_| {}).unwrap().damage.expect("the row is found");
        assert_eq!(damage.feed, Some(b.clone()), "{damage}");
        let report = store.rebuild(&mut |_| {}).unwrap();
        let expected = [(0, 1, 0), (0, 0, 1), (1, 0, 0)];
        assert_eq!((report.added, report.removed, report.changed), expected[i]);
        assert_eq!(store.verify(&mut |_| {}).unwrap().damage, None);
    }
    assert_eq!(engine.row(&counts).unwrap(), sound);
    engine.close().unwrap();
}

pub(super) fn large_values(make: Make<'_>, dir: &Path) {
    let a = feed("a");
    let mut entries = vec![created(&a)];
    for (seq, len) in (2..).zip([0, 1, 4095, 4096, 4097, 70_000, 1 << 20, (16 << 20) - 1, 16 << 20]) {
        let mut random = super::Random(seq);
        let payload: Vec<u8> = (0..len).map(|_| random.number() as u8).collect();
        entries.push(sent(&a, seq, &payload));
    }
    let store = open(make, dir);
    for entry in &entries {
        commit(&*store.engine(), vec![group(vec![entry.clone()])]);
    }
    assert!(all(&*store.engine(), &a) == entries);
    store.engine().close().unwrap();
    drop(store);
    let store = open(make, dir);
    assert!(all(&*store.engine(), &a) == entries);
    let last = store.engine().read(&a, SeqId(10), SeqId(10), Direction::Backward, 1, 1).unwrap();
    assert!(last[0] == entries[9]);
    store.engine().close().unwrap();
}
