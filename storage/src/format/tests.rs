use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use feedlog_core::event::{FeedKind, HistoryMode, JoinMode, Message, MessageKind, Role, Scope};
use feedlog_core::ids::{ClientMsgId, ReactionKey};
use feedlog_core::rows::{
    Bits, Counts, Fate, FeedState, Member, Place, Recalled, Receipt, Request, RowKey, RowValue, UserCounts,
    UserFeed,
};
use proptest::prelude::*;

use super::*;

mod carried;

use carried::{carrying, carrying_entries};

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn feed(text: &str) -> FeedId {
    FeedId::parse(text).unwrap()
}

fn shared(text: &str) -> Option<Arc<str>> {
    Some(Arc::from(text))
}

fn plain_message() -> Message {
    Message {
        kind: MessageKind::Text,
        content_type: Arc::from("application/json"),
        client_msg_id: None,
        scope: Scope::Sender,
        reply_to: None,
        mentions: vec![],
        to_reply: None,
        seen_seq: SeqId(0),
        sent_ms: None,
        expires_ms: None,
        auto: false,
        carried: Payload::None,
    }
}

/// Every event, with every field in use at least once, by name.
fn events() -> Vec<(&'static str, Event)> {
    let full_message = Message {
        kind: MessageKind::Location,
        content_type: Arc::from("application/x-other"),
        client_msg_id: Some(ClientMsgId::parse("id-1").unwrap()),
        scope: Scope::Shared(Arc::from("gws")),
        reply_to: Some(SeqId(3)),
        mentions: vec![uid("bob"), uid("@all")],
        to_reply: Some(false),
        seen_seq: SeqId(300),
        sent_ms: Some(1_600_000_000_000),
        expires_ms: Some(1_700_000_000_000),
        auto: true,
        carried: Payload::None,
    };
    let kinds = [
        MessageKind::Text,
        MessageKind::Image,
        MessageKind::Voice,
        MessageKind::Video,
        MessageKind::ShortVideo,
        MessageKind::Location,
        MessageKind::Link,
        MessageKind::Custom,
        MessageKind::System,
    ];
    let targets = vec![(SeqId(2), Ordinal(1)), (SeqId(70_000), Ordinal(69_000))];
    let mut all = vec![
        (
            "feed_created_full",
            Event::FeedCreated {
                kind: FeedKind::Group,
                title: shared("title"),
                join: JoinMode::Approval,
                history: HistoryMode::SinceJoin,
                meta: shared("{\"a\":1}"),
                pair: Some((uid("a"), uid("b"))),
            },
        ),
        (
            "feed_created_plain",
            Event::FeedCreated {
                kind: FeedKind::Direct,
                title: None,
                join: JoinMode::Invite,
                history: HistoryMode::All,
                meta: None,
                pair: None,
            },
        ),
        (
            "feed_changed",
            Event::FeedChanged {
                title: shared("t"),
                join: Some(JoinMode::Open),
                history: Some(HistoryMode::All),
                meta: shared("{}"),
            },
        ),
        ("feed_changed_nothing", Event::FeedChanged { title: None, join: None, history: None, meta: None }),
        ("message_sent_full", Event::MessageSent(full_message)),
        ("message_edited", Event::MessageEdited { target: SeqId(9), content_type: Arc::from("text/plain") }),
        (
            "message_recalled",
            Event::MessageRecalled { target: SeqId(9), target_ordinal: Ordinal(8), reason: shared("r") },
        ),
        (
            "reaction_changed",
            Event::ReactionChanged { target: SeqId(9), key: ReactionKey::parse("👍").unwrap(), on: true },
        ),
        ("member_left", Event::MemberLeft { uid: uid("bob") }),
        ("member_removed", Event::MemberRemoved { uid: uid("bob"), reason: None }),
        ("role_changed", Event::RoleChanged { uid: uid("bob"), role: Role::Admin }),
        ("join_requested", Event::JoinRequested { reason: shared("please") }),
        ("join_decided", Event::JoinDecided { uid: uid("bob"), agreed: true }),
        ("broadcast", Event::Broadcast { content_type: Arc::from("application/octet-stream") }),
        ("messages_expired", Event::MessagesExpired { targets: targets.clone() }),
        ("messages_erased", Event::MessagesErased { targets, reason: shared("law") }),
        ("hold_placed", Event::HoldPlaced { hold: Arc::from("case 7") }),
        ("hold_lifted", Event::HoldLifted { hold: Arc::from("case 7") }),
        (
            "mark_moved",
            Event::MarkMoved {
                feed: feed("other"),
                read: Some((SeqId(7), Ordinal(6))),
                received: Some(SeqId(8)),
            },
        ),
        ("mark_moved_nothing", Event::MarkMoved { feed: feed("other"), read: None, received: None }),
        ("unreplied_resolved", Event::UnrepliedResolved { feed: feed("other"), upto: SeqId(7) }),
        ("feed_pinned", Event::FeedPinned { feed: feed("other"), pinned: true }),
        ("feed_muted", Event::FeedMuted { feed: feed("other"), until_ms: 1_700_000_000_000 }),
        ("notified", Event::Notified { content_type: Arc::from("text/plain; charset=utf-8") }),
    ];
    for role in [Role::Member, Role::Admin, Role::Owner] {
        all.push(("member_joined", Event::MemberJoined { uid: uid("bob"), role }));
    }
    for kind in [FeedKind::Direct, FeedKind::Group, FeedKind::Open, FeedKind::Personal] {
        let (join, history) = (JoinMode::Open, HistoryMode::All);
        all.push((
            "feed_created",
            Event::FeedCreated { kind, title: None, join, history, meta: None, pair: None },
        ));
    }
    for kind in kinds {
        all.push(("message_sent", Event::MessageSent(Message { kind, ..plain_message() })));
    }
    for content_type in ["application/json", "text/plain", "application/vnd.gotapi+json", "x"] {
        let content_type = Arc::from(content_type);
        all.push(("message_sent_type", Event::MessageSent(Message { content_type, ..plain_message() })));
    }
    all
}

