//! Attachments that follow by pattern and resume from a commit: every entry once, none missing, whatever is dropped and
//! found again meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::pattern::Pattern;
use feedlog_service::views::{After, Delivery, Resume};
use feedlog_service::{Attachment, Gate, Store, StoreConfig};
use feedlog_storage::Engine;

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

/// Names that patterns match in many ways, `e` for those that are followed by name, and one that no wildcard shows.
const NAMES: [&str; 14] =
    ["a", "a/x", "a/y", "a/x/1", "a/x/2", "b", "b/x", "b/y/1", "b//1", "c/x", "c/x/1", "e/1", "e/2", "$s/x"];
const PATTERNS: [&str; 11] =
    ["#", "a/#", "+/x", "+/+/1", "+", "b/#", "c/x/1", "none/#", "$s/#", "a/+", "new/+"];

/// What one session is subscribed to and has got, as a front end keeps it.
#[derive(Default)]
struct Session {
    patterns: Vec<(u32, Pattern, u64)>,
    exact: Vec<(FeedId, u64)>,
    settled: u64,
    /// The newest place delivered of each feed, with the commit at which it is not needed any more.
    positions: BTreeMap<FeedId, (SeqId, u64)>,
    seen: BTreeMap<FeedId, Vec<u64>>,
    /// What happened, for a failure.
    log: Vec<String>,
}

