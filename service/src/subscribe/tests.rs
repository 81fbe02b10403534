//! What waits for an attachment is bounded, in entries and in bytes.

use bytes::Bytes;
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::Event;
use feedlog_core::ids::{FeedId, Ordinal, SeqId, Uid};

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
        let queue = hub.queue(max);
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
    let queue = hub.queue(1);
    hub.follow_user(&user, &queue);
    for n in 0..1000 {
        let feed = FeedId::parse(&format!("f{n}")).unwrap();
        publish(&hub, &feed, entry(&feed, 1, 1), vec![(user.clone(), SeqId::ZERO)]);
    }
    let taken = queue.take();
    assert!(taken.joined.len() <= 256 && taken.rescan);
}
