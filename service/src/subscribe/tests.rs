//! What waits for an attachment is bounded, in entries and in bytes, and who is told of a feed that a pattern matches.

use bytes::Bytes;
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, Ordinal, SeqId, Uid};
use feedlog_core::pattern::Pattern;

use feedlog_storage::Round;

use super::{Hub, Published};

fn entry(feed: &FeedId, seq: u64, bytes: usize) -> Entry {
    Entry {
        feed: feed.clone(),
        seq: SeqId(seq),
        ordinal: Ordinal(0),
        time_ms: 0,
        sender: Uid::parse("ann").unwrap(),
        event: Event::Broadcast { content_type: "text/plain".into() },
        payload: Payload::Bytes(Bytes::from(vec![0; bytes])),
    }
}

fn reader() -> Uid {
    Uid::parse("bob").unwrap()
}

/// A commit of one entry.
fn publish(hub: &Hub, feed: &FeedId, entry: Entry, joined: Vec<(Uid, SeqId)>) {
    let commit_no = hub.newest() + 1;
    announce(hub, commit_no, 1);
    hub.publish(Published { feed, entries: vec![entry], commit_no, is_open: true, joined });
}

fn announce(hub: &Hub, commit_no: u64, appended: usize) {
    let (commit_time, wait_time) = Default::default();
    hub.announce(&Round { groups: appended, bytes: 0, commit_time, wait_time, commit_no, appended });
}

#[test]
fn a_queue_that_nobody_reads_stays_bounded() {
    for (max, bytes, expected) in [(8, 1, 8), (1000, 1 << 18, 4), (1000, 2 << 20, 1), (0, 1, 0)] {
        let hub = Hub::new(0);
        let feed = FeedId::parse("f").unwrap();
        let queue = hub.queue(max, &reader());
        hub.follow(&feed, &queue, 3);
        for seq in 1..=10_000 {
            publish(&hub, &feed, entry(&feed, seq, if seq < 20 { bytes } else { 0 }), Vec::new());
        }
        assert_eq!(queue.len(), expected);
        let taken = queue.take();
        assert_eq!(taken.entries.len(), expected);
        assert!(taken.entries.iter().zip(1..).all(|((slot, entry), seq)| (*slot, entry.seq.0) == (3, seq)));
        assert!(taken.behind.contains(&3), "the reader knows that it must read the log");
        publish(&hub, &feed, entry(&feed, 10_001, 1), Vec::new());
        assert_eq!(queue.len(), max.min(1), "there is room again");
        hub.unfollow(&feed, &queue, 3);
        hub.drop_queue(&queue);
        assert_eq!(hub.queue_count(), 0);
    }
}

#[test]
fn joined_feeds_beyond_the_bound_are_listed_again() {
    let hub = Hub::new(0);
    let user = Uid::parse("bob").unwrap();
    let queue = hub.queue(1, &reader());
    hub.follow_user(&user, &queue);
    for n in 0..1000 {
        let feed = FeedId::parse(&format!("f{n}")).unwrap();
        publish(&hub, &feed, entry(&feed, 1, 1), vec![(user.clone(), SeqId::ZERO)]);
    }
    let taken = queue.take();
    assert!(taken.joined.len() <= 256 && taken.rescan);
}

