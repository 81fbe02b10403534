use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::command::{Draft, RecallTarget};
use crate::event::{FeedKind, HistoryMode, JoinMode, MENTION_ALL, Message, MessageKind, Scope};
use crate::ids::ReactionKey;
use crate::sequencer::Refusal;
use crate::testing::*;

fn check(scene: &Scene, feed: &FeedId, cases: Vec<(&str, Action, &str)>) {
    for (who, action, then) in cases {
        let what = format!("{who}: {action:?}");
        assert_eq!(told(&scene.when(who, feed, action)), then, "{what}");
    }
}

fn sent_by(scene: &Scene, who: &str, feed: &FeedId, action: Action) -> Message {
    match scene.when(who, feed, action) {
        Ok(Decision::Append(mut plan)) => match plan.events.pop() {
            Some(NewEvent { event: Event::MessageSent(message), .. }) => message,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn react(target: u64, on: bool) -> Action {
    Action::React { target: SeqId(target), key: ReactionKey::parse("👍").unwrap(), on }
}

fn edit(target: u64) -> Action {
    let content_type = Arc::from("text/plain");
    Action::EditMessage { target: SeqId(target), content_type, payload: Bytes::from_static(b"new") }
}

const MISSING: &str = "no such message";
const LATE: &str = "the time to recall or edit this message is over";

#[test]
fn i5_a_retry_gets_the_first_place_and_another_body_is_refused() {
    let mut scene = Scene::group(JoinMode::Invite, HistoryMode::All);
    let feed = feed_id("g");
    let original = |draft: &mut Draft| {
        draft.client_msg_id = id("1");
        draft.mentions = vec![uid("bob")];
        draft.reply_to = None;
        draft.to_reply = Some(true);
        draft.expires_ms = Some(1_000_000);
        draft.carried = Bytes::from_static(b"\x01first");
    };
    let seq = scene.does("carol", &feed, send_with("hello", original));
    let retry = |change: fn(&mut Draft)| {
        send_with("hello", |draft| {
            original(draft);
            change(draft);
        })
    };
    let again = format!("already {seq}");
    let conflict = "this client_msg_id was used before with another body";
    type Change = fn(&mut Draft);
    let cases: Vec<(Change, &str)> = vec![
        (|_| {}, &again),
        (|d| d.sent_ms = Some(5), &again),
        (|d| d.carried = Bytes::from_static(b"\x01second"), &again),
        (|d| d.carried = Bytes::new(), &again),
        (|d| d.seen_seq = Some(SeqId(1)), &again),
        // Dedup comes before `expect_head`.
        (|d| d.expect_head = Some(SeqId(1)), &again),
        (|d| d.kind = MessageKind::Link, conflict),
        (|d| d.content_type = Arc::from("text/html"), conflict),
        (|d| d.payload = Bytes::from_static(b"hell"), conflict),
        (|d| d.reply_to = Some(SeqId(7)), conflict),
        (|d| d.mentions.clear(), conflict),
        (|d| d.to_reply = None, conflict),
        (|d| d.expires_ms = None, conflict),
    ];
    for (change, then) in &cases {
        check(&scene, &feed, vec![("carol", retry(*change), then)]);
    }
    // Another sender's id is another id; so is one in a shared scope.
    check(&scene, &feed, vec![("dave", retry(|_| {}), "MessageSent")]);
    check(
        &scene,
        &feed,
        vec![("carol", retry(|d| d.scope = Scope::Shared(Arc::from("gws"))), "MessageSent")],
    );
    // The fingerprint outlives the payload, and the time to live.
    scene.now_ms = 2_000_000;
    let erased = scene.does("root+admin", &feed, Action::EraseMessages { targets: vec![seq], reason: None });
    assert!(erased > seq);
    strip(&mut scene, &feed, seq);
    for (change, then) in cases {
        check(&scene, &feed, vec![("carol", retry(change), then)]);
    }
    // Authorization comes first.
    let removed = Action::RemoveMember { uid: uid("carol"), reason: None };
    scene.does("bob", &feed, removed);
    check(&scene, &feed, vec![("carol", retry(|_| {}), "no such feed")]);
}

fn strip(scene: &mut Scene, feed: &FeedId, seq: SeqId) {
    let entry = &mut scene.store.logs.get_mut(feed).unwrap()[seq.0 as usize - 1];
    assert!(matches!(entry.payload, Payload::Stripped { .. }), "the plan strips what it erases");
    assert_eq!(entry.payload, Payload::Stripped { hash: toy_digest(b"hello") });
    let carried = entry.message().map(|message| &message.carried);
    assert_eq!(carried, Some(&Payload::Stripped { hash: toy_digest(b"\x01first") }));
}

#[test]
fn a_message_is_checked_against_the_feed() {
    let mut scene = Scene::group(JoinMode::Invite, HistoryMode::SinceJoin);
    let feed = feed_id("g");
    let early = scene.does("alice", &feed, send("early"));
    scene.does("alice", &feed, Action::AddMember { uid: uid("erin"), role: Role::Member });
    let late = scene.does("carol", &feed, send("late"));
    let head = scene.head(&feed).seq;
    let reply = |seq: SeqId| send_with("x", |d| d.reply_to = Some(seq));
    let bad_reply = "reply_to: names no message of this feed";
    check(
        &scene,
        &feed,
        vec![
            ("erin", reply(late), "MessageSent"),
            ("carol", reply(early), "MessageSent"),
            ("erin", reply(early), bad_reply),
            ("carol", reply(SeqId(1)), bad_reply),
            ("carol", reply(SeqId(0)), bad_reply),
            ("carol", reply(head.next()), bad_reply),
            ("carol", send_with("x", |d| d.expect_head = Some(head)), "MessageSent"),
            ("carol", send_with("x", |d| d.expect_head = Some(head.prev())), &format!("the head is {head}")),
            ("carol", send_with("x", |d| d.expires_ms = Some(5)), "expires_ms: is in the past"),
            ("carol", send_with("x", |d| d.expires_ms = Some(u64::MAX)), "expires_ms: is too large"),
            ("carol", send_with("x", |d| d.sent_ms = Some(u64::MAX)), "sent_ms: is too large"),
            ("carol", send_with("x", |d| d.mentions = vec![uid("bob"); 101]), "mentions: are too many"),
            ("carol", send_with("x", |d| d.mentions = vec![uid("bob"); 100]), "MessageSent"),
            (
                "carol",
                send_with("x", |d| d.content_type = Arc::from("")),
                "content_type: must be 1 to 127 bytes long",
            ),
        ],
    );
    let max = scene.settings.payload_bytes_max;
    let sized = |bytes: usize| send_with("", |d| d.payload = Bytes::from(vec![b'x'; bytes]));
    check(
        &scene,
        &feed,
        vec![
            ("carol", sized(max), "MessageSent"),
            ("carol", sized(max + 1), "the payload is larger than 1048576 bytes"),
            ("carol", sized(0), "MessageSent"),
        ],
    );
    let carrying = |bytes: usize| send_with("x", |d| d.carried = Bytes::from(vec![1; bytes]));
    let max = crate::limits::CARRIED_BYTES_MAX;
    check(
        &scene,
        &feed,
        vec![
            ("carol", carrying(max), "MessageSent"),
            ("carol", carrying(max + 1), "the payload is larger than 70000 bytes"),
        ],
    );
    let carried = |bytes| sent_by(&scene, "carol", &feed, carrying(bytes)).carried;
    assert_eq!(carried(0), Payload::None);
    assert_eq!(carried(2), Payload::Bytes(Bytes::from_static(&[1, 1])));
}

#[test]
fn what_an_answer_had_seen_is_settled_when_it_is_sent() {
    let mut scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    for _ in 0..4 {
        scene.does("alice", &feed, send("x"));
    }
    let given = |seq| send_with("x", |d| d.seen_seq = Some(SeqId(seq)));
    let seen = |scene: &Scene, action| sent_by(scene, "bob", &feed, action).seen_seq;
    assert_eq!(seen(&scene, send("x")), SeqId(5), "no mark yet: the head before the answer");
    assert_eq!(seen(&scene, given(2)), SeqId(2), "as given");
    assert_eq!(seen(&scene, given(99)), SeqId(5), "capped at the head before the answer");
    let own = feed_id("user:bob");
    let received =
        Action::MoveMarks { feed: feed.clone(), read: None, received: Some(SeqId(3)), unread_from: None };
    scene.does("bob", &own, received);
    assert_eq!(seen(&scene, send("x")), SeqId(3), "the received mark");
    assert_eq!(seen(&scene, given(2)), SeqId(2), "as given, still");
}

#[test]
fn recall_is_for_the_sender_in_time_and_for_managers_always() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::SinceJoin);
    let feed = feed_id("g");
    let seq = scene.does("carol", &feed, send_with("x", |d| d.client_msg_id = id("m"))).0;
    let by_id = |sender: Option<&str>| Action::RecallMessage {
        target: RecallTarget::ClientMsgId {
            sender: sender.map(uid),
            scope: Scope::Sender,
            id: id("m").unwrap(),
        },
        reason: None,
    };
    check(
        &scene,
        &feed,
        vec![
            ("carol", recall(seq), "MessageRecalled"),
            ("carol", by_id(None), "MessageRecalled"),
            ("carol", by_id(Some("carol")), "MessageRecalled"),
            ("dave", recall(seq), "not allowed"),
            ("dave", by_id(None), MISSING),
            ("dave", by_id(Some("carol")), "not allowed"),
            ("bob", by_id(Some("carol")), "MessageRecalled"),
            ("alice", recall(seq), "MessageRecalled"),
            ("svc+send_as", recall(seq), "MessageRecalled"),
            ("root+admin", recall(seq), "MessageRecalled"),
            ("alice", recall(1), MISSING),
            ("alice", recall(0), MISSING),
            ("alice", recall(seq + 1), MISSING),
            ("alice", recall(u64::MAX), MISSING),
        ],
    );
    // Who joined later does not see it, so there is nothing to recall for them.
    scene.does("alice", &feed, Action::AddMember { uid: uid("erin"), role: Role::Admin });
    check(&scene, &feed, vec![("erin", recall(seq), MISSING)]);
    // The window counts from the entry's own time, to the millisecond.
    let sent_ms = scene.store.logs[&feed][seq as usize - 1].time_ms;
    scene.now_ms = sent_ms + scene.settings.recall_window_ms;
    check(&scene, &feed, vec![("carol", recall(seq), "MessageRecalled")]);
    scene.now_ms += 1;
    check(
        &scene,
        &feed,
        vec![
            ("carol", recall(seq), LATE),
            ("bob", recall(seq), "MessageRecalled"),
            ("svc+send_as", recall(seq), "MessageRecalled"),
        ],
    );
    // Twice is once, in time or not.
    let recalled = scene.does("bob", &feed, recall(seq));
    let again = format!("already {recalled}");
    check(
        &scene,
        &feed,
        vec![
            ("carol", recall(seq), &again),
            ("bob", recall(seq), &again),
            ("dave", recall(seq), "not allowed"),
        ],
    );
}

#[test]
fn a_shared_id_recalls_in_open_feeds_whoever_names_it() {
    let mut scene = Scene::open("room", "alice");
    let feed = feed_id("room");
    let shared = |draft: &mut Draft| {
        draft.client_msg_id = id("m");
        draft.scope = Scope::Shared(Arc::from("gws"));
    };
    let seq = scene.does("carol", &feed, send_with("x", shared)).0;
    let by_id = |scope: Scope, name: &str| Action::RecallMessage {
        target: RecallTarget::ClientMsgId { sender: None, scope, id: id(name).unwrap() },
        reason: None,
    };
    let named = || by_id(Scope::Shared(Arc::from("gws")), "m");
    check(
        &scene,
        &feed,
        vec![
            ("dave", named(), "MessageRecalled"),
            ("root+admin", named(), "MessageRecalled"),
            // The id is the right, the place is not; and it is one of this namespace.
            ("dave", recall(seq), "not allowed"),
            ("dave", by_id(Scope::Sender, "m"), MISSING),
            ("dave", by_id(Scope::Shared(Arc::from("other")), "m"), MISSING),
            ("dave", by_id(Scope::Shared(Arc::from("gws")), "n"), MISSING),
            ("anon:1", named(), "authentication is required"),
            ("eve+audit", named(), "not allowed"),
        ],
    );
    scene.settings.anonymous_open_feeds = true;
    check(&scene, &feed, vec![("anon:1", named(), "MessageRecalled")]);
    // At any time, unless there is a window: then to the millisecond, but for the sender's own and for managers.
    let sent_ms = scene.store.logs[&feed][seq as usize - 1].time_ms;
    scene.now_ms = sent_ms + 1_000_000;
    check(&scene, &feed, vec![("dave", named(), "MessageRecalled"), ("carol", recall(seq), LATE)]);
    scene.settings.shared_recall_window_ms = Some(1_000);
    check(&scene, &feed, vec![("dave", named(), LATE), ("root+admin", named(), "MessageRecalled")]);
    scene.now_ms = sent_ms + 1_001;
    check(&scene, &feed, vec![("dave", named(), LATE), ("carol", named(), "MessageRecalled")]);
    scene.now_ms = sent_ms + 1_000;
    check(&scene, &feed, vec![("dave", named(), "MessageRecalled")]);
    let recalled = scene.does("dave", &feed, named());
    check(&scene, &feed, vec![("carol", named(), &format!("already {recalled}"))]);
    // A group has members who send: there such an id is no right.
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    scene.does("carol", &feed, send_with("x", shared));
    check(&scene, &feed, vec![("dave", named(), "not allowed"), ("bob", named(), "MessageRecalled")]);
}

#[test]
fn edits_and_reactions() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let seq = scene.does("carol", &feed, send("x")).0;
    check(
        &scene,
        &feed,
        vec![
            ("carol", edit(seq), "MessageEdited"),
            ("alice", edit(seq), "not allowed"),
            ("svc+send_as", edit(seq), "not allowed"),
            ("root+admin", edit(seq), "not allowed"),
            ("carol", edit(1), MISSING),
            ("dave", react(seq, true), "ReactionChanged"),
            ("dave", react(seq, false), "already 0"),
            ("dave", react(2, true), MISSING),
        ],
    );
    let reacted = scene.does("dave", &feed, react(seq, true));
    check(
        &scene,
        &feed,
        vec![
            ("dave", react(seq, true), &format!("already {reacted}")),
            ("dave", react(seq, false), "ReactionChanged"),
            ("carol", react(seq, false), "already 0"),
        ],
    );
    let sent_ms = scene.store.logs[&feed][seq as usize - 1].time_ms;
    let now_ms = std::mem::replace(&mut scene.now_ms, sent_ms + scene.settings.edit_window_ms + 1);
    check(&scene, &feed, vec![("carol", edit(seq), LATE)]);
    scene.now_ms = now_ms;
    scene.does("carol", &feed, recall(seq));
    let recalled = "the message was recalled";
    check(
        &scene,
        &feed,
        vec![
            ("carol", edit(seq), recalled),
            ("bob", react(seq, true), recalled),
            // What was given may be taken back.
            ("dave", react(seq, false), "ReactionChanged"),
        ],
    );
}

