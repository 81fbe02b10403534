//! Attachments that follow by pattern and resume from a commit: every entry once, none missing, whatever is dropped and
//! found again meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use feedlog_core::ids::SeqId;
use feedlog_service::views::{After, Delivery, Resume};
use feedlog_service::{Attachment, StoreConfig};
use feedlog_storage::Engine;

use crate::world::*;

/// The next entry, as its feed and place.
async fn next_entry(attachment: &mut Attachment) -> (String, u64) {
    match next(attachment).await {
        Delivery::Entry(view) => (view.entry.feed.as_str().to_owned(), view.entry.seq.0),
        other => panic!("an entry, not {other:?}"),
    }
}

fn at(name: &str, seq: u64) -> (String, u64) {
    (name.to_owned(), seq)
}

/// Nothing more comes; the attachment has looked at everything.
async fn quiet(attachment: &mut Attachment) {
    let more = tokio::time::timeout(Duration::from_millis(20), attachment.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_finds_feeds_existing_and_created_later() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    publish(&ann, "a/old", "before").await;
    let mut attachment = bob.follow(None).await.unwrap();
    attachment.add_pattern(1, pattern("a/+"), After::Head);
    publish(&ann, "a/old", "x").await;
    assert_eq!(next_entry(&mut attachment).await, at("a/old", 3));
    publish(&ann, "a/new", "x").await;
    assert_eq!(next_entry(&mut attachment).await, at("a/new", 1));
    assert_eq!(next_entry(&mut attachment).await, at("a/new", 2));
    publish(&ann, "b", "x").await;
    // A group of a matching name is nobody's business.
    let group = group(&store, "a/group", "ann", &["bob"]).await;
    say(&ann, &group, "x").await;
    quiet(&mut attachment).await;
    assert_eq!(attachment.settled(), store.status().commit_no, "also past what does not match");
    for seq in 4..10 {
        publish(&ann, "a/old", "x").await;
        assert_eq!(next_entry(&mut attachment).await, at("a/old", seq));
    }
    attachment.remove_pattern(1);
    publish(&ann, "a/old", "x").await;
    quiet(&mut attachment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_resumes_from_its_commit_and_places() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachment = bob.follow(None).await.unwrap();
    attachment.add_pattern(1, pattern("#"), After::Head);
    publish(&ann, "a", "1").await;
    publish(&ann, "b", "1").await;
    for (name, seq) in [("a", 1), ("a", 2), ("b", 1), ("b", 2)] {
        assert_eq!(next_entry(&mut attachment).await, at(name, seq));
    }
    quiet(&mut attachment).await;
    let commit_no = attachment.settled();
    drop(attachment);
    publish(&ann, "a", "2").await;
    publish(&ann, "c", "1").await;
    publish(&ann, "a", "3").await;
    // Of `b` the last was not acknowledged; of `a` one more was delivered than is settled.
    let positions = vec![(feed("b"), SeqId(1)), (feed("a"), SeqId(3))];
    let mut attachment = bob.follow(Some(Resume { commit_no, positions })).await.unwrap();
    assert_eq!(attachment.settled(), commit_no);
    attachment.add_pattern(1, pattern("#"), After::Commit(commit_no));
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for _ in 0..4 {
        let (name, seq) = next_entry(&mut attachment).await;
        assert_eq!(attachment.settled(), commit_no, "not everything was returned");
        seen.entry(name).or_default().push(seq);
    }
    assert_eq!(
        seen,
        BTreeMap::from([("a".into(), vec![4]), ("b".into(), vec![2]), ("c".into(), vec![1, 2])])
    );
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    quiet(&mut attachment).await;
    assert_eq!(attachment.settled(), store.status().commit_no);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exact_feed_resumes_from_a_commit() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for _ in 0..20 {
        publish(&ann, "a", "x").await;
        publish(&ann, "b", "x").await;
    }
    // Each send is a commit of its own; the first to a feed has two entries.
    for (commit_no, first) in [(0, 1), (1, 3), (2, 3), (3, 4), (38, 21), (39, 22), (40, 22)] {
        let mut attachment = bob.follow(None).await.unwrap();
        attachment.add(feed("a"), After::Commit(commit_no)).await.unwrap();
        assert!(attachment.settled() >= commit_no.min(39));
        for seq in first..22 {
            assert_eq!(next_entry(&mut attachment).await, at("a", seq));
        }
        match next(&mut attachment).await {
            Delivery::CaughtUp(heads) => assert_eq!(heads, vec![(feed("a"), SeqId(21))]),
            other => panic!("{other:?}"),
        }
        quiet(&mut attachment).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_resumes_when_change_rows_are_gone() {
    let (store, engine) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for name in ["a/1", "a/2", "b"] {
        publish(&ann, name, "before").await;
    }
    let commit_no = store.status().commit_no;
    for _ in 0..3 {
        for name in ["a/2", "b", "a/3"] {
            publish(&ann, name, "missed").await;
        }
    }
    engine.prune_changes(store.status().commit_no).unwrap();
    let mut attachment = bob.follow(Some(Resume { commit_no, positions: Vec::new() })).await.unwrap();
    attachment.add_pattern(1, pattern("a/+"), After::Commit(commit_no));
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(next_entry(&mut attachment).await);
        assert_eq!(attachment.settled(), commit_no);
    }
    let expected = [("a/2", 3), ("a/2", 4), ("a/2", 5), ("a/3", 1), ("a/3", 2), ("a/3", 3), ("a/3", 4)];
    assert_eq!(seen, expected.map(|(name, seq)| at(name, seq)));
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
    publish(&ann, "a/1", "live").await;
    assert_eq!(next_entry(&mut attachment).await, at("a/1", 3));
    quiet(&mut attachment).await;
    assert_eq!(attachment.settled(), store.status().commit_no);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_followed_until_its_last_reason_is_gone() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    publish(&bob, "a/b", "mine").await;
    let mut attachment = bob.follow(None).await.unwrap();
    attachment.add_pattern(1, pattern("a/+"), After::Head);
    attachment.add_pattern(2, pattern("#"), After::Head);
    attachment.add_mine(After::Head).await.unwrap();
    attachment.add(feed("a/b"), After::Head).await.unwrap();
    assert!(
        matches!(next(&mut attachment).await, Delivery::CaughtUp(heads) if heads == [(feed("a/b"), SeqId(2))])
    );
    for (seq, reason) in (3..).zip(0..4) {
        publish(&ann, "a/b", "x").await;
        assert_eq!(next_entry(&mut attachment).await, at("a/b", seq), "once, for whatever reasons");
        quiet(&mut attachment).await;
        match reason {
            0 => attachment.remove(&feed("a/b")),
            1 => attachment.remove_pattern(2),
            2 => attachment.remove_mine(),
            _ => attachment.remove_pattern(1),
        }
    }
    publish(&ann, "a/b", "x").await;
    quiet(&mut attachment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn my_feeds_resume_from_a_commit() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let old = group(&store, "old", "ann", &["bob"]).await;
    let quiet_one = group(&store, "quiet", "ann", &["bob"]).await;
    say(&ann, &old, "before").await;
    let commit_no = store.status().commit_no;
    say(&ann, &old, "missed").await;
    let new = group(&store, "new", "ann", &[]).await;
    say(&ann, &new, "without bob").await;
    add(&ann, &new, "bob").await;
    let mut attachment = bob.follow(Some(Resume { commit_no, positions: Vec::new() })).await.unwrap();
    attachment.add_mine(After::Commit(commit_no)).await.unwrap();
    let mut seen = [next_entry(&mut attachment).await, next_entry(&mut attachment).await];
    seen.sort();
    assert_eq!(seen, [at("new", 4), at("old", 5)], "of a new feed from the entry of joining on");
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(heads) if heads.len() == 3));
    say(&ann, &quiet_one, "live").await;
    assert_eq!(next_entry(&mut attachment).await, at("quiet", 4));
    remove(&ann, &new, "bob").await;
    loop {
        match next(&mut attachment).await {
            Delivery::Ended(ended) => break assert_eq!(ended, new),
            Delivery::Entry(view) => assert_eq!(view.entry.feed, new),
            other => panic!("{other:?}"),
        }
    }
}

/// A commit whose outcome was unknown is published by nobody; it is found in the log once the engine is open again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_an_unknown_outcome_are_found() {
    let (store, engine) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    publish(&ann, "a", "x").await;
    let mut attachment = bob.follow(None).await.unwrap();
    attachment.add_pattern(1, pattern("#"), After::Head);
    quiet(&mut attachment).await;
    engine.curable.store(true, Ordering::SeqCst);
    engine.fail(Some(Fail::UnknownWritten));
    let mut lost = draft("unknown");
    lost.create = Some(create(feedlog_core::event::FeedKind::Open, &[]));
    assert!(ann.submit(send(&feed("b"), lost)).await.is_err());
    assert_eq!(next_entry(&mut attachment).await, at("b", 1));
    assert_eq!(next_entry(&mut attachment).await, at("b", 2));
    // The first command after it may still meet the old state: it did not happen and is tried again.
    while ann.submit(send(&feed("b"), draft("x"))).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(next_entry(&mut attachment).await, at("b", 3));
    quiet(&mut attachment).await;
    assert_eq!(attachment.settled(), store.status().commit_no);
}

/// A session that missed many more feeds than an attachment follows gets them commit by commit, then goes on live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_feeds_than_are_followed() {
    let (store, engine) = open(StoreConfig { attach_feeds_max: 10, ..config() });
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    for pruned in [false, true] {
        let commit_no = store.status().commit_no;
        let names: Vec<String> = (0..1500).map(|n| format!("many/{pruned}/{n}")).collect();
        for some in names.chunks(100) {
            let sends = some.iter().map(|name| publish(&ann, name, "x"));
            futures_util::future::join_all(sends).await;
        }
        if pruned {
            engine.prune_changes(store.status().commit_no).unwrap();
        }
        let mut attachment = bob.follow(Some(Resume { commit_no, positions: Vec::new() })).await.unwrap();
        attachment.add_pattern(1, pattern("many/#"), After::Commit(commit_no));
        let mut seen = BTreeSet::new();
        while seen.len() < 2 * names.len() {
            assert!(seen.insert(next_entry(&mut attachment).await), "once");
        }
        assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(_)));
        for some in names.chunks(100) {
            let sends = some.iter().map(|name| publish(&ann, name, "live"));
            futures_util::future::join_all(sends).await;
            for _ in some {
                let (name, seq) = next_entry(&mut attachment).await;
                assert!(seq == 3 && seen.insert((name, seq)), "once");
            }
        }
        quiet(&mut attachment).await;
        assert_eq!(attachment.settled(), store.status().commit_no);
    }
}

