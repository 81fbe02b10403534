//! What every engine is checked against: a naive oracle, random operations, and a small store in memory.
//!
//! [`run`] plays random operations on any [`System`] and compares it with the definitions, recomputed from the list of
//! entries. Failures panic with the seed; `FEEDLOG_SEED` repeats a run.

mod core_system;
mod operations;
mod oracle;
mod pages;
mod random;
#[cfg(test)]
mod scene;
mod store;
mod world;

use std::collections::BTreeMap;

use crate::command::{Command, Principal};
use crate::entry::Entry;
use crate::feed::Settings;
use crate::ids::{Digest, FeedId, SeqId, TimeMs, Uid};
use crate::policy::Denied;
use crate::read::{Owed, UnreadCount};
use crate::rows::{RowKey, RowValue};
use crate::sequencer::Answer;
use crate::views::{ExplainedUnread, HistoryQuery, Page};

pub use core_system::CoreSystem;
pub use oracle::Oracle;
pub use random::Random;
#[cfg(test)]
pub(crate) use scene::*;
pub use store::{MemStore, toy_digest};
pub use world::{Options, Played, run};

/// A feedlog that can be asked everything the oracle knows: the core on a map, or a service on an engine.
pub trait System {
    /// What names direct feeds.
    fn digest(&self) -> Digest;

    /// The rules in force.
    fn settings(&self) -> Settings;

    /// The time that the system decides by.
    fn now_ms(&self) -> TimeMs;

    /// Lets time pass.
    fn advance(&mut self, ms: u64);

    /// Hands over all commands before waiting for the first answer; the answers in the same order, all durable.
    fn submit(&mut self, commands: Vec<(Principal, Command)>) -> Vec<Answer>;

    /// All durable entries of a feed after a place.
    fn log(&mut self, feed: &FeedId, after: SeqId) -> Vec<Entry>;

    /// Unread of a user in a feed that the user may read.
    fn unread(&mut self, uid: &Uid, feed: &FeedId) -> UnreadCount;

    /// Unread with its reasons.
    fn explain(&mut self, uid: &Uid, feed: &FeedId) -> ExplainedUnread;

    /// What a user owes in a feed that the user may read.
    fn unreplied(&mut self, uid: &Uid, feed: &FeedId) -> Option<Owed>;

    /// A page of history.
    fn history(
        &mut self,
        principal: &Principal,
        feed: &FeedId,
        query: HistoryQuery,
        limit: usize,
    ) -> Result<Page, Denied>;

    /// All derived rows, to be compared with a rebuild from the log; `None` when the system compares them itself.
    fn rows(&mut self) -> Option<BTreeMap<RowKey, RowValue>>;
}

#[cfg(test)]
mod tests;