#[test]
fn edits_and_reaction_keys_have_a_bound() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let seq = scene.does("carol", &feed, send("x"));
    for _ in 0..limits::EDITS_MAX {
        scene.does("carol", &feed, edit(seq.0));
    }
    check(&scene, &feed, vec![("carol", edit(seq.0), "the message was edited too often")]);
    let with =
        |n: usize| Action::React { target: seq, key: ReactionKey::parse(&n.to_string()).unwrap(), on: true };
    for n in 0..limits::REACTION_KEYS_MAX {
        scene.does("dave", &feed, with(n));
    }
    check(
        &scene,
        &feed,
        vec![
            ("carol", with(limits::REACTION_KEYS_MAX), "the message has too many different reactions"),
            ("carol", with(0), "ReactionChanged"),
        ],
    );
}

#[test]
fn expired_messages_are_no_targets_and_their_edits_are_destroyed_with_them() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let due = scene.now_ms + 100;
    let seq = scene.does("carol", &feed, send_with("x", |d| d.expires_ms = Some(due)));
    let first_edit = scene.does("carol", &feed, edit(seq.0));
    let second_edit = scene.does("carol", &feed, edit(seq.0));
    let expire = || Action::ExpireMessages { targets: vec![seq, seq], early: false };
    check(&scene, &feed, vec![("root+admin", expire(), "already 0")]);
    scene.now_ms = due;
    // From its time on, before anything was appended.
    check(
        &scene,
        &feed,
        vec![
            ("carol", recall(seq.0), MISSING),
            ("carol", edit(seq.0), MISSING),
            ("dave", react(seq.0, true), MISSING),
            ("dave", send_with("x", |d| d.reply_to = Some(seq)), "reply_to: names no message of this feed"),
        ],
    );
    match scene.when("root+admin", &feed, expire()) {
        Ok(Decision::Append(plan)) => {
            assert_eq!(plan.strip, [seq, first_edit, second_edit]);
            assert_eq!(plan.events[0].event, Event::MessagesExpired { targets: vec![(seq, Ordinal(1))] });
        }
        other => panic!("{other:?}"),
    }
    scene.does("root+admin", &feed, expire());
    check(&scene, &feed, vec![("root+admin", expire(), "already 0"), ("bob", recall(seq.0), MISSING)]);
    let rows = &scene.store.rows;
    assert!(!rows.keys().any(|key| matches!(key, crate::rows::RowKey::Expiry(..))), "{rows:?}");
}

