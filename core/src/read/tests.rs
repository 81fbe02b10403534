use std::sync::Arc;

use super::*;
use crate::command::Action;
use crate::entry::Payload;
use crate::event::{Event, HistoryMode, JoinMode, MessageKind, Role};
use crate::ids::{ReactionKey, TimeMs};
use crate::policy::ReadScope;
use crate::testing::*;
use crate::views::{Gone, GoneReason, HistoryQuery, Page};

fn standing<'a>(scene: &Scene, uid: &'a Uid, feed: &'a FeedId) -> Standing<'a> {
    let row = |key| scene.store.rows.get(&key).cloned();
    Standing {
        feed,
        uid,
        user_feed: row(RowKey::UserFeed(uid.clone(), feed.clone())).and_then(RowValue::into_user_feed),
        place: row(RowKey::Place(uid.clone(), feed.clone()))
            .and_then(RowValue::into_place)
            .unwrap_or_default(),
        head: scene.head(feed),
    }
}

fn counts(scene: &Scene, name: &str, feed: &FeedId) -> (u64, u64) {
    let uid = uid(name);
    let count = unread(&scene.store, &standing(scene, &uid, feed)).unwrap();
    (count.unread, count.mentions)
}

fn owes(scene: &Scene, name: &str, feed: &FeedId) -> Option<(u64, u64)> {
    let uid = uid(name);
    let owed = unreplied(&scene.store, &standing(scene, &uid, feed)).unwrap();
    owed.map(|owed| (owed.seq.0, owed.count))
}

fn whole(scene: &Scene, feed: &FeedId, query: HistoryQuery, limit: usize) -> Page {
    let scope = ReadScope { first: SeqId(1), contents: true, manages: false };
    history(&scene.store, feed, scope, query, limit, scene.now_ms).unwrap()
}

fn read(scene: &mut Scene, who: &str, feed: &FeedId, seq: SeqId) {
    let action = Action::MoveMarks { feed: feed.clone(), read: Some(seq), received: None, unread_from: None };
    scene.does(who, &FeedId::personal(&uid(who)), action);
}

#[test]
fn unread_leaves_out_what_does_not_count() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    assert_eq!(counts(&scene, "carol", &feed), (0, 0));
    let first = scene.does("alice", &feed, send("1"));
    scene.does("alice", &feed, send_with("2", |d| d.mentions = vec![uid("carol")]));
    scene.does("alice", &feed, send_with("3", |d| d.mentions = vec![uid("@all")]));
    scene.does("alice", &feed, send_with("4", |d| d.kind = MessageKind::System));
    scene.does("carol", &feed, send("5"));
    assert_eq!(counts(&scene, "carol", &feed), (3, 2));
    assert_eq!(counts(&scene, "dave", &feed), (4, 1));
    assert_eq!(counts(&scene, "alice", &feed), (1, 0));
    assert_eq!(counts(&scene, "erin", &feed), (0, 0), "not a member");
    scene.does("alice", &feed, recall(first.0 + 1));
    assert_eq!(counts(&scene, "carol", &feed), (2, 1));
    read(&mut scene, "carol", &feed, first);
    assert_eq!(counts(&scene, "carol", &feed), (1, 1));
    // Recalling what was read already changes nothing.
    scene.does("alice", &feed, recall(first.0));
    assert_eq!(counts(&scene, "carol", &feed), (1, 1));
    // Rejoining begins anew.
    scene.does("dave", &feed, Action::RemoveMember { uid: uid("dave"), reason: None });
    assert_eq!(counts(&scene, "dave", &feed), (0, 0));
    scene.does("dave", &feed, Action::Join { reason: None });
    assert_eq!(counts(&scene, "dave", &feed), (0, 0));
    scene.does("alice", &feed, send("6"));
    assert_eq!(counts(&scene, "dave", &feed), (1, 0));
}

