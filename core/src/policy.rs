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

use crate::command::{Command, Principal};
use crate::feed::{Context, Settings};
use crate::ids::{FeedId, SeqId};
use crate::rows::{FeedState, Member};

/// A command that was allowed. Only [`authorize`] makes one (I-4).
#[derive(Debug)]
pub struct Authorized {
    principal: Principal,
    command: Command,
}

impl Authorized {
    /// Who asked.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What is allowed.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The command, by value.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

/// Whether the principal may do this, judged on the state and the rows that [`crate::feed::gather`] fetched.
///
/// `state` is `None` for a feed that does not exist.
#[allow(unused_variables)]
pub fn authorize(
    principal: &Principal,
    command: Command,
    state: Option<&FeedState>,
    context: &Context,
) -> Result<Authorized, Denied> {
    todo!()
}

/// What a reader may have of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadScope {
    /// The first entry the reader is entitled to: 1, or under `since_join` the reader's own MemberJoined entry.
    pub first: SeqId,
    /// Entries, members and meta may be read. When `false` only title and join mode may be known.
    pub contents: bool,
    /// The reader manages the feed: pending requests may be read (owner, admins, administrators).
    pub manages: bool,
}

impl ReadScope {
    /// The first readable entry, `Forbidden` when only title and join mode may be known.
    pub fn contents(self) -> Result<SeqId, Denied> {
        if self.contents { Ok(self.first) } else { Err(Denied::Forbidden) }
    }
}

/// What the principal may read of the feed.
///
/// `state` is `None` for a feed that does not exist; `member` is the principal's own row
/// (`RowKey::Member(feed, principal.uid)`), needed for groups only. A feed that may not be known is `FeedNotFound`.
#[allow(unused_variables)]
pub fn may_read(
    principal: &Principal,
    feed: &FeedId,
    state: Option<&FeedState>,
    member: Option<&Member>,
    settings: &Settings,
) -> Result<ReadScope, Denied> {
    todo!()
}
