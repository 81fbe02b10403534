//! What an endpoint is told, and how that goes: plain data, no wire format and no HTTP here.

use std::sync::Arc;

use feedlog_core::entry::Entry;
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};
use futures_util::future::BoxFuture;

/// Brings calls to their endpoints.
pub trait Carrier: Send + Sync + 'static {
    /// Makes one call. **On `Ok` the endpoint has taken it.** Has a time-out of its own; is dropped when the outbox ends.
    fn carry(&self, call: Call) -> BoxFuture<'_, Result<(), CarryError>>;
}

/// Why a call was not taken. Never holds what the endpoint said: bodies reach no logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarryError {
    /// The endpoint answered something other than 2xx.
    #[error("status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// How long it asked to be left alone.
        retry_after_ms: Option<u64>,
    },
    /// No answer in time; it may have been taken.
    #[error("timed out")]
    TimedOut,
    /// No connection, or it broke; it may have been taken.
    #[error("unreachable")]
    Unreachable,
    /// The host is not allowed by the configuration.
    #[error("host not allowed")]
    NotAllowed,
    /// What came back is no HTTP answer, or is too large.
    #[error("bad answer")]
    BadAnswer,
}

/// One call: some entries of one feed and those who are to know, in order per feed.
#[derive(Debug, Clone)]
pub struct Call {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// The same for every try of the same call, also after a crash.
    pub id: String,
    /// The feed.
    pub feed: FeedId,
    /// Its kind.
    pub kind: FeedKind,
    /// In the order of the log.
    pub items: Vec<Item>,
    /// For whom. Never empty.
    pub to: Vec<To>,
    /// 1 for the first try.
    pub attempt: u32,
    /// An administrator asked for it to be told again.
    pub replay: bool,
    /// The time of this try.
    pub time_ms: TimeMs,
}

/// One thing to tell.
#[derive(Debug, Clone)]
pub struct Item {
    /// The entry that caused it.
    pub seq: SeqId,
    /// What it is.
    pub what: What,
}

/// What an item is.
#[derive(Debug, Clone)]
pub enum What {
    /// A message, as readers see it now: with its newest edit. Never one that is recalled, expired or erased by now.
    Message {
        /// The entry.
        entry: Box<Entry>,
        /// The payload is not here: the endpoint wants none, or the call would be too large.
        left_out: bool,
    },
    /// Something for the user of a personal feed that is not a message.
    Notified {
        /// The entry.
        entry: Box<Entry>,
        /// As for messages.
        left_out: bool,
    },
    /// A message is not to be seen any more.
    Withdrawn {
        /// The message.
        target: SeqId,
        /// Why.
        reason: Withdrawal,
    },
    /// The user of a personal feed has read another feed.
    Read {
        /// The other feed.
        feed: FeedId,
        /// Up to and including this place.
        upto: SeqId,
    },
}

/// Why a message is not to be seen any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// Taken back.
    Recalled,
    /// Its payload was destroyed.
    Erased,
    /// Past its time.
    Expired,
}

/// Somebody who is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To {
    /// Who.
    pub uid: Uid,
    /// Unread messages over all feeds, at the time of the call.
    pub badge: u64,
    /// Those in feeds that are not muted.
    pub badge_unmuted: u64,
    /// What the user has received or read of this feed: to pull from.
    pub last_seq: SeqId,
    /// Which items concern this user, by index; `None`: all of them.
    pub items: Option<Vec<usize>>,
}