fn name(text: &str) -> FeedId {
    FeedId::parse(text).unwrap()
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

#[test]
fn a_pattern_is_told_of_a_feed_until_it_follows() {
    let hub = Hub::new(0);
    let (one, other) = (hub.queue(8, &reader()), hub.queue(8, &reader()));
    hub.watch(&pattern("a/+"), &one, 1);
    hub.watch(&pattern("#"), &one, 2);
    let feed = name("a/b");
    let found = |queue: &super::Queue| {
        let mut found: Vec<_> = queue.take().found.into_iter().collect();
        found.sort();
        found
    };
    publish(&hub, &feed, entry(&feed, 4, 1), Vec::new());
    publish(&hub, &feed, entry(&feed, 5, 1), Vec::new());
    assert_eq!(found(&one), [(feed.clone(), (SeqId(3), 1))], "once, with its first place");
    publish(&hub, &feed, entry(&feed, 6, 1), Vec::new());
    assert_eq!(found(&one), [(feed.clone(), (SeqId(5), 3))], "again, because it does not follow yet");
    hub.follow(&feed, &one, 7);
    publish(&hub, &feed, entry(&feed, 7, 1), Vec::new());
    let taken = one.take();
    assert!(taken.found.is_empty() && taken.entries.len() == 1);
    // A new pattern of somebody else.
    hub.watch(&pattern("+/b"), &other, 1);
    publish(&hub, &feed, entry(&feed, 8, 1), Vec::new());
    assert_eq!(found(&other).len(), 1);
    assert!(found(&one).is_empty());
    assert!(!hub.unfollow_quiet(&feed, &one, 7, SeqId(7)), "8 is not delivered yet");
    assert!(hub.unfollow_quiet(&feed, &one, 7, SeqId(8)));
    hub.unwatch(&pattern("+/b"), &other, 1);
    publish(&hub, &feed, entry(&feed, 9, 1), Vec::new());
    assert_eq!(found(&one), [(feed.clone(), (SeqId(8), 6))]);
    assert!(found(&other).is_empty());
    // Other kinds of feeds are no pattern's business, nor are names that begin with a dollar sign.
    announce(&hub, 7, 1);
    let entries = vec![entry(&feed, 10, 1)];
    hub.publish(Published { feed: &feed, entries, commit_no: 7, is_open: false, joined: Vec::new() });
    publish(&hub, &name("$s/b"), entry(&name("$s/b"), 1, 1), Vec::new());
    assert!(one.is_empty());
    assert_eq!((hub.low_water(), hub.newest()), (8, 8));
}

#[test]
fn found_feeds_beyond_the_bound_are_lost() {
    let hub = Hub::new(0);
    let queue = hub.queue(1, &reader());
    hub.watch(&pattern("#"), &queue, 1);
    for n in 0..1000 {
        let feed = name(&format!("f{n}"));
        publish(&hub, &feed, entry(&feed, 1, 1), Vec::new());
    }
    let taken = queue.take();
    assert!(taken.found.len() <= 256 && taken.lost);
    assert!(taken.found.values().all(|(after, commit_no)| *after == SeqId::ZERO && *commit_no <= 256));
    hub.all_behind();
    assert!(queue.take().lost);
}

/// Once all who match follow, publishing does not look at patterns any more: they are locked while it happens.
#[test]
fn a_feed_that_all_follow_costs_its_followers_only() {
    let hub = Hub::new(0);
    let feed = name("a/b");
    let queues: Vec<_> = (0..1000).map(|_| hub.queue(8, &reader())).collect();
    for queue in &queues {
        hub.watch(&pattern("a/#"), queue, 1);
        hub.follow(&feed, queue, 3);
    }
    publish(&hub, &feed, entry(&feed, 1, 1), Vec::new());
    let locked = hub.patterns.write().unwrap();
    std::thread::scope(|scope| {
        let (to, done) = std::sync::mpsc::channel();
        let (hub, feed) = (&hub, &feed);
        scope.spawn(move || {
            for seq in 2..=5 {
                publish(hub, feed, entry(feed, seq, 1), Vec::new());
            }
            to.send(()).unwrap();
        });
        let in_time = done.recv_timeout(std::time::Duration::from_secs(20));
        drop(locked);
        assert!(in_time.is_ok(), "no publish waited for the patterns");
    });
    assert!(queues.iter().all(|queue| queue.take().entries.len() == 5));
}

#[test]
fn who_reads_for_others_is_not_connected() {
    let hub = Hub::new(0);
    let feed = FeedId::parse("a/b").unwrap();
    let queue = hub.queue(8, &reader());
    hub.follow(&feed, &queue, 1);
    assert_eq!(hub.readers(&feed, true).into_iter().collect::<Vec<_>>(), [reader()]);
    hub.unfollow(&feed, &queue, 1);
    assert!(hub.readers(&feed, true).is_empty());
    hub.watch(&Pattern::parse("a/+").unwrap(), &queue, 1);
    assert!(hub.readers(&feed, true).contains(&reader()));
    assert!(hub.readers(&feed, false).is_empty(), "patterns match open feeds only");
    queue.read_for_others();
    assert!(hub.readers(&feed, true).is_empty());
    assert!(!hub.follows_own(&reader()));
    hub.follow_user(&reader(), &queue);
    assert!(hub.follows_own(&reader()));
}
