//! The definitions of unread, unreplied, membership and history, recomputed from the list of entries each time.
//!
//! Nothing here knows rows, ordinals or blocks: it reads the log as a person would.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::entry::Entry;
use crate::event::{Event, FeedKind, HistoryMode, JoinMode, MENTION_ALL, Message, MessageKind, Role};
use crate::ids::{FeedId, SeqId, TimeMs, Uid};
use crate::read::{Owed, UnreadCount};
use crate::views::GoneReason;

/// The logs, and nothing else.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Every durable entry of each feed.
    pub logs: BTreeMap<FeedId, Vec<Entry>>,
}

/// A user's marks in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NaiveMarks {
    /// Read up to here.
    pub read: SeqId,
    /// Received up to here, when that was ever said.
    pub received: Option<SeqId>,
    /// Closed up to here.
    pub resolved: SeqId,
}

/// A member.
#[derive(Debug, Clone, Copy)]
pub struct NaiveMember {
    /// The entry of joining.
    pub since: SeqId,
    /// What the member may do.
    pub role: Role,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    recalled: bool,
    expired: bool,
    erased: bool,
    edited: SeqId,
}

/// What a reader sees at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An entry with this payload, and what a front end has carried with it.
    Entry(Bytes, Bytes),
    /// Nothing, and why.
    Gone(GoneReason),
}

impl Oracle {
    /// The log of a feed, empty when it does not exist.
    pub fn log(&self, feed: &FeedId) -> &[Entry] {
        self.logs.get(feed).map_or(&[], Vec::as_slice)
    }

    /// The head of a feed.
    pub fn head(&self, feed: &FeedId) -> SeqId {
        SeqId(self.log(feed).len() as u64)
    }

    /// The entry at a place.
    pub fn entry(&self, feed: &FeedId, seq: SeqId) -> Option<&Entry> {
        self.log(feed).get((seq.0 as usize).checked_sub(1)?)
    }

    /// The kind of a feed, `None` when it does not exist.
    pub fn kind(&self, feed: &FeedId) -> Option<FeedKind> {
        match &self.log(feed).first()?.event {
            Event::FeedCreated { kind, .. } => Some(*kind),
            other => panic!("a feed begins with FeedCreated, not {other:?}"),
        }
    }

    fn modes(&self, feed: &FeedId) -> (JoinMode, HistoryMode) {
        let mut modes = (JoinMode::Invite, HistoryMode::All);
        for entry in self.log(feed) {
            match &entry.event {
                Event::FeedCreated { join, history, .. } => modes = (*join, *history),
                Event::FeedChanged { join, history, .. } => {
                    modes = (join.unwrap_or(modes.0), history.unwrap_or(modes.1));
                }
                _ => {}
            }
        }
        modes
    }

    /// How one becomes a member of a group.
    pub fn join_mode(&self, feed: &FeedId) -> JoinMode {
        self.modes(feed).0
    }

    /// The current membership of a user: groups and direct feeds.
    pub fn member(&self, feed: &FeedId, uid: &Uid) -> Option<NaiveMember> {
        let mut member: Option<NaiveMember> = None;
        for entry in self.log(feed) {
            match &entry.event {
                Event::FeedCreated { pair: Some((a, b)), .. } if a == uid || b == uid => {
                    member = Some(NaiveMember { since: entry.seq, role: Role::Member });
                }
                Event::MemberJoined { uid: who, role } if who == uid => {
                    assert!(member.is_none(), "a member does not join again: {entry:?}");
                    member = Some(NaiveMember { since: entry.seq, role: *role });
                }
                Event::RoleChanged { uid: who, role } if who == uid => {
                    member.as_mut().expect("only members have roles").role = *role;
                }
                Event::MemberLeft { uid: who } | Event::MemberRemoved { uid: who, .. } if who == uid => {
                    assert!(member.is_some(), "only members leave: {entry:?}");
                    member = None;
                }
                _ => {}
            }
        }
        member
    }

    /// The first entry that a user may read, `None` when the user may not read the feed.
    pub fn first_readable(&self, feed: &FeedId, uid: &Uid) -> Option<SeqId> {
        match self.kind(feed)? {
            FeedKind::Open => Some(SeqId(1)),
            FeedKind::Personal => feed.is_personal_of(uid).then_some(SeqId(1)),
            FeedKind::Direct => self.member(feed, uid).map(|_| SeqId(1)),
            FeedKind::Group => {
                let member = self.member(feed, uid)?;
                match self.modes(feed).1 {
                    HistoryMode::All => Some(SeqId(1)),
                    HistoryMode::SinceJoin => Some(member.since),
                }
            }
        }
    }

