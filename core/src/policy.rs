//! Who may do what.

/// The principal may not do this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The feed does not exist, or the caller may not know that it does: one answer for both.
    #[error("no such feed")]
    FeedNotFound,
    /// The feed may be known to the caller, the act is not the caller's.
    #[error("not allowed")]
    Forbidden,
    /// Anonymous principals may not do this; authenticate first.
    #[error("authentication is required")]
    Unauthenticated,
}
