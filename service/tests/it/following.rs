//! Attachments that follow by pattern and resume from a commit: every entry once, none missing, whatever is dropped and
//! found again meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use feedlog_core::ids::SeqId;
use feedlog_core::pattern::Pattern;
use feedlog_service::Attachment;
use feedlog_service::views::{After, Delivery, Resume};

use crate::world::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

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