    /// A user's marks, folded from the personal feed.
    pub fn marks(&self, feed: &FeedId, uid: &Uid) -> NaiveMarks {
        let mut marks = NaiveMarks::default();
        for entry in self.log(&FeedId::personal(uid)) {
            match &entry.event {
                Event::MarkMoved { feed: of, read, received } if of == feed => {
                    marks.read = read.map_or(marks.read, |(seq, _)| seq);
                    marks.received = received.or(marks.received);
                }
                Event::UnrepliedResolved { feed: of, upto } if of == feed => marks.resolved = *upto,
                _ => {}
            }
        }
        marks
    }

    fn fates(&self, feed: &FeedId) -> HashMap<SeqId, Fate> {
        let mut fates: HashMap<SeqId, Fate> = HashMap::new();
        for entry in self.log(feed) {
            match &entry.event {
                Event::MessageRecalled { target, .. } => fates.entry(*target).or_default().recalled = true,
                Event::MessageEdited { target, .. } => fates.entry(*target).or_default().edited = entry.seq,
                Event::MessagesExpired { targets } => {
                    for (target, _) in targets {
                        fates.entry(*target).or_default().expired = true;
                    }
                }
                Event::MessagesErased { targets, .. } => {
                    for (target, _) in targets {
                        fates.entry(*target).or_default().erased = true;
                    }
                }
                _ => {}
            }
        }
        fates
    }

    /// Whether a message was recalled, and whether it expired or was erased by an entry.
    pub fn fate(&self, feed: &FeedId, seq: SeqId) -> (bool, bool) {
        let fate = self.fates(feed).get(&seq).copied().unwrap_or_default();
        (fate.recalled, fate.expired || fate.erased)
    }

    /// The places of the messages that are unread for a user, and those of them that mention the user.
    ///
    /// "The messages after max(read mark, start of the current membership) whose sender is not the user, whose kind is not
    /// system, and that are not recalled, erased or expired. Open feeds count only for users who set a mark or sent there."
    pub fn unread(&self, feed: &FeedId, uid: &Uid) -> Vec<(SeqId, bool)> {
        let marks = self.marks(feed, uid);
        let log = self.log(feed);
        let since = match self.kind(feed) {
            None => return Vec::new(),
            Some(FeedKind::Direct | FeedKind::Group) => match self.member(feed, uid) {
                Some(member) => member.since,
                None => return Vec::new(),
            },
            Some(FeedKind::Personal) if feed.is_personal_of(uid) => SeqId::ZERO,
            Some(FeedKind::Personal) => return Vec::new(),
            Some(FeedKind::Open) => {
                let sent = log.iter().find(|entry| entry.is_message() && entry.sender == *uid);
                match sent {
                    _ if marks.received.is_some() => SeqId::ZERO,
                    Some(entry) => entry.seq,
                    None => return Vec::new(),
                }
            }
        };
        let fates = self.fates(feed);
        let counted = |entry: &&Entry| {
            let Some(message) = entry.message() else { return false };
            let fate = fates.get(&entry.seq).copied().unwrap_or_default();
            entry.seq > marks.read.max(since)
                && entry.sender != *uid
                && message.kind != MessageKind::System
                && !fate.recalled
                && !fate.erased
                && !fate.expired
        };
        let mentioned =
            |message: &Message| message.mentions.iter().any(|who| who == uid || who.as_str() == MENTION_ALL);
        log.iter().filter(counted).map(|entry| (entry.seq, entry.message().is_some_and(mentioned))).collect()
    }

    /// Unread as figures.
    pub fn unread_count(&self, feed: &FeedId, uid: &Uid) -> UnreadCount {
        let unread = self.unread(feed, uid);
        UnreadCount {
            unread: unread.len() as u64,
            mentions: unread.iter().filter(|(_, mentioned)| *mentioned).count() as u64,
        }
    }

