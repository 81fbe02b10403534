//! Whom an endpoint was told about, as far as memory goes: so that reading a message live does not make a call that takes
//! back what was never pushed.

use std::collections::{HashMap, HashSet};

use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};

type Pair = (Uid, FeedId);

/// Bounded: when it is full it forgets, and then anything older than that may have been told.
#[derive(Debug)]
pub(super) struct Told {
    /// The oldest and the newest message that was told and is not known to be read.
    told: HashMap<Pair, (SeqId, SeqId)>,
    /// All that was ever told of these was taken back.
    clean: HashSet<Pair>,
    /// What is in neither, and older than this, may have been told.
    since_ms: TimeMs,
    max: usize,
}

impl Told {
    pub(super) fn new(max: usize, now_ms: TimeMs) -> Self {
        Self { told: HashMap::new(), clean: HashSet::new(), since_ms: now_ms, max: max.max(1) }
    }

    fn make_room(&mut self, now_ms: TimeMs) {
        if self.told.len() + self.clean.len() >= self.max {
            self.told.clear();
            self.clean.clear();
            self.since_ms = now_ms;
        }
    }

    /// The endpoint was, or may have been, told that this user has this message.
    pub(super) fn note(&mut self, uid: &Uid, feed: &FeedId, seq: SeqId, now_ms: TimeMs) {
        let pair = (uid.clone(), feed.clone());
        if !self.told.contains_key(&pair) {
            self.make_room(now_ms);
        }
        let (oldest, newest) = self.told.entry(pair).or_insert((seq, seq));
        *oldest = seq.min(*oldest);
        *newest = seq.max(*newest);
    }

    /// Whether anything up to this place of the feed, which was created then, may have been told and not been taken back.
    pub(super) fn may_have(&self, uid: &Uid, feed: &FeedId, upto: SeqId, created_ms: TimeMs) -> bool {
        let pair = (uid.clone(), feed.clone());
        self.told.get(&pair).is_some_and(|(oldest, _)| *oldest <= upto)
            || created_ms < self.since_ms && !self.clean.contains(&pair)
    }

    /// The endpoint knows that everything up to here, an entry of this time, was read.
    pub(super) fn read(&mut self, uid: &Uid, feed: &FeedId, upto: SeqId, time_ms: TimeMs, now_ms: TimeMs) {
        let pair = (uid.clone(), feed.clone());
        if let Some((oldest, newest)) = self.told.get_mut(&pair)
            && *newest > upto
        {
            *oldest = upto.next().max(*oldest);
        } else {
            self.told.remove(&pair);
        }
        // Times of a feed never decrease: then nothing of before is left.
        if time_ms >= self.since_ms && !self.clean.contains(&pair) {
            self.make_room(now_ms);
            self.clean.insert(pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_may_have_been_told() {
        let (bob, cat) = (Uid::parse("bob").unwrap(), Uid::parse("cat").unwrap());
        let (old, new) = (FeedId::parse("old").unwrap(), FeedId::parse("new").unwrap());
        let mut told = Told::new(2, 100);
        let last = SeqId(9);
        assert!(told.may_have(&bob, &old, last, 99), "before the start, by whoever ran then");
        assert!(!told.may_have(&bob, &new, last, 100));
        told.note(&bob, &new, SeqId(4), 110);
        told.note(&bob, &new, SeqId(7), 110);
        assert!(!told.may_have(&bob, &new, SeqId(3), 100) && told.may_have(&bob, &new, SeqId(4), 100));
        told.read(&bob, &new, SeqId(5), 105, 110);
        assert!(!told.may_have(&bob, &new, SeqId(5), 100), "what is left is not read yet");
        assert!(told.may_have(&bob, &new, SeqId(7), 100));
        told.read(&bob, &new, SeqId(7), 106, 110);
        assert!(!told.may_have(&bob, &new, last, 100));
        // Whatever was told before the start is taken back by the first, not only what came since.
        told.read(&bob, &old, SeqId(3), 99, 110);
        assert!(told.may_have(&bob, &old, last, 99), "some of before is left");
        told.read(&bob, &old, last, 107, 110);
        assert!(!told.may_have(&bob, &old, last, 99));
        // Full.
        told.note(&cat, &new, SeqId(5), 130);
        assert!(told.may_have(&bob, &old, last, 99) && told.may_have(&bob, &new, last, 100));
        assert!(told.may_have(&cat, &new, last, 100) && !told.may_have(&cat, &old, last, 130));
    }
}
