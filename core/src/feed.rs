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