#[test]
fn open_feeds_count_for_those_who_sent_or_set_a_mark() {
    let mut scene = Scene::open("room", "alice");
    let feed = feed_id("room");
    scene.does("alice", &feed, send("1"));
    scene.does("alice", &feed, send("2"));
    assert_eq!(counts(&scene, "bob", &feed), (0, 0));
    read(&mut scene, "bob", &feed, SeqId(2));
    assert_eq!(counts(&scene, "bob", &feed), (1, 0));
    scene.does("carol", &feed, send("3"));
    assert_eq!(counts(&scene, "carol", &feed), (0, 0));
    scene.does("alice", &feed, send("4"));
    assert_eq!(counts(&scene, "carol", &feed), (1, 0));
    let pin = Action::ChangeSettings { feed: feed.clone(), pinned: Some(true), muted_until_ms: None };
    scene.does("dave", &FeedId::personal(&uid("dave")), pin);
    assert_eq!(counts(&scene, "dave", &feed), (0, 0), "a pin is no mark");
}

#[test]
fn unread_over_many_blocks_reads_few_rows() {
    let mut scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    for n in 0..1500_u64 {
        let who = if n % 100 == 99 { "bob" } else { "alice" };
        scene.add(&feed, who, message(|m| m.auto = n == 700));
    }
    assert_eq!(counts(&scene, "bob", &feed), (1485, 0));
    assert_eq!(owes(&scene, "bob", &feed), Some((2, 1484)), "all had seen nothing; one is automatic");
    read(&mut scene, "bob", &feed, SeqId(1001));
    assert_eq!(counts(&scene, "bob", &feed), (495, 0));
    // Alice sent to nobody in particular: her rows are her own messages' and bob's his.
    let rows =
        scene.store.rows.keys().filter(|key| matches!(key, RowKey::UserCounts(..) | RowKey::Counts(..)));
    assert_eq!(rows.count(), 6 + 6 + 1);
}

#[test]
fn an_ordinary_send_writes_two_rows_whatever_the_number_of_members() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    for n in 0..200 {
        let joined = Event::MemberJoined { uid: uid(&format!("m{n}")), role: Role::Member };
        scene.add(&feed, "alice", joined);
    }
    scene.does("carol", &feed, send("first"));
    let before = scene.store.rows.clone();
    scene.does("carol", &feed, send_with("x", |d| d.client_msg_id = id("1")));
    let changed: Vec<&RowKey> = scene
        .store
        .rows
        .iter()
        .filter(|(key, value)| before.get(key) != Some(value))
        .map(|(key, _)| key)
        .collect();
    assert!(
        matches!(changed[..], [RowKey::Dedup(..), RowKey::UserCounts(..)]),
        "one for the id, one for the sender: {changed:?}"
    );
}

#[test]
fn in_a_direct_feed_everything_waits_until_an_answer_that_had_seen_it() {
    let mut scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    scene.does("alice", &feed, send("2"));
    scene.does("alice", &feed, send("3"));
    assert_eq!(owes(&scene, "bob", &feed), Some((2, 2)));
    assert_eq!(owes(&scene, "alice", &feed), None);
    // Sent without having seen 3.
    scene.does("bob", &feed, send_with("4", |d| d.seen_seq = Some(SeqId(2))));
    assert_eq!(owes(&scene, "bob", &feed), Some((3, 1)));
    assert_eq!(owes(&scene, "alice", &feed), Some((4, 1)));
    // An automatic answer is none.
    scene.does("bob", &feed, send_with("5", |d| d.auto = true));
    assert_eq!(owes(&scene, "bob", &feed), Some((3, 1)));
    assert_eq!(owes(&scene, "alice", &feed), Some((4, 1)), "and asks for nothing");
    scene.does("bob", &feed, send("6"));
    assert_eq!(owes(&scene, "bob", &feed), None);
    // Without the answer it is owed again.
    scene.does("bob", &feed, recall(6));
    assert_eq!(owes(&scene, "bob", &feed), Some((3, 1)));
    scene.does("bob", &feed, recall(4));
    assert_eq!(owes(&scene, "bob", &feed), Some((2, 2)));
    let resolve = Action::ResolveUnreplied { feed: feed.clone(), upto: SeqId(2) };
    scene.does("bob", &feed_id("user:bob"), resolve);
    assert_eq!(owes(&scene, "bob", &feed), Some((3, 1)));
    scene.does("alice", &feed, recall(3));
    assert_eq!(owes(&scene, "bob", &feed), None);
    // Declined, then asked for by a machine.
    scene.does("alice", &feed, send_with("x", |d| d.to_reply = Some(false)));
    scene.does("alice", &feed, send_with("x", |d| d.kind = MessageKind::System));
    assert_eq!(owes(&scene, "bob", &feed), None);
    let asked = scene.does(
        "alice",
        &feed,
        send_with("x", |d| {
            d.auto = true;
            d.to_reply = Some(true);
        }),
    );
    assert_eq!(owes(&scene, "bob", &feed), Some((asked.0, 1)));
}

