//! The rules of a feed: `decide` turns an authorized command into events, `evolve` folds entries into the state.

use crate::ids::SeqId;

/// The command is allowed but cannot be done. Nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A field does not fit the feed or the message it names.
    #[error("{field}: {problem}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What is wrong with it, without repeating the input.
        problem: &'static str,
    },
    /// The same `client_msg_id` was used before with another body.
    #[error("this client_msg_id was used before with another body")]
    IdConflict {
        /// The entry that used it.
        seq: SeqId,
    },
    /// The head is not the one the sender expected.
    #[error("the head is {head}")]
    HeadMoved {
        /// The head now.
        head: SeqId,
    },
    /// The feed, member or request exists already.
    #[error("already exists")]
    AlreadyExists,
    /// The message does not exist, or is not shown to the caller.
    #[error("no such message")]
    MessageNotFound,
    /// There is no such member or request.
    #[error("no such member")]
    MemberNotFound,
    /// The time in which the sender may recall or edit is over.
    #[error("the time to recall or edit this message is over")]
    RecallWindowClosed,
    /// The payload is larger than configured.
    #[error("the payload is larger than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// The rules of the feed's kind forbid it, e.g. the owner leaving without naming another.
    #[error("{0}")]
    Rule(&'static str),
}

use std::sync::Arc;

use crate::command::{Command, Done, Principal};
use crate::entry::{Entry, Head, Payload};
use crate::event::Event;
use crate::ids::{Digest, FeedId, Ordinal, TimeMs, Uid};
use crate::limits;
use crate::policy::Authorized;
use crate::rows::{Fate, FeedState, Member, Place, Request, Rows, RowsError};

/// What an operator can choose about the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a sender may recall, in milliseconds. Owners, admins and services always may.
    pub recall_window_ms: u64,
    /// How long a sender may edit, in milliseconds.
    pub edit_window_ms: u64,
    /// Largest payload, in bytes; at most [`limits::PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: usize,
    /// Whether principals that did not authenticate may use open feeds.
    pub anonymous_open_feeds: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recall_window_ms: limits::RECALL_WINDOW_MS_DEFAULT,
            edit_window_ms: limits::RECALL_WINDOW_MS_DEFAULT,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            anonymous_open_feeds: false,
        }
    }
}

/// An older entry that a command names, with what happened to it since.
#[derive(Debug, Clone)]
pub struct Target {
    /// The entry.
    pub entry: Entry,
    /// What happened to it, when it is a message.
    pub fate: Option<Box<Fate>>,
}

/// The feed that a command of a personal feed speaks about.
#[derive(Debug, Clone)]
pub struct Other {
    /// The feed.
    pub feed: FeedId,
    /// Its state, `None` when it does not exist.
    pub state: Option<Arc<FeedState>>,
    /// Its durable head.
    pub head: Head,
    /// The principal's membership there.
    pub member: Option<Member>,
    /// The principal's place there.
    pub place: Place,
    /// The ordinal at the new read mark.
    pub read_ordinal: Ordinal,
}

/// Everything that `authorize` and `decide` need besides the state of the feed, fetched before them by [`gather`].
#[derive(Debug, Clone)]
pub struct Context {
    /// The time of deciding.
    pub now_ms: TimeMs,
    /// The head of the feed, undurable entries included.
    pub head: Head,
    /// What the operator chose.
    pub settings: Settings,
    /// BLAKE3.
    pub digest: Digest,
    /// The principal's membership (groups).
    pub actor: Option<Member>,
    /// The membership of the user that the command is about.
    pub subject: Option<Member>,
    /// The pending request to join of that user.
    pub request: Option<Request>,
    /// The entry that used the same `client_msg_id` before.
    pub original: Option<Entry>,
    /// The messages that the command names and that exist, in the order named.
    pub targets: Vec<Target>,
    /// The entry by which the principal reacted to the target with this key before.
    pub reaction: Option<SeqId>,
    /// The sender's received mark, when it decides what an answer had seen.
    pub received: Option<SeqId>,
    /// What a command of a personal feed speaks about.
    pub other: Option<Other>,
}

/// Fetches whatever deciding this command may need; nothing is read later.
///
/// Rows and entries of the feed itself are read as of now (undurable groups included), those of other feeds as durable.
#[allow(unused_variables, clippy::too_many_arguments)]
pub fn gather(
    principal: &Principal,
    command: &Command,
    state: Option<&FeedState>,
    head: Head,
    rows: &mut dyn Rows,
    now_ms: TimeMs,
    settings: &Settings,
    digest: Digest,
) -> Result<Context, RowsError> {
    todo!()
}

/// An event that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Who caused it.
    pub sender: Uid,
    /// What happened.
    pub event: Event,
    /// The bytes beside it.
    pub payload: Payload,
}

/// What is to be appended, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In order; never empty.
    pub events: Vec<NewEvent>,
    /// Which of them answers the command.
    pub answer: usize,
    /// Older entries whose payload is destroyed in the same batch.
    pub strip: Vec<SeqId>,
    /// Told in [`Done::requested`].
    pub requested: bool,
}

/// What comes of an authorized command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Append this.
    Append(Plan),
    /// Nothing to append: it had been done before, or changes nothing.
    Already(Done),
}

/// Turns an authorized command into events. Pure: all it needs is in the context.
///
/// The order is: dedup, `expect_head`, then the rules of the act. `state` is `None` for a feed that does not exist.
#[allow(unused_variables)]
pub fn decide(
    state: Option<&FeedState>,
    authorized: Authorized,
    context: &Context,
) -> Result<Decision, Rejected> {
    todo!()
}

/// Folds an entry into the state of its feed. `None` is the state before the first entry.
#[allow(unused_variables)]
pub fn evolve(state: &mut Option<Arc<FeedState>>, entry: &Entry) {
    todo!()
}