#[test]
fn messages_expire_early_when_the_feed_s_own_time_is_over() {
    let mut scene = Scene::open("room", "alice");
    let feed = feed_id("room");
    let later = scene.now_ms + 100_000;
    let plain = scene.does("carol", &feed, send("x"));
    let dated = scene.does("carol", &feed, send_with("x", |d| d.expires_ms = Some(later)));
    let recalled = scene.does("carol", &feed, send("x"));
    let recall_of_it = scene.does("carol", &feed, recall(recalled.0));
    let expire = |early| Action::ExpireMessages {
        targets: vec![SeqId(1), plain, dated, recalled, recall_of_it],
        early,
    };
    check(
        &scene,
        &feed,
        vec![("root+admin", expire(false), "already 0"), ("carol", expire(true), "not allowed")],
    );
    match scene.when("root+admin", &feed, expire(true)) {
        Ok(Decision::Append(plan)) => {
            assert_eq!(plan.strip, [plain, dated, recalled]);
            let targets = vec![(plain, Ordinal(1)), (dated, Ordinal(2)), (recalled, Ordinal(3))];
            assert_eq!(plan.events[0].event, Event::MessagesExpired { targets });
        }
        other => panic!("{other:?}"),
    }
    scene.does("root+admin", &feed, expire(true));
    check(
        &scene,
        &feed,
        vec![("root+admin", expire(true), "already 0"), ("carol", recall(plain.0), MISSING)],
    );
    let rows = &scene.store.rows;
    assert!(!rows.keys().any(|key| matches!(key, crate::rows::RowKey::Expiry(..))), "{rows:?}");
}

