//! One feed at work: state, overlay and sequencer together, so that a shard only moves inputs and outputs.

use crate::command::{Command, Principal};
use crate::entry::Head;
use crate::feed::Settings;
use crate::ids::{Digest, FeedId, SeqId, TimeMs};
use crate::overlay::Overlay;
use crate::projection::Fold;
use crate::read::Reader;
use crate::rows::{RowKey, RowValue, RowsError};
use crate::sequencer::{Answer, NewGroup, Sequencer};

/// What a lane wants done, in order.
#[derive(Debug)]
pub enum Step<T> {
    /// Hand this to the committer, in this order per feed; then call `committed`, `refused` or `unknown` with the place of
    /// its last entry, in the same order.
    Commit {
        /// The entries.
        group: NewGroup,
        /// The rows that change with them, each key once.
        rows: Vec<(RowKey, Option<RowValue>)>,
    },
    /// Answer now.
    Reply(T, Answer),
}

/// One feed at work. `T` is whom to answer.
#[derive(Debug)]
#[allow(dead_code)]
pub struct Lane<T> {
    fold: Fold,
    overlay: Overlay,
    sequencer: Sequencer<T>,
}

/// What is the same for every command of a shard.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// What the operator chose.
    pub settings: Settings,
    /// BLAKE3.
    pub digest: Digest,
}

#[allow(unused_variables)]
impl<T> Lane<T> {
    /// Loads a feed; one that does not exist has an empty lane.
    pub fn load(feed: FeedId, reader: &dyn Reader) -> Result<Self, RowsError> {
        todo!()
    }

    /// The head including undurable entries.
    pub fn head(&self) -> Head {
        self.sequencer.head()
    }

    /// Nothing is in flight: the lane may be dropped and loaded again later.
    pub fn is_idle(&self) -> bool {
        self.sequencer.is_idle()
    }

    /// Fetch, authorize, decide, sequence, project: all in one go on one state. When reading fails, the token comes back
    /// with the reason and nothing happened.
    #[allow(clippy::too_many_arguments)]
    pub fn submit(
        &mut self,
        principal: &Principal,
        command: Command,
        token: T,
        now_ms: TimeMs,
        setup: &Setup,
        reader: &dyn Reader,
        out: &mut Vec<Step<T>>,
    ) -> Result<(), (T, RowsError)> {
        todo!()
    }

    /// The group that ends at `last` is durable.
    pub fn committed(&mut self, last: SeqId, out: &mut Vec<Step<T>>) {
        todo!()
    }

    /// Nothing of the group that ends at `last` was written (head moved, no space, poisoned before).
    pub fn refused(&mut self, last: SeqId, out: &mut Vec<Step<T>>) {
        todo!()
    }

    /// The group that ends at `last` may have been written; the engine is poisoned.
    pub fn unknown(&mut self, last: SeqId, out: &mut Vec<Step<T>>) {
        todo!()
    }
}
