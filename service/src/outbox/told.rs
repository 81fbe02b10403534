//! Whom an endpoint was told about, as far as memory goes: so that reading a message live does not make a call that takes
//! back what was never pushed.

use std::collections::HashMap;

use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};

/// Bounded: when it is full it forgets, and what is older than that may have been told.
#[derive(Debug)]
pub(super) struct Told {
    newest: HashMap<(Uid, FeedId), SeqId>,
    /// Of what is older than this nothing is known.
    since_ms: TimeMs,
    max: usize,
}

impl Told {
    pub(super) fn new(max: usize, now_ms: TimeMs) -> Self {
        Self { newest: HashMap::new(), since_ms: now_ms, max: max.max(1) }
    }

    /// The endpoint was, or may have been, told that this user has this message.
    pub(super) fn note(&mut self, uid: &Uid, feed: &FeedId, seq: SeqId, now_ms: TimeMs) {
        let key = (uid.clone(), feed.clone());
        if !self.newest.contains_key(&key) && self.newest.len() >= self.max {
            self.newest.clear();
            self.since_ms = now_ms;
        }
        let newest = self.newest.entry(key).or_default();
        *newest = seq.max(*newest);
    }

    /// Whether a message of this feed, up to one of this time, may have been told of.
    pub(super) fn may_have(&self, uid: &Uid, feed: &FeedId, time_ms: TimeMs) -> bool {
        time_ms < self.since_ms || self.newest.contains_key(&(uid.clone(), feed.clone()))
    }

    /// The endpoint knows that everything up to here was read.
    pub(super) fn read(&mut self, uid: &Uid, feed: &FeedId, upto: SeqId) {
        let key = (uid.clone(), feed.clone());
        if self.newest.get(&key).is_some_and(|newest| *newest <= upto) {
            self.newest.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_may_have_been_told() {
        let (bob, cat) = (Uid::parse("bob").unwrap(), Uid::parse("cat").unwrap());
        let feed = FeedId::parse("a").unwrap();
        let mut told = Told::new(1, 100);
        assert!(told.may_have(&bob, &feed, 99), "from before the start");
        assert!(!told.may_have(&bob, &feed, 100));
        told.note(&bob, &feed, SeqId(4), 110);
        told.note(&bob, &feed, SeqId(3), 110);
        assert!(told.may_have(&bob, &feed, 105));
        told.read(&bob, &feed, SeqId(3));
        assert!(told.may_have(&bob, &feed, 105), "one is not read yet");
        told.read(&bob, &feed, SeqId(4));
        assert!(!told.may_have(&bob, &feed, 105));
        told.note(&bob, &feed, SeqId(5), 120);
        told.note(&cat, &feed, SeqId(5), 130);
        assert!(told.may_have(&bob, &feed, 129) && !told.may_have(&bob, &feed, 130));
        assert!(told.may_have(&cat, &feed, 130));
    }
}