/// Every row, with every field in use at least once.
fn rows() -> Vec<(RowKey, RowValue)> {
    let a = || feed("a");
    let bits = |at: &[u64]| {
        let mut bits = Bits::EMPTY;
        at.iter().for_each(|at| bits.insert(Ordinal(*at)));
        bits
    };
    let state = FeedState {
        kind: FeedKind::Direct,
        title: shared("title"),
        join: JoinMode::Invite,
        history: HistoryMode::SinceJoin,
        meta: shared("{}"),
        pair: Some((uid("a"), uid("b"))),
        creator: uid("a"),
        owner: Some(uid("b")),
        created_ms: 1_700_000_000_000,
        member_count: 2,
        holds: vec![Arc::from("case 7")],
    };
    let plain_state = FeedState {
        kind: FeedKind::Open,
        title: None,
        join: JoinMode::Open,
        history: HistoryMode::All,
        meta: None,
        pair: None,
        owner: None,
        holds: vec![],
        ..state.clone()
    };
    let fate = Fate {
        recalled: Some(Recalled { by: uid("bob"), seq: SeqId(9), time_ms: 1_700_000_000_000 }),
        edited: Some(SeqId(8)),
        earlier_edits: vec![SeqId(5), SeqId(6)],
        expired: Some(SeqId(10)),
        erased: Some(SeqId(11)),
        reactions: vec![(ReactionKey::parse("👍").unwrap(), 300)],
    };
    let counts = Counts {
        gone: bits(&[1, 200]),
        system: bits(&[]),
        quiet: bits(&(0..256).collect::<Vec<_>>()),
        ask_all: bits(&(0..128).map(|i| 2 * i).collect::<Vec<_>>()),
        mention_all: bits(&[255]),
    };
    let user_counts = UserCounts {
        own: bits(&(5..60).collect::<Vec<_>>()),
        mention: bits(&[3]),
        ask: bits(&[4]),
        answered_seq: SeqId(300),
        first_own_seq: SeqId(1),
    };
    let place = Place {
        read_seq: SeqId(1),
        read_ordinal: Ordinal(2),
        received_seq: SeqId(3),
        has_received: true,
        resolved_seq: SeqId(400),
        pinned: true,
        muted_until_ms: 1_700_000_000_000,
    };
    let receipt =
        Receipt { read_seq: SeqId(1), read_ms: 2, received_seq: SeqId(3), received_ms: 1_700_000_000_000 };
    let member = Member {
        role: Role::Owner,
        joined_seq: SeqId(2),
        joined_ordinal: Ordinal(1),
        joined_ms: 1_700_000_000_000,
    };
    let request = Request { seq: SeqId(5), time_ms: 6, reason: shared("please") };
    let user_feed = UserFeed { kind: FeedKind::Personal, since_ordinal: Ordinal(7), since_seq: SeqId(8) };
    let reaction = ReactionKey::parse("👍").unwrap();
    vec![
        (RowKey::Feed(a()), RowValue::Feed(Arc::new(state))),
        (RowKey::Feed(a()), RowValue::Feed(Arc::new(plain_state))),
        (RowKey::Member(a(), uid("bob")), RowValue::Member(member)),
        (RowKey::Request(a(), uid("bob")), RowValue::Request(request)),
        (RowKey::Counts(a(), 0), RowValue::Counts(Box::new(counts))),
        (RowKey::UserCounts(a(), uid("bob"), 0), RowValue::UserCounts(Box::new(user_counts))),
        (RowKey::Fate(a(), SeqId(4)), RowValue::Fate(Box::default())),
        (RowKey::Fate(a(), SeqId(4)), RowValue::Fate(Box::new(fate))),
        (RowKey::Reaction(a(), SeqId(4), reaction, uid("bob")), RowValue::Seq(SeqId(300))),
        (RowKey::Expiry(5, a(), SeqId(4)), RowValue::Seq(SeqId(4))),
        (RowKey::UserFeed(uid("bob"), a()), RowValue::UserFeed(user_feed)),
        (RowKey::Place(uid("bob"), a()), RowValue::Place(place)),
        (RowKey::Place(uid("bob"), a()), RowValue::Place(Place::default())),
        (RowKey::Receipt(a(), uid("bob")), RowValue::Receipt(receipt)),
    ]
}