/// Every one of many followers of a pattern gets every entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_followers() {
    let (store, _) = open(config());
    let (ann, bob) = (store.gate(user("ann")), store.gate(user("bob")));
    let mut attachments = Vec::new();
    for _ in 0..1000 {
        let mut attachment = bob.follow(None).await.unwrap();
        attachment.add_pattern(1, pattern("news/+"), After::Head);
        attachments.push(attachment);
    }
    for _ in 0..5 {
        publish(&ann, "news/today", "x").await;
    }
    for attachment in &mut attachments {
        for seq in 1..=6 {
            assert_eq!(next_entry(attachment).await, at("news/today", seq));
        }
    }
    drop(attachments);
    assert_eq!(store.status().attachments, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_does_not_exist_yet_is_followed_from_its_first_entry() {
    let (store, _) = open(config());
    let (root, bob) = (store.gate(admin()), store.gate(user("bob")));
    let mut attachment = bob.follow(None).await.unwrap();
    for (name, seq) in [("user:bob", 0), ("an/open/one", 0), ("a/group/of/his", 7), ("a/group/of/others", 0)]
    {
        attachment.add_coming(feed(name), After::Seq(SeqId(seq))).await.unwrap();
    }
    attachment.add_coming(feed("user:eve"), After::Head).await.unwrap_err();
    attachment.add_coming(feed("direct:00"), After::Head).await.unwrap_err();
    attachment.add(feed("another"), After::Head).await.unwrap_err();
    assert!(matches!(next(&mut attachment).await, Delivery::CaughtUp(heads) if heads.len() == 4));
    act(&root, &feed("user:bob"), send(&feed("user:bob"), draft("hello")).action).await.unwrap();
    assert_eq!(next_entry(&mut attachment).await, at("user:bob", 1));
    assert_eq!(next_entry(&mut attachment).await, at("user:bob", 2));
    publish(&root, "an/open/one", "x").await;
    assert_eq!(next_entry(&mut attachment).await, at("an/open/one", 1));
    assert_eq!(next_entry(&mut attachment).await, at("an/open/one", 2));
    group(&store, "a/group/of/his", "ann", &["bob"]).await;
    assert_eq!(next_entry(&mut attachment).await, at("a/group/of/his", 1));
    group(&store, "a/group/of/others", "ann", &["eve"]).await;
    loop {
        match next(&mut attachment).await {
            Delivery::Entry(view) => assert_eq!(view.entry.feed.as_str(), "a/group/of/his"),
            Delivery::Ended(ended) => break assert_eq!(ended.as_str(), "a/group/of/others"),
            other => panic!("{other:?}"),
        }
    }
    quiet(&mut attachment).await;
}