#[test]
fn in_a_group_those_owe_who_are_asked() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let all = ["alice", "bob", "carol", "dave"];
    let owed = |scene: &Scene| all.map(|name| owes(scene, name, &feed).map(|(seq, _)| seq));
    let plain = scene.does("carol", &feed, send("plain")).0;
    assert_eq!(owed(&scene), [None; 4]);
    let asked = scene.does("alice", &feed, send_with("@bob?", |d| d.mentions = vec![uid("bob")])).0;
    assert_eq!(owed(&scene), [None, Some(asked), None, None]);
    let answer = scene.does("dave", &feed, send_with("re", |d| d.reply_to = Some(SeqId(plain)))).0;
    assert_eq!(owed(&scene), [None, Some(asked), Some(answer), None]);
    let everybody = scene.does("dave", &feed, send_with("?", |d| d.to_reply = Some(true))).0;
    assert_eq!(owed(&scene), [Some(everybody), Some(asked), Some(answer), None]);
    scene.does("bob", &feed, send("yes"));
    assert_eq!(owed(&scene), [Some(everybody), None, Some(answer), None]);
    scene.does("dave", &feed, recall(everybody));
    assert_eq!(owed(&scene), [None, None, Some(answer), None]);
    // Who joins later was not asked.
    scene.does("alice", &feed, send_with("?", |d| d.mentions = vec![uid("@all")]));
    scene.does("erin", &feed, Action::Join { reason: None });
    assert_eq!(owes(&scene, "erin", &feed), None);
    assert!(owes(&scene, "dave", &feed).is_some());
    let declined = |d: &mut crate::command::Draft| {
        d.mentions = vec![uid("erin")];
        d.to_reply = Some(false);
    };
    scene.does("alice", &feed, send_with("fyi", declined));
    assert_eq!(owes(&scene, "erin", &feed), None);
}

#[test]
fn the_best_answer_of_a_block_is_found_again_after_a_recall() {
    let mut scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    scene.does("alice", &feed, send("2"));
    let mut answers = Vec::new();
    for n in 0..600_u64 {
        let seen = SeqId(2 + n / 3);
        answers.push(scene.add(&feed, "bob", message(|m| m.seen_seq = seen)));
        if n % 2 == 0 {
            // Entries that are no messages lie between, so that places and ordinals drift apart.
            for on in [true, false] {
                let key = ReactionKey::parse("👍").unwrap();
                scene.add(&feed, "alice", Event::ReactionChanged { target: SeqId(2), key, on });
            }
        }
    }
    let asked = scene.does("alice", &feed, send("?"));
    assert_eq!(owes(&scene, "bob", &feed), Some((asked.0, 1)));
    for target in answers.iter().rev() {
        scene.does("bob", &feed, recall(target.0));
    }
    assert_eq!(owes(&scene, "bob", &feed), Some((2, 2)));
    assert_eq!(MemStore::rebuild(&scene.store.logs), scene.store.rows, "I-6");
}