#[test]
fn feeds_are_created_once() {
    let scene = Scene::new();
    let feed = feed_id("g");
    let group = |members: &[&str]| Action::CreateFeed(create(FeedKind::Group, members));
    match scene.when("alice", &feed, group(&["carol", "bob", "alice", "bob"])) {
        Ok(Decision::Append(plan)) => {
            let joined = |name: &str, role| Event::MemberJoined { uid: uid(name), role };
            assert_eq!(plan.answer, 0);
            assert_eq!(plan.events[1].event, joined("alice", Role::Owner));
            assert_eq!(plan.events[2].event, joined("bob", Role::Member));
            assert_eq!(plan.events[3].event, joined("carol", Role::Member));
            assert_eq!(plan.events.len(), 4);
        }
        other => panic!("{other:?}"),
    }
    let direct = |members: &[&str]| Action::CreateFeed(create(FeedKind::Direct, members));
    let pair = direct_id("alice", "bob");
    check(
        &scene,
        &pair,
        vec![
            ("alice", direct(&["bob"]), "FeedCreated"),
            ("alice", direct(&["alice", "bob"]), "FeedCreated"),
            ("alice", direct(&["alice"]), "members: must name exactly two different users"),
            ("carol", direct(&["alice", "bob"]), "not allowed"),
        ],
    );
    let crowd: Vec<String> = (0..=limits::CREATE_MEMBERS_MAX).map(|n| n.to_string()).collect();
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    check(&scene, &feed, vec![("alice", group(&crowd), "members: are too many")]);
    assert!(scene.when("alice", &feed, group(&crowd[1..])).is_ok());

    let existing = Scene::direct("alice", "bob");
    check(
        &existing,
        &pair,
        vec![
            ("bob", direct(&["alice"]), "already 1"),
            ("alice", direct(&["bob", "alice"]), "already 1"),
            // The two are let in, a third learns nothing.
            ("carol", direct(&["bob"]), "no such feed"),
        ],
    );
    let taken = Scene::group(JoinMode::Invite, HistoryMode::All);
    check(
        &taken,
        &feed,
        vec![("erin", group(&[]), "already exists"), ("alice", group(&[]), "already exists")],
    );
    for reserved in ["user:alice", "direct:00"] {
        let answer = "feed_id: begins with a reserved prefix";
        check(&scene, &feed_id(reserved), vec![("alice", group(&[]), answer)]);
        // Existing or not.
        let existing = Scene::new().personal("alice");
        check(&existing, &feed_id(reserved), vec![("bob", group(&[]), answer)]);
    }
    let personal = Action::CreateFeed(create(FeedKind::Personal, &[]));
    check(&scene, &feed_id("user:alice"), vec![("alice", personal, "not allowed")]);
}

