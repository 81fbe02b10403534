//! No hole between history and live (P4), whoever is slow and whatever happens to the membership.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use feedlog_core::command::{Action, RecallTarget};
use feedlog_core::entry::Payload;
use feedlog_core::event::{Event, FeedKind, HistoryMode};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::Denied;
use feedlog_service::views::{After, AttachTo, Delivery, GoneReason, HistoryQuery};
use feedlog_service::{ReadError, StoreConfig, SubmitError};

use crate::world::*;

fn one(feed: &FeedId, after: u64) -> AttachTo {
    AttachTo::Feeds(vec![(feed.clone(), SeqId(after))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_then_caught_up_then_live() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for n in 0..450 {
        say(&ann, &feed, &n.to_string()).await;
    }
    let mut attachment = bob.attach(one(&feed, 10)).await.unwrap();
    for seq in 11..=453 {
        assert_eq!(next_seq(&mut attachment).await, seq);
    }
    match next(&mut attachment).await {
        Delivery::CaughtUp(heads) => assert_eq!(heads, vec![(feed.clone(), SeqId(453))]),
        other => panic!("{other:?}"),
    }
    for seq in 454..470 {
        say(&ann, &feed, "live").await;
        match next(&mut attachment).await {
            Delivery::Entry(view) => {
                assert_eq!((view.entry.seq.0, view.prev_seq.0), (seq, seq - 1));
                assert_eq!(text(&view.entry), "\"live\"");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// P4 as a property: readers attach at random places while others send, some read slowly, some with a queue of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_hole_and_no_duplicate_under_concurrent_sends() {
    let seed = seed();
    let mut random = Random::new(seed);
    for queue_max in [1, 7, 256] {
        let (store, _) = open(StoreConfig { attach_queue_max: queue_max, ..config() });
        let mut feeds = Vec::new();
        for n in 0..3 {
            feeds.push(group(&store, &format!("g{n}"), "ann", &["bob"]).await);
        }
        let mut senders = Vec::new();
        for sender in 0..4 {
            let (gate, feeds) = (store.gate(user("ann")), feeds.clone());
            let mut random = Random::new(seed ^ sender);
            senders.push(tokio::spawn(async move {
                for _ in 0..200 {
                    let feed = &feeds[random.below(3) as usize];
                    say(&gate, feed, "x").await;
                }
            }));
        }
        let mut readers = Vec::new();
        for _ in 0..8 {
            let (gate, feeds) = (store.gate(user("bob")), feeds.clone());
            let mut random = Random::new(random.below(u64::MAX));
            readers.push(tokio::spawn(async move {
                for _ in 0..random.below(60) {
                    tokio::task::yield_now().await;
                }
                let from: Vec<_> = feeds.iter().map(|feed| (feed.clone(), SeqId(random.below(4)))).collect();
                let mut cursors: BTreeMap<FeedId, SeqId> = from.iter().cloned().collect();
                let mut attachment = gate.attach(AttachTo::Feeds(from)).await.unwrap();
                let mut caught_up = false;
                // 800 messages and 9 entries of creation: done when every feed is at its final head.
                loop {
                    match next(&mut attachment).await {
                        Delivery::Entry(view) => {
                            let cursor = cursors.get_mut(&view.entry.feed).unwrap();
                            assert_eq!(view.entry.seq, cursor.next(), "no hole, no duplicate, in order");
                            assert!(view.prev_seq == *cursor || cursor.0 == 0);
                            *cursor = view.entry.seq;
                        }
                        Delivery::CaughtUp(heads) => {
                            assert!(!std::mem::replace(&mut caught_up, true), "once");
                            for (feed, head) in heads {
                                assert_eq!(cursors[&feed], head);
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                    let total: u64 = cursors.values().map(|seq| seq.0).sum();
                    if caught_up && total == 800 + 9 {
                        return;
                    }
                    if random.below(20) == 0 {
                        // Dropping `next` half way loses nothing.
                        let _ = tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await;
                    }
                }
            }));
        }
        for task in senders.into_iter().chain(readers) {
            task.await.unwrap_or_else(|error| panic!("seed {seed}, queue of {queue_max}: {error}"));
        }
        assert_eq!(store.status().attachments, 0, "dropped attachments leave nothing behind");
    }
}

/// `next` may be dropped at any await: what it had fetched is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_is_cancel_safe() {
    let (store, _) = open(StoreConfig { attach_queue_max: 2, ..config() });
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let mut attachment = ann.attach(one(&feed, 0)).await.unwrap();
    let sender = {
        let (ann, feed) = (ann.clone(), feed.clone());
        tokio::spawn(async move {
            for _ in 0..300 {
                say(&ann, &feed, "x").await;
            }
        })
    };
    let mut cursor = 0;
    while cursor < 302 {
        tokio::select! {
            biased;
            delivery = attachment.next() => {
                if let Some(Delivery::Entry(view)) = delivery {
                    assert_eq!(view.entry.seq.0, cursor + 1);
                    cursor += 1;
                }
            }
            () = tokio::task::yield_now() => {}
        }
    }
    sender.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_a_bounded_queue_and_misses_nothing() {
    let (store, _) = open(StoreConfig { attach_queue_max: 8, ..config() });
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachment = bob.attach(one(&feed, 3)).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    // 64 MiB of messages while nobody reads; that the queue stays small is tested beside it.
    for _ in 0..64 {
        let mut large = draft("");
        large.payload = Bytes::from(vec![b'1'; 1 << 20]);
        ann.submit(send(&feed, large)).await.unwrap();
    }
    for seq in 4..68 {
        assert_eq!(next_seq(&mut attachment).await, seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_told_and_sees_nothing_more() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachment = bob.attach(one(&feed, 3)).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    say(&ann, &feed, "for bob too").await;
    remove(&ann, &feed, "bob").await;
    say(&ann, &feed, "not for bob").await;
    let mut seen = Vec::new();
    loop {
        match next(&mut attachment).await {
            Delivery::Entry(view) => seen.push(view.entry.seq.0),
            Delivery::Ended(ended) => {
                assert_eq!(ended, feed);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // What was not yet delivered when the removal became durable may be left out, what follows it must be.
    assert!(seen.iter().all(|seq| *seq <= 5), "{seen:?}");
    assert!(matches!(bob.attach(one(&feed, 0)).await, Err(ReadError::Denied(Denied::FeedNotFound))));
    assert!(matches!(
        bob.history(&feed, HistoryQuery::After(SeqId(0)), 10, 0).await,
        Err(ReadError::Denied(Denied::FeedNotFound))
    ));
    assert!(matches!(
        bob.submit(send(&feed, draft("x"))).await,
        Err(SubmitError::Denied(Denied::FeedNotFound))
    ));
    say(&ann, &feed, "still not").await;
    let more = tokio::time::timeout(Duration::from_millis(30), attachment.next()).await;
    assert!(more.is_err(), "{more:?}");
    // A held read ends with the membership too.
    add(&ann, &feed, "bob").await;
    let head = bob.feed(&feed).await.unwrap().head;
    let held = {
        let (bob, feed) = (bob.clone(), feed.clone());
        tokio::spawn(async move { bob.history(&feed, HistoryQuery::After(head), 10, 20_000).await })
    };
    while store.status().attachments < 2 {
        tokio::task::yield_now().await;
    }
    remove(&ann, &feed, "bob").await;
    assert!(matches!(held.await.unwrap(), Err(ReadError::Denied(Denied::FeedNotFound))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mine_follows_feeds_joined_later() {
    let (store, _) = open(config());
    let old = group(&store, "old", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    say(&ann, &old, "before").await;
    let mut attachment = bob.attach(AttachTo::Mine(Vec::new())).await.unwrap();
    match next(&mut attachment).await {
        Delivery::CaughtUp(heads) => assert_eq!(heads, vec![(old.clone(), SeqId(4))]),
        other => panic!("{other:?}"),
    }
    say(&ann, &old, "live").await;
    assert_eq!(next_seq(&mut attachment).await, 5);
    // A group that bob is added to, a direct feed, an open feed where bob speaks, a message to bob's own channel.
    let new = group(&store, "new", "ann", &[]).await;
    say(&ann, &new, "without bob").await;
    add(&ann, &new, "bob").await;
    let pair = FeedId::direct(&uid("ann"), &uid("bob"), feedlog_storage::digest);
    let mut direct = draft("direct");
    direct.create = Some(create(FeedKind::Direct, &["ann", "bob"]));
    ann.submit(send(&pair, direct)).await.unwrap();
    let room = crate::world::feed("room");
    act(&ann, &room, Action::CreateFeed(create(FeedKind::Open, &[]))).await.unwrap();
    say(&bob, &room, "mine").await;
    let personal = FeedId::personal(&uid("bob"));
    let mut notice = draft("notice");
    notice.create = Some(create(FeedKind::Personal, &[]));
    store.gate(admin()).submit(send(&personal, notice)).await.unwrap();
    say(&ann, &new, "with bob").await;
    let mut seen: BTreeMap<FeedId, Vec<u64>> = BTreeMap::new();
    let complete = |seen: &BTreeMap<FeedId, Vec<u64>>| {
        seen.get(&new).is_some_and(|seqs| seqs.ends_with(&[5]))
            && [&pair, &room, &personal].iter().all(|feed| seen.contains_key(feed))
            && seen[&pair].len() == 2
            && seen[&personal].len() == 2
    };
    while !complete(&seen) {
        match next(&mut attachment).await {
            Delivery::Entry(view) => seen.entry(view.entry.feed.clone()).or_default().push(view.entry.seq.0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen[&new], [4, 5], "from the entry of joining on");
    assert_eq!(seen[&pair], [1, 2]);
    assert_eq!(seen[&room], [2]);
    remove(&ann, &new, "bob").await;
    loop {
        match next(&mut attachment).await {
            Delivery::Ended(feed) => break assert_eq!(feed, new),
            Delivery::Entry(view) => assert_eq!(view.entry.feed, new),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_the_readers_own() {
    let (store, _) = open(config());
    let ann = store.gate(user("ann"));
    let feed = crate::world::feed("g");
    let mut since_join = create(FeedKind::Group, &[]);
    since_join.history = HistoryMode::SinceJoin;
    act(&ann, &feed, Action::CreateFeed(since_join)).await.unwrap();
    say(&ann, &feed, "before bob").await;
    let hidden = say(&ann, &feed, "recalled").await;
    add(&ann, &feed, "bob").await;
    let recall = Action::RecallMessage { target: RecallTarget::Seq(hidden.seq), reason: None };
    act(&ann, &feed, recall).await.unwrap();
    let bob = store.gate(user("bob"));
    let mut attachment = bob.attach(one(&feed, 0)).await.unwrap();
    match next(&mut attachment).await {
        Delivery::Gone(of, gone) => {
            assert_eq!((of, gone.from.0, gone.to.0), (feed.clone(), 1, 4));
            assert_eq!(gone.reason, GoneReason::BeforeJoin);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next_seq(&mut attachment).await, 5);
    assert_eq!(next_seq(&mut attachment).await, 6);
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    let mut own = ann.attach(one(&feed, 3)).await.unwrap();
    match next(&mut own).await {
        Delivery::Entry(view) => {
            assert_eq!(view.entry.payload, Payload::None);
            assert!(view.fate.as_ref().unwrap().recalled.is_some());
        }
        other => panic!("{other:?}"),
    }
}

/// P6: what is recalled before a slow reader gets to it is not delivered with its content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_overtakes_a_slow_reader() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachment = bob.attach(one(&feed, 3)).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    let sent = say(&ann, &feed, "oops").await;
    let recall = Action::RecallMessage { target: RecallTarget::Seq(sent.seq), reason: None };
    act(&ann, &feed, recall).await.unwrap();
    match next(&mut attachment).await {
        Delivery::Entry(view) => {
            assert_eq!(view.entry.seq, sent.seq);
            assert_eq!(view.entry.payload, Payload::None);
        }
        other => panic!("{other:?}"),
    }
    match next(&mut attachment).await {
        Delivery::Entry(view) => assert!(matches!(view.entry.event, Event::MessageRecalled { .. })),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn feeds_are_added_and_removed_on_an_open_attachment() {
    let (store, _) = open(config());
    let (one_feed, other) = (group(&store, "a", "ann", &[]).await, group(&store, "b", "ann", &[]).await);
    let ann = store.gate(user("ann"));
    let mut attachment = ann.attach(one(&one_feed, 2)).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    attachment.add(other.clone(), After::Seq(SeqId(1))).await.unwrap();
    assert_eq!(next_seq(&mut attachment).await, 2);
    match next(&mut attachment).await {
        Delivery::CaughtUp(heads) => assert_eq!(heads, vec![(other.clone(), SeqId(2))]),
        other => panic!("{other:?}"),
    }
    assert!(attachment.add(crate::world::feed("none"), After::Seq(SeqId(0))).await.is_err());
    attachment.remove(&one_feed);
    say(&ann, &one_feed, "unheard").await;
    say(&ann, &other, "heard").await;
    match next(&mut attachment).await {
        Delivery::Entry(view) => assert_eq!(view.entry.feed, other),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_read_answers_at_once_or_after_its_time() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let page = ann.history(&feed, HistoryQuery::After(SeqId(2)), 10, 20).await.unwrap();
    assert!(page.entries.is_empty());
    let held = {
        let (ann, feed) = (ann.clone(), feed.clone());
        tokio::spawn(async move { ann.history(&feed, HistoryQuery::After(SeqId(2)), 10, 20_000).await })
    };
    while store.status().attachments == 0 {
        tokio::task::yield_now().await;
    }
    say(&ann, &feed, "now").await;
    assert_eq!(held.await.unwrap().unwrap().entries.len(), 1);
}