#[test]
fn explain_lists_what_counts_and_why_the_rest_does_not() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let soon: TimeMs = scene.now_ms + 50;
    scene.does("alice", &feed, send("7"));
    scene.does("alice", &feed, send("8"));
    scene.does("carol", &feed, send("9"));
    scene.does("alice", &feed, send_with("10", |d| d.kind = MessageKind::System));
    scene.does("alice", &feed, send_with("11", |d| d.expires_ms = Some(soon)));
    scene.does("alice", &feed, send("12"));
    scene.does("alice", &feed, send("13"));
    scene.does("alice", &feed, send("14"));
    scene.does("alice", &feed, recall(12));
    scene.now_ms = soon;
    scene.does("root+admin", &feed, Action::ExpireMessages { targets: vec![SeqId(11)], early: false });
    scene.does("root+admin", &feed, Action::EraseMessages { targets: vec![SeqId(13)], reason: None });
    scene.does("alice", &feed, send("18"));
    let carol = uid("carol");
    let explained = explain(&scene.store, &standing(&scene, &carol, &feed), false).unwrap();
    use crate::views::LeftOut::{Erased, Expired, Own, Recalled, System};
    let pairs = |list: &[(SeqId, SeqId)]| list.iter().map(|(a, b)| (a.0, b.0)).collect::<Vec<_>>();
    assert_eq!(pairs(&explained.counted), [(7, 8), (14, 18)]);
    let left: Vec<_> = explained.left_out.iter().map(|(seq, rule)| (seq.0, *rule)).collect();
    assert_eq!(left, [(9, Own), (10, System), (11, Expired), (12, Recalled), (13, Erased)]);
    assert_eq!((explained.unread.unread, explained.truncated_at), (4, SeqId::ZERO));
}

#[test]
fn p6_a_recalled_body_is_on_no_page() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let secret = send_with("secret", |draft| draft.carried = bytes::Bytes::from_static(b"\x01secret"));
    let seq = scene.does("carol", &feed, secret);
    let edit = Action::EditMessage {
        target: seq,
        content_type: Arc::from("text/html"),
        payload: bytes::Bytes::from_static(b"edited"),
    };
    scene.does("carol", &feed, edit);
    let page = whole(&scene, &feed, HistoryQuery::After(seq.prev()), 10);
    let bodies = |page: &Page| -> Vec<Option<Vec<u8>>> {
        page.entries.iter().map(|view| view.entry.payload.bytes().map(|bytes| bytes.to_vec())).collect()
    };
    assert_eq!(bodies(&page), [Some(b"edited".to_vec()), Some(b"edited".to_vec())]);
    let content_type = page.entries[0].entry.message().map(|message| message.content_type.clone());
    assert_eq!(content_type.as_deref(), Some("text/html"), "of the newest edit");
    let carried = |page: &Page| -> usize {
        page.entries
            .iter()
            .filter_map(|view| view.entry.message())
            .map(|message| message.carried.size())
            .sum()
    };
    assert_eq!(carried(&page), 7);
    let recalled = scene.does("bob", &feed, recall(seq.0));
    for query in [
        HistoryQuery::After(seq.prev()),
        HistoryQuery::Around(seq),
        HistoryQuery::Before(recalled.next()),
        HistoryQuery::Position(1),
    ] {
        let page = whole(&scene, &feed, query, 10);
        assert!(bodies(&page).iter().all(Option::is_none), "{query:?}: {page:?}");
        assert_eq!(carried(&page), 0, "{query:?}: {page:?}");
        let fate = page.entries.iter().find(|view| view.entry.seq == seq).and_then(|view| view.fate.clone());
        let tombstone = fate.and_then(|fate| fate.recalled).map(|recall| (recall.by, recall.seq));
        assert_eq!(tombstone, Some((uid("bob"), recalled)), "{query:?}");
    }
}