#[test]
fn marks_move_forward_unless_marked_unread() {
    let mut scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    for _ in 0..5 {
        scene.does("alice", &feed, send("x"));
    }
    let own = feed_id("user:bob");
    let marks = |read: Option<u64>, received: Option<u64>, unread_from: Option<u64>| Action::MoveMarks {
        feed: feed.clone(),
        read: read.map(SeqId),
        received: received.map(SeqId),
        unread_from: unread_from.map(SeqId),
    };
    let moved = |scene: &Scene, action| match scene.when("bob", &own, action) {
        Ok(Decision::Append(mut plan)) => match plan.events.pop().unwrap().event {
            Event::MarkMoved { read, received, .. } => {
                (read.map(|(seq, ordinal)| (seq.0, ordinal.0)), received.map(|seq| seq.0))
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(moved(&scene, marks(Some(4), None, None)), (Some((4, 3)), Some(4)), "read implies received");
    assert_eq!(moved(&scene, marks(Some(3), Some(5), None)), (Some((3, 2)), Some(5)));
    scene.does("bob", &own, marks(Some(4), Some(5), None));
    assert_eq!(moved(&scene, marks(Some(5), None, None)), (Some((5, 4)), None), "received already");
    assert_eq!(moved(&scene, marks(None, None, Some(3))), (Some((2, 1)), None), "back before entry 3");
    assert_eq!(moved(&scene, marks(None, Some(6), Some(1))), (Some((0, 0)), Some(6)));
    check(
        &scene,
        &own,
        vec![
            ("bob", marks(Some(4), None, None), "already 0"),
            ("bob", marks(Some(2), Some(1), None), "already 0"),
            // Unread from there on already: the mark does not jump forward.
            ("bob", marks(None, None, Some(5)), "already 0"),
            ("bob", marks(None, None, Some(6)), "already 0"),
            ("bob", marks(None, None, Some(0)), "unread_from: must be at least 1"),
            ("bob", marks(Some(5), None, Some(3)), "unread_from: cannot go with read_seq_id"),
            ("bob", marks(Some(7), None, None), "read_seq_id: is beyond the head"),
            ("bob", marks(None, Some(7), None), "received_seq_id: is beyond the head"),
            ("bob", marks(None, None, Some(7)), "unread_from: is beyond the head"),
            (
                "bob",
                Action::ResolveUnreplied { feed: feed.clone(), upto: SeqId(7) },
                "seq_id: is beyond the head",
            ),
            ("bob", Action::ResolveUnreplied { feed: feed.clone(), upto: SeqId(6) }, "UnrepliedResolved"),
            ("bob", Action::ResolveUnreplied { feed: feed.clone(), upto: SeqId(0) }, "already 0"),
        ],
    );
    let settings =
        |pinned, muted_until_ms| Action::ChangeSettings { feed: feed.clone(), pinned, muted_until_ms };
    check(
        &scene,
        &own,
        vec![
            ("bob", settings(Some(true), Some(9)), "FeedPinned+FeedMuted"),
            ("bob", settings(Some(false), Some(0)), "already 0"),
            ("bob", settings(None, Some(u64::MAX)), "muted_until_ms: is too large"),
        ],
    );
}

#[test]
fn the_state_follows_the_log() {
    let mut scene = Scene::group(JoinMode::Approval, HistoryMode::All);
    let feed = feed_id("g");
    let state = |scene: &Scene| match &scene.store.rows[&crate::rows::RowKey::Feed(feed.clone())] {
        crate::rows::RowValue::Feed(state) => state.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((state(&scene).member_count, state(&scene).owner.clone()), (4, Some(uid("alice"))));
    scene.does("alice", &feed, Action::ChangeRole { uid: uid("carol"), role: Role::Owner });
    assert_eq!(state(&scene).owner, Some(uid("carol")));
    scene.does("alice", &feed, Action::RemoveMember { uid: uid("alice"), reason: None });
    assert_eq!(state(&scene).member_count, 3);
    let change = |join| Action::ChangeFeed { title: Some(Arc::from("t")), join, history: None, meta: None };
    scene.does("carol", &feed, change(Some(JoinMode::Open)));
    assert_eq!((state(&scene).join, state(&scene).title.as_deref()), (JoinMode::Open, Some("t")));
    check(&scene, &feed, vec![("carol", change(None), "already 0")]);
    let direct = Scene::direct("alice", "bob");
    let only_groups = "only groups have a join and a history mode";
    check(
        &Scene::open("room", "alice"),
        &feed_id("room"),
        vec![("alice", change(Some(JoinMode::Open)), only_groups)],
    );
    check(&direct, &direct_id("alice", "bob"), vec![("alice", change(None), "not allowed")]);
}

#[test]
fn mentioning_everybody_is_a_plain_name_to_the_rules() {
    let scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let message =
        sent_by(&scene, "carol", &feed_id("g"), send_with("x", |d| d.mentions = vec![uid(MENTION_ALL)]));
    assert_eq!(message.mentions, [uid(MENTION_ALL)]);
}

#[test]
fn a_full_feed_says_so() {
    let scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    let principal = principal("alice");
    let command = crate::command::Command { feed: feed.clone(), action: send("x") };
    let mut rows = scene.store.clone();
    let head = Head { seq: SeqId::MAX, ..Head::default() };
    let state = match &scene.store.rows[&crate::rows::RowKey::Feed(feed)] {
        crate::rows::RowValue::Feed(state) => state.clone(),
        other => panic!("{other:?}"),
    };
    let context =
        gather(&principal, &command, Some(&state), head, &mut rows, 1, &scene.settings, toy_digest).unwrap();
    let authorized = crate::policy::authorize(&principal, command, Some(&state), &context).unwrap();
    let refused = decide(Some(&state), authorized, &context).map_err(Refusal::from);
    assert_eq!(told(&refused), "the feed is full");
}
