//! What callers are told when the engine fails (P11), and that nothing more is written after a failed sync (I-7).

use std::sync::atomic::Ordering;
use std::time::Duration;

use feedlog_core::ids::SeqId;
use feedlog_service::views::{AttachTo, Delivery};
use feedlog_service::{ReadError, SubmitError};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_nothing_is_written_and_reads_go_on() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    say(&ann, &feed, "durable").await;
    engine.fail(Some(Fail::UnknownLost));
    assert!(matches!(ann.submit(send(&feed, with_id("?", "a"))).await, Err(SubmitError::Unknown)));
    assert!(store.status().poisoned);
    assert_eq!(store.status().not_ready(), ["poisoned"]);
    for _ in 0..3 {
        let refused = ann.submit(send(&feed, draft("no"))).await;
        assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "{refused:?}");
    }
    let page = pull(&ann, &feed, 0).await;
    assert_eq!(page.head.0, 3);
    assert_eq!(text(&page.entries[2].entry), "\"durable\"");
    assert!(!store.status().not_ready().is_empty(), "only a restart helps");
}

/// After a full disk the service opens the engine again by itself; a group whose outcome was unknown is there or not,
/// and sending it again with the same id is right in both cases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_curable_failure_heals_by_itself() {
    for fail in [Fail::UnknownLost, Fail::UnknownWritten] {
        let (store, engine) = open(config());
        let feed = group(&store, "g", "ann", &["bob"]).await;
        let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
        let to = AttachTo::Feeds(vec![(feed.clone(), SeqId(3))]);
        let mut attachment = bob.attach(to).await.unwrap();
        assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
        engine.curable.store(true, Ordering::SeqCst);
        engine.fail(Some(fail));
        assert!(matches!(ann.submit(send(&feed, with_id("x", "a"))).await, Err(SubmitError::Unknown)));
        let healed = async {
            while store.status().poisoned {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), healed).await.unwrap();
        // The first command after it may still meet the old state: it did not happen and is tried again.
        let done = loop {
            match ann.submit(send(&feed, with_id("x", "a"))).await {
                Ok(receipt) => break receipt.done().clone(),
                Err(SubmitError::Unavailable(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(done.seq.0, 4);
        assert_eq!(done.duplicate, fail == Fail::UnknownWritten);
        assert_eq!(say(&ann, &feed, "goes on").await.seq.0, 5);
        assert_eq!(next_seq(&mut attachment).await, 4);
        assert_eq!(next_seq(&mut attachment).await, 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_recovers() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    engine.fail(Some(Fail::NoSpace));
    for _ in 0..3 {
        let refused = ann.submit(send(&feed, with_id("x", "a"))).await;
        assert!(matches!(refused, Err(SubmitError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(store.status().not_ready(), ["short_of_space"]);
    engine.fail(None);
    let done = ann.submit(send(&feed, with_id("x", "a"))).await.unwrap().done().clone();
    assert_eq!((done.seq.0, done.duplicate), (3, false), "what was refused did not happen");
    assert!(store.status().not_ready().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_answers_what_was_taken_and_takes_no_more() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    let mut attachment = ann.attach(AttachTo::Mine(Vec::new())).await.unwrap();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    engine.close_gate();
    let sent = {
        let (ann, feed) = (ann.clone(), feed.clone());
        tokio::spawn(async move { ann.submit(send(&feed, draft("x"))).await })
    };
    let blocked = engine.clone();
    tokio::task::spawn_blocking(move || blocked.wait_for_commit()).await.unwrap();
    let draining = {
        let store = store.clone();
        tokio::spawn(async move { store.drain(Duration::from_secs(20)).await })
    };
    while !store.status().draining {
        tokio::task::yield_now().await;
    }
    assert!(matches!(ann.submit(send(&feed, draft("late"))).await, Err(SubmitError::Unavailable(_))));
    assert!(matches!(
        ann.attach(AttachTo::Mine(Vec::new())).await.map(|_| ()),
        Err(ReadError::Unavailable(_))
    ));
    engine.open_gate();
    assert_eq!(sent.await.unwrap().unwrap().done().seq.0, 3);
    assert!(draining.await.unwrap(), "in time");
    assert!(attachment.next().await.is_none());
    assert!(matches!(ann.feed(&feed).await.map(|_| ()), Err(ReadError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_gives_up_at_its_deadline() {
    let (store, engine) = open(config());
    let feed = group(&store, "g", "ann", &[]).await;
    let ann = store.gate(user("ann"));
    engine.close_gate();
    let sent = tokio::spawn(async move { ann.submit(send(&feed, draft("x"))).await });
    let blocked = engine.clone();
    tokio::task::spawn_blocking(move || blocked.wait_for_commit()).await.unwrap();
    assert!(!store.drain(Duration::from_millis(20)).await);
    engine.open_gate();
    sent.await.unwrap().unwrap();
}