#[test]
fn p5_pages_say_what_they_do_not_show() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::SinceJoin);
    let feed = feed_id("g");
    let soon: TimeMs = scene.now_ms + 50;
    for n in 0..6 {
        scene.does("alice", &feed, send_with("x", |d| d.expires_ms = (n % 3 == 1).then_some(soon)));
    }
    scene.does("root+admin", &feed, Action::EraseMessages { targets: vec![SeqId(9)], reason: None });
    scene.now_ms = soon;
    // 1–6 setting up, 7–12 messages, 8 and 11 due, 9 erased, 13 the erasure.
    let scope = ReadScope { first: SeqId(4), contents: true, manages: false };
    let page = |query, limit| history(&scene.store, &feed, scope, query, limit, scene.now_ms).unwrap();
    let seqs = |page: &Page| page.entries.iter().map(|v| (v.entry.seq.0, v.prev_seq.0)).collect::<Vec<_>>();
    let gone = |from, to, reason| Gone { from: SeqId(from), to: SeqId(to), reason };
    let before_join = gone(1, 3, GoneReason::BeforeJoin);
    let (due, erased) = (gone(8, 8, GoneReason::Expired), gone(9, 9, GoneReason::Erased));
    let late = gone(11, 11, GoneReason::Expired);

    let all = page(HistoryQuery::After(SeqId(0)), 100);
    assert_eq!(seqs(&all), [(4, 0), (5, 4), (6, 5), (7, 6), (10, 7), (12, 10), (13, 12)]);
    assert_eq!(all.gone, [before_join, due, erased, late]);
    assert_eq!((all.next, all.head, all.first), (None, SeqId(13), SeqId(4)));

    let part = page(HistoryQuery::After(SeqId(6)), 2);
    assert_eq!(
        (seqs(&part), part.gone.clone(), part.next),
        (vec![(7, 6), (10, 7)], vec![due, erased], Some(10))
    );
    let inside = page(HistoryQuery::After(SeqId(2)), 1);
    assert_eq!((seqs(&inside), inside.next), (vec![(4, 0)], Some(4)));
    assert_eq!(inside.gone, [gone(3, 3, GoneReason::BeforeJoin)]);

    let newest = page(HistoryQuery::Before(SeqId(u64::MAX - 1)), 3);
    assert_eq!((seqs(&newest), newest.next), (vec![(13, 12), (12, 10), (10, 7)], Some(10)));
    assert_eq!(newest.gone, [late]);
    let oldest = page(HistoryQuery::Before(SeqId(10)), 9);
    assert_eq!((seqs(&oldest), oldest.next), (vec![(7, 6), (6, 5), (5, 4), (4, 0)], None));
    assert_eq!(oldest.gone, [before_join, due, erased]);

    let around = page(HistoryQuery::Around(SeqId(10)), 4);
    assert_eq!(seqs(&around), [(6, 5), (7, 6), (10, 7), (12, 10)]);
    assert_eq!((around.gone, around.next), (vec![due, erased, late], Some(12)));

    let position = page(HistoryQuery::Position(2), 2);
    assert_eq!((seqs(&position), position.next), (vec![(10, 7), (12, 10)], None));
    assert_eq!(position.gone, [due, erased, late]);
    let back = page(HistoryQuery::BackFrom(Ordinal(5)), 2);
    assert_eq!((seqs(&back), back.next, back.head_ordinal), (vec![(10, 7), (7, 6)], None, Ordinal(6)));
    assert_eq!(back.gone, [due, erased, late]);
    let back = page(HistoryQuery::BackFrom(Ordinal(99)), 1);
    assert_eq!((seqs(&back), back.next), (vec![(12, 10)], Some(5)));
    assert_eq!(seqs(&page(HistoryQuery::BackFrom(Ordinal(0)), 1)), []);
    let last = page(HistoryQuery::Position(-1), 5);
    assert_eq!((seqs(&last), last.next), (vec![(12, 10)], None));
    assert_eq!(seqs(&page(HistoryQuery::Position(99), 5)), []);
    assert_eq!(seqs(&page(HistoryQuery::After(SeqId(13)), 5)), []);
    assert_eq!(seqs(&page(HistoryQuery::After(SeqId(99)), 5)), []);
    assert_eq!(seqs(&page(HistoryQuery::Before(SeqId(0)), 5)), []);

    let entry = scene.store.logs[&feed][6].clone();
    match show(&scene.store, entry.clone(), scope, None, scene.now_ms).unwrap() {
        Shown::View(view) => assert_eq!((view.entry.seq, view.prev_seq), (SeqId(7), SeqId(6))),
        gone => panic!("{gone:?}"),
    }
    let stranger = ReadScope { first: SeqId(8), ..scope };
    let shown = show(&scene.store, entry, stranger, None, scene.now_ms).unwrap();
    assert!(matches!(shown, Shown::Gone(GoneReason::BeforeJoin)), "{shown:?}");
}

