//! Marks, receipts, unread, and what is merged on the way.

use std::time::Duration;

use feedlog_core::event::Event;
use feedlog_core::feed::Rejected;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::views::LeftOut;
use feedlog_service::{StoreConfig, SubmitError};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_count_and_explain() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for n in 0..5 {
        say(&ann, &feed, &n.to_string()).await;
    }
    say(&bob, &feed, "own").await;
    assert_eq!(bob.unread().await.unwrap().total, 5, "sending moves no mark");
    bob.submit(mark("bob", &feed, Some(5), None)).await.unwrap();
    let marks = bob.marks(&feed).await.unwrap();
    assert_eq!((marks.read_seq.0, marks.received_seq.0), (5, 5));
    let explained = bob.unread_of(&feed).await.unwrap();
    assert_eq!(explained.unread.unread, 3);
    assert_eq!(explained.counted, [(SeqId(6), SeqId(8))]);
    assert_eq!(explained.left_out, [(SeqId(9), LeftOut::Own)]);
    let receipts = ann.receipts(&feed, SeqId(5), None, 10).await.unwrap();
    assert_eq!((receipts.delivered, receipts.read, receipts.members.len()), (1, 1, 1));
    let receipts = ann.receipts(&feed, SeqId(6), None, 10).await.unwrap();
    assert_eq!((receipts.delivered, receipts.read), (0, 0));
    assert_eq!(receipts.members[0].uid, uid("bob"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_marks_merge_and_answers_wait_for_the_merged_entry() {
    let (store, _) = open(StoreConfig { received_every_ms: 150, ..config() });
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for n in 0..60 {
        say(&ann, &feed, &n.to_string()).await;
    }
    let personal = FeedId::personal(&uid("bob"));
    let first = bob.submit(mark("bob", &feed, None, Some(4))).await.unwrap().done().clone();
    let moves: Vec<_> = (5..60)
        .map(|seq| {
            let (bob, feed) = (bob.clone(), feed.clone());
            tokio::spawn(async move { bob.submit(mark("bob", &feed, None, Some(seq))).await })
        })
        .collect();
    // One that would be refused does not take the others with it.
    let bad = bob.submit(mark("bob", &feed, None, Some(10_000))).await;
    assert!(matches!(bad, Err(SubmitError::Rejected(Rejected::BadField { .. }))), "{bad:?}");
    for moved in moves {
        let done = moved.await.unwrap().unwrap().done().clone();
        assert!(done.seq > first.seq);
        assert!(bob.marks(&feed).await.unwrap().received_seq.0 >= 5, "durable when answered");
    }
    assert_eq!(bob.marks(&feed).await.unwrap().received_seq.0, 59);
    let log = pull(&bob, &personal, 0).await;
    let moved = log.entries.iter().filter(|view| matches!(view.entry.event, Event::MarkMoved { .. })).count();
    assert!(moved <= 4, "{moved} entries for 56 moves");
    // A read mark is written at once and takes what is held along.
    let held = {
        let (bob, feed) = (bob.clone(), feed.clone());
        tokio::spawn(async move { bob.submit(mark("bob", &feed, None, Some(62))).await })
    };
    let read = tokio::time::timeout(Duration::from_secs(20), bob.submit(mark("bob", &feed, Some(61), None)));
    read.await.unwrap().unwrap();
    held.await.unwrap().unwrap();
    let marks = bob.marks(&feed).await.unwrap();
    assert_eq!((marks.read_seq.0, marks.received_seq.0), (61, 62));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_moves_the_marks_of_others() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let ann = store.gate(user("ann"));
    for command in [mark("bob", &feed, None, Some(1)), mark("bob", &feed, Some(1), None)] {
        assert!(matches!(ann.submit(command).await, Err(SubmitError::Denied(_))));
    }
}

/// What an answer had seen is the sender's received mark: the shard of the group must see it at once, although the
/// shard of the personal feed writes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_mark_decides_what_an_answer_had_seen() {
    let (store, _) = open(StoreConfig { received_every_ms: 0, ..config() });
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let pair = FeedId::direct(&uid("ann"), &uid("bob"), feedlog_storage::digest);
    let mut first = draft("one");
    first.create = Some(create(feedlog_core::event::FeedKind::Direct, &["ann", "bob"]));
    ann.submit(send(&pair, first)).await.unwrap();
    for round in 0..20 {
        let asked = say(&ann, &pair, "and?").await.seq;
        say(&ann, &pair, "and this?").await;
        bob.submit(mark("bob", &pair, None, Some(asked.0))).await.unwrap();
        say(&bob, &pair, "to the first").await;
        let owed = bob.unreplied(10).await.unwrap();
        assert_eq!(owed.len(), 1, "round {round}");
        assert_eq!((owed[0].seq, owed[0].count), (asked.next(), 1), "round {round}");
        bob.submit(mark("bob", &pair, None, Some(asked.0 + 2))).await.unwrap();
        say(&bob, &pair, "to all").await;
        assert!(bob.unreplied(10).await.unwrap().is_empty(), "round {round}");
    }
}

/// A drain writes what is held back instead of losing it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_writes_marks_that_are_held() {
    let (store, engine) = open(StoreConfig { received_every_ms: 60_000, shards: 1, ..config() });
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for n in 0..5 {
        say(&ann, &feed, &n.to_string()).await;
    }
    bob.submit(mark("bob", &feed, None, Some(4))).await.unwrap();
    let held = {
        let (bob, feed) = (bob.clone(), feed.clone());
        tokio::spawn(async move { bob.submit(mark("bob", &feed, None, Some(7))).await })
    };
    // A held move gives its place in the mailbox back; a later command of the same shard shows that it was taken.
    tokio::task::yield_now().await;
    say(&ann, &feed, "after").await;
    let personal = FeedId::personal(&uid("bob"));
    let head = feedlog_storage::Engine::head(&*engine, &personal).unwrap().seq;
    let drained = store.drain(Duration::from_secs(20)).await;
    assert!(drained);
    match held.await.unwrap() {
        Ok(receipt) => assert!(receipt.done().seq > head, "durable, although its time had not come"),
        // Handed over only after the drain began.
        Err(SubmitError::Unavailable(_)) => {}
        Err(error) => panic!("{error:?}"),
    }
}
