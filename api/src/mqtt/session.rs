//! What a session is while its connection lives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::pattern::Pattern;

use super::carried::Origin;
use super::outbound::Outbound;
use super::space::Wanted;
use super::stored::{SessionKey, StoredSubscription};
use super::wire::{PacketId, Qos};

/// One subscription of a session.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    /// As the client wrote it, `$share/…/` included.
    pub(crate) filter: Arc<str>,
    /// Its number within the session.
    pub(crate) number: u32,
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) identifier: Option<u32>,
    /// Feed topics: payloads as they are, the envelope in user properties.
    pub(crate) raw: bool,
    /// The commit at which it was made.
    pub(crate) since: u64,
    pub(crate) wanted: Wanted,
    /// Of free topics.
    pub(crate) pattern: Option<Arc<Pattern>>,
    /// The group of a shared subscription.
    pub(crate) group: Option<Arc<str>>,
    /// MQTT 3.1 has no code for a refusal: granted, and nothing is delivered.
    pub(crate) muted: bool,
}

impl Subscription {
    pub(crate) fn stored(&self) -> StoredSubscription {
        StoredSubscription {
            qos: self.qos as u8,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            identifier: self.identifier,
            raw: self.raw,
            since: self.since,
        }
    }

    /// Whether an entry of a free topic is meant.
    pub(crate) fn is_free_match(&self, topic: &str) -> bool {
        !self.muted
            && self.group.is_none()
            && self.pattern.as_ref().is_some_and(|pattern| pattern.matches(topic))
    }

    /// Whether an entry of this feed is meant, as a feed topic.
    pub(crate) fn is_feed_match(&self, feed: &FeedId) -> bool {
        match &self.wanted {
            Wanted::Feed(wanted, _) => !self.muted && wanted == feed,
            Wanted::Mine => !self.muted,
            Wanted::Free | Wanted::Unasked | Wanted::Invalid => false,
        }
    }
}

/// A QoS 2 message from the client, from PUBLISH to PUBREL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// Its append has no answer yet.
    Waiting,
    /// It is durable: PUBREC was sent, or is about to be.
    Stored(SeqId),
    /// The same, of an earlier connection.
    Earlier(SeqId),
}

/// The session of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) origin: Origin,
    /// How long it outlives the connection, in seconds; 0 = not at all, and nothing of it is stored.
    pub(crate) expiry_s: u32,
    pub(crate) subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub(crate) next_number: u32,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: HashMap<PacketId, Inbound>,
    /// Whether mqant's pushes go to this connection.
    pub(crate) impush: bool,
    /// Whether protobuf pushes go to this connection.
    pub(crate) protobuf: bool,
    /// Where mqant's pushes go besides, chosen at login.
    pub(crate) push_alias: Option<Arc<str>>,
}

impl Session {
    pub(crate) fn new(key: SessionKey, expiry_s: u32) -> Self {
        let origin = Origin::of(key.user.as_deref().unwrap_or_default(), &key.client_id);
        Self {
            key,
            origin,
            expiry_s,
            subscriptions: BTreeMap::new(),
            next_number: 0,
            outbound: Outbound::default(),
            inbound: HashMap::new(),
            impush: false,
            protobuf: false,
            push_alias: None,
        }
    }

    /// Whether it outlives its connection, and so is stored.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry_s > 0
    }

    /// An entry was handed on. Where nothing is stored, nothing needs to be known of it.
    pub(crate) fn handed_on(&mut self, feed: &FeedId, seq: SeqId, commit_no: u64) {
        if self.is_persistent() {
            self.outbound.handed_on(feed, seq, commit_no);
        }
    }

    pub(crate) fn number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }
}