#[test]
fn long_stretches_that_are_gone_end_a_page_early_and_a_page_has_a_size() {
    let mut scene = Scene::direct("alice", "bob");
    let feed = direct_id("alice", "bob");
    for _ in 0..5000 {
        scene.add(&feed, "alice", message(|m| m.expires_ms = Some(1)));
    }
    scene.add(&feed, "alice", message(|_| {}));
    let first = whole(&scene, &feed, HistoryQuery::After(SeqId(1)), 1);
    assert!(first.entries.is_empty() && first.next.is_some(), "{:?}", first.next);
    let next = first.next.map(|next| SeqId(next as u64)).unwrap();
    let second = whole(&scene, &feed, HistoryQuery::After(next), 1);
    assert_eq!(
        second.entries.iter().map(|view| (view.entry.seq.0, view.prev_seq.0)).collect::<Vec<_>>(),
        [(5002, 1)]
    );

    let log = scene.store.logs.get_mut(&feed).unwrap();
    for entry in log.iter_mut() {
        entry.payload = Payload::Bytes(bytes::Bytes::from(vec![0; 1 << 10]));
        entry.event = message(|_| {});
    }
    log[10].payload = Payload::Bytes(bytes::Bytes::from(vec![0; crate::limits::PAGE_BYTES_MAX + 1]));
    for (query, count) in [(HistoryQuery::After(SeqId(0)), 10), (HistoryQuery::After(SeqId(10)), 1)] {
        let page = whole(&scene, &feed, query, 100);
        assert_eq!((page.entries.len(), page.next.is_some()), (count, true), "{query:?}");
    }
    let page = whole(&scene, &feed, HistoryQuery::Before(SeqId(21)), 100);
    assert_eq!((page.entries.len(), page.next), (9, Some(12)));
}

#[test]
fn places_are_found_by_ordinal() {
    let mut scene = Scene::group(JoinMode::Open, HistoryMode::All);
    let feed = feed_id("g");
    let mut random = Random::new(7);
    let mut messages = Vec::new();
    for _ in 0..400 {
        if random.chance(40) {
            messages.push(scene.add(&feed, "alice", message(|_| {})));
        } else {
            let key = ReactionKey::parse("x").unwrap();
            let on = messages.len() % 2 == 0;
            scene.add(&feed, "alice", Event::ReactionChanged { target: SeqId(1), key, on });
        }
    }
    let head = scene.head(&feed);
    let find = |ordinal| seq_of(&scene.store, &feed, Ordinal(ordinal), head).unwrap();
    for (at, seq) in messages.iter().enumerate() {
        assert_eq!(find(at as u64 + 1), Some(*seq));
    }
    assert_eq!((find(0), find(messages.len() as u64 + 1)), (None, None));
}
