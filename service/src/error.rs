//! What can go wrong at this crate's boundary, told by what the caller should do.

use feedlog_core::feed::Rejected;
use feedlog_core::policy::Denied;

/// Why a command has no receipt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// Refused: not allowed. Did not happen; do not retry.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Refused: cannot be done. Did not happen; do not retry.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Retry later: too many commands. Did not happen.
    #[error("too many requests")]
    RateLimited {
        /// How long to wait.
        retry_after_ms: u64,
    },
    /// Retry: the service is full, draining, poisoned or short of space. Did not happen.
    #[error("temporarily unavailable: {0}")]
    Unavailable(&'static str),
    /// May have happened: sending again with the same `client_msg_id` is safe.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why a read has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Not allowed, or no such feed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No such message or member.
    #[error("not found")]
    NotFound,
    /// An argument is outside its bounds.
    #[error("{field}: {problem}")]
    BadField {
        /// The argument.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Retry: the store cannot answer now.
    #[error("temporarily unavailable: {0}")]
    Unavailable(&'static str),
    /// Stored data is damaged and is not served.
    #[error("stored data is damaged; run `feedlog verify`")]
    Damaged,
}