    /// What a user owes.
    ///
    /// "Peer message m is answered iff I later sent r (not auto, not recalled) with r.seq > m.seq and r.seen_seq ≥ m.seq.
    /// In a direct feed every peer message counts unless `to_reply` declines; in a group those that mention me, answer me,
    /// or ask. `auto` and `system` ask for nothing unless `to_reply: true`. A recalled m never counts; `resolve` closes."
    pub fn unreplied(&self, feed: &FeedId, uid: &Uid) -> Option<Owed> {
        let direct = match self.kind(feed)? {
            FeedKind::Direct => true,
            FeedKind::Group => false,
            FeedKind::Open | FeedKind::Personal => return None,
        };
        let since = self.member(feed, uid)?.since;
        let closed = self.marks(feed, uid).resolved;
        let fates = self.fates(feed);
        let mut best_answer_after = SeqId::ZERO;
        let mut owed: Option<Owed> = None;
        // From the newest to the oldest, so that `best_answer_after` is the best of those sent later.
        for entry in self.log(feed).iter().rev() {
            let Some(message) = entry.message() else { continue };
            let fate = fates.get(&entry.seq).copied().unwrap_or_default();
            if entry.sender == *uid {
                if !message.auto && !fate.recalled {
                    best_answer_after = best_answer_after.max(message.seen_seq);
                }
                continue;
            }
            let gone = fate.recalled || fate.expired || fate.erased;
            let answered = best_answer_after >= entry.seq;
            if gone || answered || entry.seq <= closed || entry.seq <= since {
                continue;
            }
            if !self.asks(feed, message, uid, direct) {
                continue;
            }
            let count = owed.map_or(0, |owed| owed.count) + 1;
            owed = Some(Owed {
                seq: entry.seq,
                from: entry.sender.clone(),
                waiting_since_ms: entry.time_ms,
                count,
            });
        }
        owed
    }

    fn asks(&self, feed: &FeedId, message: &Message, uid: &Uid, direct: bool) -> bool {
        match message.to_reply {
            Some(false) => return false,
            None if message.auto || message.kind == MessageKind::System => return false,
            Some(true) | None => {}
        }
        if direct {
            return true;
        }
        let mentions_me = message.mentions.iter().any(|who| who == uid || who.as_str() == MENTION_ALL);
        let answers_me = message
            .reply_to
            .and_then(|seq| self.entry(feed, seq))
            .is_some_and(|answered| answered.sender == *uid);
        let asks_all = message.to_reply == Some(true) && message.mentions.is_empty();
        mentions_me || answers_me || asks_all
    }

    /// What a reader sees at every place from 1 on, `None` when the reader may not read the feed.
    pub fn history(&self, feed: &FeedId, uid: &Uid, now_ms: TimeMs) -> Option<Vec<Seen>> {
        let first = self.first_readable(feed, uid)?;
        let fates = self.fates(feed);
        let fate = |seq: SeqId| fates.get(&seq).copied().unwrap_or_default();
        let due = |seq: SeqId| {
            let message = self.entry(feed, seq).and_then(Entry::message);
            message.and_then(|message| message.expires_ms).is_some_and(|ms| ms <= now_ms)
        };
        let bytes = |seq: SeqId| {
            self.entry(feed, seq).and_then(|entry| entry.payload.bytes().cloned()).unwrap_or_default()
        };
        let carried = |message: &Message| message.carried.bytes().cloned().unwrap_or_default();
        let plain = |payload| Seen::Entry(payload, Bytes::new());
        let seen = |entry: &Entry| {
            if entry.seq < first {
                return Seen::Gone(GoneReason::BeforeJoin);
            }
            match &entry.event {
                Event::MessageSent(message) => {
                    let fate = fate(entry.seq);
                    if fate.erased {
                        Seen::Gone(GoneReason::Erased)
                    } else if fate.expired || due(entry.seq) {
                        Seen::Gone(GoneReason::Expired)
                    } else if fate.recalled {
                        plain(Bytes::new())
                    } else if fate.edited > SeqId::ZERO {
                        Seen::Entry(bytes(fate.edited), carried(message))
                    } else {
                        Seen::Entry(bytes(entry.seq), carried(message))
                    }
                }
                Event::MessageEdited { target, .. } => {
                    let of = fate(*target);
                    let hidden = of.erased || of.expired || of.recalled || due(*target) || *target < first;
                    plain(if hidden { Bytes::new() } else { bytes(entry.seq) })
                }
                _ => plain(bytes(entry.seq)),
            }
        };
        Some(self.log(feed).iter().map(seen).collect())
    }
}
