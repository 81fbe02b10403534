//! Sessions as front ends keep them, against a naive list of all entries: what is stored of one is enough to go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::pattern::Pattern;
use feedlog_service::views::{After, Delivery, Resume};
use feedlog_service::{Attachment, Gate, Store, StoreConfig};
use feedlog_storage::Engine;

use crate::world::*;

/// Names that patterns match in many ways, `e` for those that are followed by name, and one that no wildcard shows.
const NAMES: [&str; 14] =
    ["a", "a/x", "a/y", "a/x/1", "a/x/2", "b", "b/x", "b/y/1", "b//1", "c/x", "c/x/1", "e/1", "e/2", "$s/x"];
/// Not for patterns, but one of the reader's own.
const GROUP: &str = "a/group";
const PATTERNS: [&str; 11] =
    ["#", "a/#", "+/x", "+/+/1", "+", "b/#", "c/x/1", "none/#", "$s/#", "a/+", "new/+"];

/// What one session is subscribed to and has got, as a front end keeps it.
#[derive(Default)]
struct Session {
    patterns: Vec<(u32, Pattern, u64)>,
    exact: Vec<(FeedId, u64)>,
    mine: Option<u64>,
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
        if random.below(6) == 0 && self.mine.is_none() {
            let commit_no = store.status().commit_no;
            attachment.add_mine(After::Commit(commit_no)).await.unwrap();
            self.mine = Some(commit_no);
        } else if random.below(4) == 0 {
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
        if let Some(from) = self.mine {
            attachment.add_mine(After::Commit(commit_no.max(from))).await.unwrap();
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
            let by_user = self.mine.is_some_and(|from| from < *commit_no);
            let is_wanted = if feed.as_str() == GROUP { by_user } else { by_pattern || by_name };
            if is_wanted {
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

fn all_entries(engine: &dyn Engine) -> Vec<(u64, FeedId, u64)> {
    let mut all = Vec::new();
    for feed in engine.feeds(None, 10_000).unwrap() {
        let records = engine.records(&feed, SeqId(1), SeqId::MAX, usize::MAX, usize::MAX).unwrap();
        all.extend(records.iter().map(|record| (record.commit_no, feed.clone(), record.entry.seq.0)));
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
    group(&store, GROUP, "ann", &["bob"]).await;
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
                    0 => drop(say(&gate, &feed(GROUP), "x").await),
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
    let all = all_entries(&*engine);
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
