//! Order, dedup, and nothing before it is durable (P1, P2, P3).

use std::time::Duration;

use feedlog_core::command::{Action, RecallTarget};
use feedlog_core::entry::Payload;
use feedlog_core::event::{Event, FeedKind};
use feedlog_core::feed::Rejected;
use feedlog_core::ids::SeqId;
use feedlog_core::policy::Denied;
use feedlog_service::views::{AttachTo, Delivery, HistoryQuery};
use feedlog_service::{ReadError, StoreConfig, SubmitError};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_sent_pulled_and_recalled() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let done = say(&ann, &feed, "hello").await;
    assert_eq!((done.seq.0, done.ordinal.0, done.duplicate), (4, 1, false));
    let page = pull(&bob, &feed, 0).await;
    assert_eq!(page.entries.len(), 4);
    assert_eq!(text(&page.entries[3].entry), "\"hello\"");
    assert_eq!(bob.unread().await.unwrap().total, 1);
    assert_eq!(bob.unreplied(10).await.unwrap().len(), 0);
    let list = bob.conversations(None, 10).await.unwrap();
    assert_eq!(list.rows.len(), 1);
    assert_eq!(list.rows[0].last.as_ref().unwrap().entry.seq, done.seq);

    let recall = Action::RecallMessage { target: RecallTarget::Seq(done.seq), reason: None };
    assert_eq!(act(&ann, &feed, recall).await.unwrap().seq.0, 5);
    let view = bob.entry(&feed, done.seq).await.unwrap();
    assert_eq!(view.entry.payload, Payload::None);
    assert!(view.fate.unwrap().recalled.is_some());
    assert_eq!(bob.unread().await.unwrap().total, 0);
    let eve = store.gate(user("eve"));
    for error in [
        eve.history(&feed, HistoryQuery::After(SeqId(0)), 10, 0).await.map(|_| ()).unwrap_err(),
        eve.history(&crate::world::feed("none"), HistoryQuery::After(SeqId(0)), 10, 0)
            .await
            .map(|_| ())
            .unwrap_err(),
        eve.feed(&feed).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, ReadError::Denied(Denied::FeedNotFound)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_tasks_with_one_client_msg_id_make_one_entry() {
    let (store, _) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let gate = store.gate(user("ann"));
            let feed = feed.clone();
            // Every tenth has another body.
            let text = if n % 10 == 9 { "other" } else { "same" };
            tokio::spawn(async move { (text, gate.submit(send(&feed, with_id(text, "id-1"))).await) })
        })
        .collect();
    let mut first = 0;
    let mut seqs = Vec::new();
    let mut conflicts = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (text, Ok(receipt)) => {
                first += u32::from(!receipt.done().duplicate);
                seqs.push((text, receipt.done().seq));
            }
            (text, Err(SubmitError::Rejected(Rejected::IdConflict { seq }))) => conflicts.push((text, seq)),
            (_, Err(error)) => panic!("{error:?}"),
        }
    }
    // I-5: at most one entry; whichever body came first wins, the other is refused.
    assert_eq!(first, 1);
    assert!(seqs.iter().all(|(text, seq)| *text == seqs[0].0 && *seq == seqs[0].1));
    assert!(conflicts.iter().all(|(text, seq)| *text != seqs[0].0 && *seq == seqs[0].1));
    assert_eq!(seqs.len() + conflicts.len(), 50);
    let page = pull(&store.gate(user("ann")), &feed, 0).await;
    assert_eq!(page.entries.iter().filter(|view| view.entry.event.is_message()).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_dense_whoever_sends() {
    let (store, _) = open(config());
    let mut feeds = Vec::new();
    for n in 0..5 {
        feeds.push(group(&store, &format!("g{n}"), "ann", &["bob"]).await);
    }
    let mut tasks = Vec::new();
    for task in 0..16_usize {
        let gate = store.gate(user(if task % 2 == 0 { "ann" } else { "bob" }));
        let feeds = feeds.clone();
        tasks.push(tokio::spawn(async move {
            let mut got = Vec::new();
            for n in 0..40_usize {
                let at = (task + n) % feeds.len();
                got.push((at, say(&gate, &feeds[at], "x").await.seq));
            }
            got
        }));
    }
    let mut acked = vec![Vec::new(); feeds.len()];
    for task in tasks {
        for (at, seq) in task.await.unwrap() {
            acked[at].push(seq.0);
        }
    }
    for (feed, mut seqs) in feeds.iter().zip(acked) {
        seqs.sort_unstable();
        let expected: Vec<u64> = (4..4 + seqs.len() as u64).collect();
        assert_eq!(seqs, expected, "every place was acknowledged exactly once");
        let page = pull(&store.gate(user("ann")), feed, 3).await;
        assert_eq!(page.entries.iter().map(|view| view.entry.seq.0).collect::<Vec<_>>(), expected);
        let mut prev = 3;
        for view in page.entries {
            assert_eq!(view.prev_seq.0, prev);
            prev = view.entry.seq.0;
        }
    }
}

/// P2 and I-2: with the sync held back there is no ack, no push, no read and no wake-up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_shows_before_the_sync() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &["bob"]).await;
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachment = bob.attach(AttachTo::Feeds(vec![(feed.clone(), SeqId(3))])).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    let waiting = {
        let (bob, feed) = (bob.clone(), feed.clone());
        tokio::spawn(async move { bob.history(&feed, HistoryQuery::After(SeqId(3)), 10, 20_000).await })
    };
    engine.close_gate();
    let sent = {
        let (ann, feed) = (ann.clone(), feed.clone());
        tokio::spawn(async move { ann.submit(send(&feed, with_id("secret", "a"))).await })
    };
    let blocked = engine.clone();
    tokio::task::spawn_blocking(move || blocked.wait_for_commit()).await.unwrap();
    // A retry and a refusal that rest on it wait too.
    let retried = {
        let (ann, feed) = (ann.clone(), feed.clone());
        tokio::spawn(async move { ann.submit(send(&feed, with_id("secret", "a"))).await })
    };
    let conflict = {
        let (ann, feed) = (ann.clone(), feed.clone());
        tokio::spawn(async move { ann.submit(send(&feed, with_id("another", "a"))).await })
    };
    // Both were decided when a later command of the same shard and mailbox has been; its answer is held as well, so
    // their having been queued is what can be seen.
    while store.status().queued.iter().sum::<usize>() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pull(&bob, &feed, 3).await.entries.len(), 0);
    assert_eq!(bob.feed(&feed).await.unwrap().head.0, 3);
    assert!(matches!(bob.entry(&feed, SeqId(4)).await, Err(ReadError::NotFound)));
    assert_eq!(bob.unread().await.unwrap().total, 0);
    let pushed = tokio::time::timeout(Duration::from_millis(50), attachment.next()).await;
    assert!(pushed.is_err(), "{pushed:?}");
    assert!(
        !sent.is_finished() && !retried.is_finished() && !conflict.is_finished() && !waiting.is_finished()
    );

    engine.open_gate();
    assert_eq!(sent.await.unwrap().unwrap().done().seq.0, 4);
    assert!(retried.await.unwrap().unwrap().done().duplicate);
    assert!(matches!(
        conflict.await.unwrap(),
        Err(SubmitError::Rejected(Rejected::IdConflict { seq: SeqId(4) }))
    ));
    assert_eq!(next_seq(&mut attachment).await, 4);
    assert_eq!(waiting.await.unwrap().unwrap().entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_in_order() {
    let (store, engine) = open(StoreConfig { shards: 1, ..config() });
    let feed = group(&store, "g", "ann", &[]).await;
    let before = engine.commits.load(std::sync::atomic::Ordering::SeqCst);
    let ann = store.gate(user("ann"));
    let mut commands: Vec<_> = (0..300).map(|n| send(&feed, with_id("x", &format!("{n}")))).collect();
    commands.push(send(&crate::world::feed("absent"), draft("x")));
    commands.push(send(&feed, with_id("x", "7")));
    // The disk is slow: all are decided before the first commit is through. A refusal that rests on nothing overtakes
    // it, and tells that everything before it was decided.
    engine.close_gate();
    let answers = {
        let ann = ann.clone();
        tokio::spawn(async move { ann.submit_all(commands).await })
    };
    while store.status().queued[0] < 301 {
        tokio::task::yield_now().await;
    }
    ann.submit(send(&crate::world::feed("absent"), draft("x"))).await.unwrap_err();
    engine.open_gate();
    let answers = answers.await.unwrap();
    for (n, answer) in answers[..300].iter().enumerate() {
        assert_eq!(answer.as_ref().unwrap().done().seq.0, 3 + n as u64);
    }
    assert!(matches!(answers[300], Err(SubmitError::Denied(Denied::FeedNotFound))));
    let again = answers[301].as_ref().unwrap().done();
    assert_eq!((again.seq.0, again.duplicate), (10, true));
    let commits = engine.commits.load(std::sync::atomic::Ordering::SeqCst) - before;
    assert!(commits < 10, "a batch shares syncs: {commits} commits for 300 messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_waits_and_then_says_so() {
    let config = StoreConfig { shards: 1, mailbox_commands_max: 4, submit_wait_ms_max: 30, ..config() };
    let (store, engine) = open(config);
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    engine.close_gate();
    let sends: Vec<_> = (0..4)
        .map(|_| {
            let (ann, feed) = (ann.clone(), feed.clone());
            tokio::spawn(async move { ann.submit(send(&feed, draft("x"))).await })
        })
        .collect();
    while store.status().queued[0] < 4 {
        tokio::task::yield_now().await;
    }
    let refused = ann.submit(send(&feed, draft("one too many"))).await;
    assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "{refused:?}");
    engine.open_gate();
    for sent in sends {
        sent.await.unwrap().unwrap();
    }
    let page = pull(&ann, &feed, 0).await;
    assert!(page.entries.iter().all(|view| text(&view.entry) != "\"one too many\""));
    assert_eq!(page.head.0, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_feeds_and_personal_feeds() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let pair = feedlog_core::ids::FeedId::direct(&uid("ann"), &uid("bob"), feedlog_storage::digest);
    let mut first = draft("hi");
    first.create = Some(create(FeedKind::Direct, &["ann", "bob"]));
    let done = ann.submit(send(&pair, first)).await.unwrap().done().clone();
    assert_eq!(done.seq.0, 2, "FeedCreated and the message are one group");
    assert_eq!(bob.unreplied(10).await.unwrap()[0].count, 1);
    say(&bob, &pair, "hi back").await;
    assert_eq!(bob.unreplied(10).await.unwrap().len(), 0);
    assert_eq!(ann.unreplied(10).await.unwrap()[0].seq.0, 3);
    let eve = store.gate(user("eve"));
    assert!(matches!(
        eve.submit(send(&pair, draft("x"))).await,
        Err(SubmitError::Denied(Denied::FeedNotFound))
    ));
    let personal = feedlog_core::ids::FeedId::personal(&uid("bob"));
    let root = store.gate(admin());
    let mut notice = draft("welcome");
    notice.create = Some(create(FeedKind::Personal, &[]));
    root.submit(send(&personal, notice)).await.unwrap();
    let page = pull(&bob, &personal, 0).await;
    assert!(page.entries.iter().any(|view| matches!(view.entry.event, Event::MessageSent(_))));
    assert!(bob.conversations(None, 10).await.unwrap().rows.iter().any(|row| row.info.feed == personal));
}