/// Three entries of one feed: no payload, a payload, a stripped one.
fn entries() -> Vec<Entry> {
    let make = |seq, ordinal, event, payload| Entry {
        feed: feed("lobby"),
        seq: SeqId(seq),
        ordinal: Ordinal(ordinal),
        time_ms: 1_700_000_000_000 + seq,
        sender: uid("alice"),
        event,
        payload,
    };
    let created = Event::FeedCreated {
        kind: FeedKind::Open,
        title: None,
        join: JoinMode::Open,
        history: HistoryMode::All,
        meta: None,
        pair: None,
    };
    let mentions = (0..20).map(|i| uid(&format!("user-{i}"))).collect();
    let long = Event::MessageSent(Message { mentions, ..plain_message() });
    vec![
        make(1, 0, created, Payload::None),
        make(2, 1, Event::MessageSent(plain_message()), Payload::Bytes(Bytes::from_static(b"\"hello\""))),
        make(3, 2, long, Payload::Bytes(Bytes::new())),
        make(4, 3, Event::MessageSent(plain_message()), Payload::Stripped { hash: crate::digest(b"gone") }),
    ]
}

/// Values of `entries`, as they are stored under feed number 7 by node 1.
fn frames() -> Vec<([u8; 16], Vec<u8>)> {
    frames_of(&entries())
}