impl Session {
    fn note(&mut self, delivery: Delivery, attachment: &Attachment) {
        match delivery {
            Delivery::Entry(view) => {
                let entry = &view.entry;
                self.positions.insert(entry.feed.clone(), (entry.seq, attachment.reached()));
                self.log.push(format!("{} {} reached {}", entry.feed, entry.seq, attachment.reached()));
                self.seen.entry(entry.feed.clone()).or_default().push(entry.seq.0);
            }
            Delivery::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
        self.settle(attachment);
    }

    fn settle(&mut self, attachment: &Attachment) {
        let settled = std::mem::replace(&mut self.settled, attachment.settled());
        if settled != self.settled {
            self.log.push(format!("settled {}", self.settled));
        }
        self.positions.retain(|_, (_, reached)| *reached > self.settled);
    }

    /// Something new is followed.
    async fn subscribe(&mut self, attachment: &mut Attachment, random: &mut Random, store: &Store) {
        if random.below(4) == 0 {
            let feed = feed(["e/1", "e/2", "a/x"][random.below(3) as usize]);
            let commit_no = store.status().commit_no;
            attachment.add(feed.clone(), After::Commit(commit_no)).await.unwrap();
            self.exact.push((feed, commit_no));
        } else {
            let id = self.patterns.len() as u32;
            let pattern = pattern(PATTERNS[random.below(PATTERNS.len() as u64) as usize]);
            let from = attachment.add_pattern(id, pattern.clone(), After::Head);
            self.patterns.push((id, pattern, from));
        }
        self.settle(attachment);
    }

    /// Goes on where it was; of some feeds the last entries were not acknowledged.
    async fn resume(&mut self, bob: &Gate, random: &mut Random) -> Attachment {
        for (feed, (place, _)) in &mut self.positions {
            let seen = self.seen.get_mut(feed).unwrap();
            for _ in 0..random.below(4) {
                // Only what this session was given.
                if seen.pop().is_some() {
                    *place = place.prev();
                }
            }
        }
        let positions: Vec<_> =
            self.positions.iter().map(|(feed, (place, _))| (feed.clone(), *place)).collect();
        self.log.push(format!("resumes {positions:?}"));
        let commit_no = self.settled;
        let mut attachment = bob.follow(Some(Resume { commit_no, positions })).await.unwrap();
        for (id, pattern, from) in &self.patterns {
            attachment.add_pattern(*id, pattern.clone(), After::Commit(commit_no.max(*from)));
        }
        for (feed, from) in &self.exact {
            attachment.add(feed.clone(), After::Commit(commit_no.max(*from))).await.unwrap();
        }
        self.settle(&attachment);
        assert!(self.settled <= commit_no);
        attachment
    }

    /// Against a naive list of all entries in the order of commits.
    fn check(&self, all: &[(u64, FeedId, u64)]) {
        let mut expected: BTreeMap<FeedId, Vec<u64>> = BTreeMap::new();
        for (commit_no, feed, seq) in all {
            let by_pattern =
                self.patterns.iter().any(|(_, p, from)| from < commit_no && p.matches(feed.as_str()));
            let by_name = self.exact.iter().any(|(name, from)| name == feed && from < commit_no);
            if by_pattern || by_name {
                expected.entry(feed.clone()).or_default().push(*seq);
            }
        }
        for feed in expected.keys().chain(self.seen.keys()) {
            let (seen, expected) = (self.seen.get(feed), expected.get(feed));
            let none = Vec::new();
            assert_eq!(
                seen.unwrap_or(&none),
                expected.unwrap_or(&none),
                "{feed}: {:?} {:?}\n{}",
                self.patterns,
                self.exact,
                self.log.join("\n")
            );
        }
    }
}

/// All entries of open feeds.
fn all_entries(engine: &dyn Engine, groups: &BTreeSet<&str>) -> Vec<(u64, FeedId, u64)> {
    let mut all = Vec::new();
    for feed in engine.feeds(None, 10_000).unwrap() {
        if !groups.contains(feed.as_str()) {
            let records = engine.records(&feed, SeqId(1), SeqId::MAX, usize::MAX, usize::MAX).unwrap();
            all.extend(records.iter().map(|record| (record.commit_no, feed.clone(), record.entry.seq.0)));
        }
    }
    all.sort();
    all
}

async fn one_follower(store: Store, seed: u64, done: Arc<AtomicBool>) -> Session {
    let bob = store.gate(user("bob"));
    let mut random = Random::new(seed);
    let mut session = Session::default();
    let mut attachment = bob.follow(None).await.unwrap();
    session.settled = attachment.settled();
    session.subscribe(&mut attachment, &mut random, &store).await;
    loop {
        let is_done = done.load(Ordering::SeqCst);
        match random.below(60) {
            0 if session.patterns.len() + session.exact.len() < 6 => {
                session.subscribe(&mut attachment, &mut random, &store).await;
            }
            1 => {
                drop(attachment);
                for _ in 0..random.below(200) {
                    tokio::task::yield_now().await;
                }
                attachment = session.resume(&bob, &mut random).await;
            }
            2 => {
                // So slow that the queue overflows.
                for _ in 0..random.below(100) {
                    tokio::task::yield_now().await;
                }
            }
            _ => match tokio::time::timeout(Duration::from_millis(2), attachment.next()).await {
                Ok(Some(delivery)) => session.note(delivery, &attachment),
                Ok(None) => panic!("the attachment ended"),
                Err(_) => {
                    session.settle(&attachment);
                    if is_done && session.settled == store.status().commit_no {
                        // What was not acknowledged may still be on its way.
                        match tokio::time::timeout(Duration::from_millis(200), attachment.next()).await {
                            Ok(delivery) => session.note(delivery.unwrap(), &attachment),
                            Err(_) => return session,
                        }
                    }
                }
            },
        }
    }
}

async fn random_followers(seed: u64) {
    let mut random = Random::new(seed);
    let mut pick = |list: &[usize]| list[random.below(list.len() as u64) as usize];
    let config = StoreConfig {
        attach_queue_max: pick(&[1, 3, 256]),
        attach_feeds_max: pick(&[3, 4, 7, 10_000]),
        ..config()
    };
    let (store, engine) = open(config);
    let ann = store.gate(user("ann"));
    for name in ["e/1", "e/2", "a/x"] {
        publish(&ann, name, "x").await;
    }
    group(&store, "a/group", "ann", &["bob"]).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut followers = Vec::new();
    for n in 0..5 {
        followers.push(tokio::spawn(one_follower(store.clone(), seed ^ (n << 32), done.clone())));
    }
    let mut publishers = Vec::new();
    for n in 0..4_u64 {
        let (gate, mut random) = (ann.clone(), Random::new(seed ^ (n << 40)));
        let engine = engine.clone();
        publishers.push(tokio::spawn(async move {
            for round in 0..80 {
                match random.below(20) {
                    0 => drop(say(&gate, &feed("a/group"), "x").await),
                    1 => drop(publish(&gate, &format!("new/{}", random.below(400)), "x").await),
                    2 if round % 3 == 0 => {
                        let upto = engine.commit_no().saturating_sub(random.below(30));
                        engine.prune_changes(upto).unwrap();
                    }
                    3 => {
                        // Many commands at once: several feeds in one commit.
                        let names: Vec<String> = (0..random.below(12)).map(|n| format!("new/{n}")).collect();
                        let sends = names.iter().map(|name| publish(&gate, name, "x"));
                        futures_util::future::join_all(sends).await;
                    }
                    _ => {
                        let name = NAMES[random.below(NAMES.len() as u64) as usize];
                        publish(&gate, name, "x").await;
                    }
                }
            }
        }));
    }
    for task in publishers {
        task.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut sessions = Vec::new();
    for task in followers {
        let session = tokio::time::timeout(Duration::from_secs(60), task).await.expect("in time").unwrap();
        sessions.push(session);
    }
    let all = all_entries(&*engine, &BTreeSet::from(["a/group"]));
    sessions.iter().for_each(|session| session.check(&all));
    assert_eq!(store.status().attachments, 0, "dropped attachments leave nothing behind");
}

/// Every session gets exactly the entries of what it follows, each once and in the order of its feed, however often it is
/// interrupted, whatever overflows and gives way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_get_everything_once() {
    let first = seed();
    let count = std::env::var("FEEDLOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for seed in (0..count).map(|n| first.wrapping_add(n)) {
        println!("seed {seed}");
        random_followers(seed).await;
    }
}