fn frames_of(entries: &[Entry]) -> Vec<([u8; 16], Vec<u8>)> {
    let mut previous = [0; 32];
    entries
        .iter()
        .map(|entry| {
            let key = keys::entry_array(7, entry.seq);
            let (value, chain) = encode_entry(&key, entry, 1, 300 + entry.seq.0, &previous);
            previous = chain;
            (key, value)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Compares with a file of `migrations/golden`; a missing file is written, to be looked at and committed.
fn check_golden(name: &str, lines: &[String]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations/golden").join(name);
    let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    match std::fs::read_to_string(&path) {
        Ok(golden) => {
            assert_eq!(text, golden, "stored bytes changed: that needs a new version, see {path:?}")
        }
        Err(_) => {
            std::fs::write(&path, &text).unwrap();
            panic!("{path:?} was missing and is written: look at it and commit it");
        }
    }
}

#[test]
fn events_are_frozen_and_come_back() {
    let mut lines = Vec::new();
    for (name, event) in events() {
        let mut bytes = Vec::new();
        assert_eq!(encode_event(&event, &mut bytes), 1, "the oldest version that can hold it");
        assert_eq!(decode_event(1, &bytes).unwrap(), event);
        lines.push(format!("{name} {}", hex(&bytes)));
    }
    check_golden("v1/events.hex", &lines);
    lines.clear();
    for (name, event) in carrying() {
        let mut bytes = Vec::new();
        assert_eq!(encode_event(&event, &mut bytes), 2);
        assert_eq!(decode_event(2, &bytes).unwrap(), event);
        lines.push(format!("{name} {}", hex(&bytes)));
    }
    check_golden("v2/events.hex", &lines);
}

#[test]
fn rows_are_frozen_and_come_back() {
    let mut lines = Vec::new();
    for (key, value) in rows() {
        let bytes = row_v1::encode(&value);
        assert!(row_v1::fits(&key, &value));
        assert_eq!(row_v1::decode(&key, &bytes).unwrap(), value);
        let (table, stored) = keys::row(&key, 7);
        lines.push(format!("{} {} {}", table.name(), hex(&stored), hex(&bytes)));
    }
    check_golden("v1/rows.hex", &lines);
}

#[test]
fn entries_are_frozen_and_come_back() {
    for (version, entries) in [("v1", entries()), ("v2", carrying_entries())] {
        let frames = frames_of(&entries);
        let lines: Vec<String> =
            frames.iter().map(|(key, value)| format!("{} {}", hex(key), hex(value))).collect();
        check_golden(&format!("{version}/entries.hex"), &lines);
        come_back(&entries, &frames);
    }
}

fn come_back(entries: &[Entry], frames: &[([u8; 16], Vec<u8>)]) {
    let mut previous = [0; 32];
    for (entry, (key, value)) in entries.iter().zip(frames) {
        let frame = Frame::parse(key, value).unwrap();
        assert_eq!(&back(&frame, value), entry);
        assert_eq!(frame.size(), entry.size());
        assert_eq!(frame.chain_of(&entry.feed, &previous), frame.chain_hash);
        let proven = chain_hash(entry, frame.version, &frame.payload_hash(), &previous);
        assert_eq!(proven, Some(frame.chain_hash));
        assert_eq!(chain_hash(entry, 3 - frame.version, &frame.payload_hash(), &previous), None);
        let payload = entry.payload.bytes().map_or(&b"gone"[..], |bytes| bytes);
        let payload = if matches!(entry.payload, Payload::None) { b"" } else { payload };
        assert_eq!(frame.payload_hash(), crate::digest(payload));
        assert_eq!((frame.node, frame.commit_no), (1, 300 + entry.seq.0));
        previous = frame.chain_hash;
    }
}

fn back(frame: &Frame<'_>, value: &[u8]) -> Entry {
    let slice = |range: Range<usize>| Bytes::copy_from_slice(&value[range]);
    frame.entry(&feed("lobby"), &Upcasters::default(), slice, None).unwrap()
}

#[test]
fn small_values_are_frozen_and_come_back() {
    let changes = vec![(1, SeqId(1), SeqId(2)), (300, SeqId(70_000), SeqId(70_000))];
    let lines = [hex(&encode_change(&changes)), hex(&encode_feed_number(300))];
    check_golden("v1/small.hex", &lines);
    assert_eq!(decode_change(&encode_change(&changes)).unwrap(), changes);
    assert_eq!(decode_feed_number(&encode_feed_number(300)).unwrap(), 300);
}

/// I-3: an erased entry keeps its place and its proof.
#[test]
fn stripping_keeps_header_and_hashes() {
    let (key, value) = frames().swap_remove(1);
    let before = Frame::parse(&key, &value).unwrap();
    let tombstone = before.stripped(&key).unwrap();
    let after = Frame::parse(&key, &tombstone).unwrap();
    assert_eq!(after.chain_hash, before.chain_hash);
    assert_eq!(after.payload_hash(), before.payload_hash());
    let entry = after.entry(&feed("lobby"), &Upcasters::default(), |_| unreachable!(), None).unwrap();
    assert_eq!(entry.payload, Payload::Stripped { hash: crate::digest(b"\"hello\"") });
    assert!(after.stripped(&key).is_none());
    assert!(!tombstone.windows(5).any(|bytes| bytes == b"hello"));
}

#[test]
fn the_chain_covers_everything_that_was_said() {
    let entry = entries().swap_remove(1);
    let chain = |entry: &Entry, previous: &[u8; 32]| {
        encode_entry(&keys::entry_array(7, entry.seq), entry, 1, 1, previous).1
    };
    let base = chain(&entry, &[1; 32]);
    let changes: [fn(&mut Entry); 5] = [
        |entry| entry.ordinal = Ordinal(9),
        |entry| entry.time_ms += 1,
        |entry| entry.sender = uid("mallory"),
        |entry| entry.payload = Payload::Bytes(Bytes::from_static(b"\"hellO\"")),
        |entry| entry.seq = SeqId(3),
    ];
    for change in changes {
        let mut other = entry.clone();
        change(&mut other);
        assert_ne!(chain(&other, &[1; 32]), base);
    }
    assert_ne!(chain(&entry, &[2; 32]), base);
    // Not the node nor the commit: an import elsewhere has the same chain.
    assert_eq!(encode_entry(&keys::entry_array(8, entry.seq), &entry, 2, 9, &[1; 32]).1, base);
    let first = entries().swap_remove(0);
    let renamed = Entry { feed: feed("other"), ..first.clone() };
    assert_ne!(chain(&first, &[0; 32]), chain(&renamed, &[0; 32]));
}

#[test]
fn every_flipped_bit_is_found() {
    for (key, value) in frames().into_iter().chain(frames_of(&carrying_entries()).into_iter().skip(1)) {
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::parse(&key, &bad).is_err(), "bit {bit}");
        }
        for end in 0..value.len() {
            assert!(Frame::parse(&key, &value[..end]).is_err(), "cut at {end}");
        }
        // A sound value in another's place.
        assert!(Frame::parse(&keys::entry_array(7, SeqId(99)), &value).is_err());
    }
}

#[test]
fn a_newer_version_is_named() {
    let (key, mut value) = frames().swap_remove(1);
    value[0] = EVENT_VERSION + 1;
    seal(&key, &mut value);
    assert_eq!(Frame::parse(&key, &value).err(), Some(DecodeError::Version(3)));
}

#[test]
fn upcasters_lead_step_by_step_to_today() {
    struct Step;
    impl Upcast for Step {
        fn version(&self) -> u8 {
            0
        }
        fn upcast(&self, event: &[u8]) -> Result<Vec<u8>, DecodeError> {
            Ok(event.iter().rev().copied().collect())
        }
    }
    let mut bytes = Vec::new();
    let event = Event::HoldPlaced { hold: Arc::from("x") };
    event_v1::encode(&event, &mut bytes);
    bytes.reverse();
    assert_eq!(Upcasters::new(vec![Box::new(Step)]).decode(0, &bytes).unwrap(), event);
    assert_eq!(Upcasters::default().decode(0, &bytes), Err(DecodeError::Version(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_decode_or_fail(bytes: Vec<u8>, at in 0_usize..14, version in 1..=EVENT_VERSION) {
        let key = keys::entry_array(7, SeqId(2));
        let mut framed = vec![version, 1, 0, 0, 0, 0];
        framed.extend_from_slice(&bytes);
        seal(&key, &mut framed);
        if let Ok(frame) = Frame::parse(&key, &framed) {
            let _ = frame.entry(&feed("a"), &Upcasters::default(), |_| Bytes::new(), None);
            let _ = frame.stripped(&key);
            let _ = frame.chain_of(&feed("a"), &[0; 32]);
        }
        let _ = Frame::parse(&key, &bytes);
        let _ = decode_event(version, &bytes);
        let _ = decode_change(&bytes);
        let _ = decode_feed_number(&bytes);
        let (row, _) = rows().swap_remove(at);
        let _ = row_v1::decode(&row, &bytes);
    }

    #[test]
    fn damaged_events_decode_or_fail(which in 0_usize..40, at: usize, to: u8) {
        let (_, event) = events().into_iter().chain(carrying()).nth(which).unwrap();
        let mut bytes = Vec::new();
        let version = encode_event(&event, &mut bytes);
        let len = bytes.len();
        bytes[at % len] = to;
        let _ = decode_event(version, &bytes);
    }
}
