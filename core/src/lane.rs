//! One feed at work: state, overlay and sequencer together, so that a shard only moves inputs and outputs.

use crate::command::{Command, Principal};
use crate::entry::Head;
use crate::event::FeedKind;
use crate::feed::{Settings, decide, gather};
use crate::ids::{Digest, FeedId, SeqId, TimeMs};
use crate::overlay::Overlay;
use crate::policy::authorize;
use crate::projection::Fold;
use crate::read::Reader;
use crate::rows::{RowKey, RowValue, RowsError};
use crate::sequencer::{Answer, Input, NewGroup, Output, Refusal, Sequencer};

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
    /// Reading failed while deriving rows; the command was answered with `Retry`. To be logged.
    ReadFailed(RowsError),
}

/// What is the same for every command of a shard.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// What the operator chose.
    pub settings: Settings,
    /// BLAKE3.
    pub digest: Digest,
}

/// One feed at work. `T` is whom to answer.
#[derive(Debug)]
pub struct Lane<T> {
    feed: FeedId,
    fold: Fold,
    overlay: Overlay,
    sequencer: Sequencer<T>,
    /// A group failed and all others are settled: load again before the next command.
    stale: bool,
    /// Kept to spare an allocation per command.
    outputs: Vec<Output<T>>,
}

impl<T> Lane<T> {
    /// Loads a feed; one that does not exist has an empty lane.
    pub fn load(feed: FeedId, reader: &dyn Reader) -> Result<Self, RowsError> {
        let (fold, head) = durable(&feed, reader)?;
        Ok(Self {
            overlay: Overlay::new(feed.clone()),
            sequencer: Sequencer::new(feed.clone(), head),
            feed,
            fold,
            stale: false,
            outputs: Vec::new(),
        })
    }

    /// The head including undurable entries.
    pub fn head(&self) -> Head {
        self.sequencer.head()
    }

    /// The kind of the feed, `None` while it does not exist.
    pub fn kind(&self) -> Option<FeedKind> {
        self.fold.state.as_ref().map(|state| state.kind)
    }

    /// Nothing is in flight: the lane may be dropped and loaded again later.
    pub fn is_idle(&self) -> bool {
        self.sequencer.is_idle() && self.overlay.is_empty()
    }

    /// Fetch, authorize, decide, sequence, project: all in one go on one state. When reading fails, the token comes back
    /// with the reason and nothing happened.
    #[allow(clippy::too_many_arguments)] // one command and what deciding it needs
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
        if self.stale
            && let Err(error) = self.reload(reader)
        {
            return Err((token, error));
        }
        if self.sequencer.is_broken() {
            out.push(Step::Reply(token, Answer::Retry));
            return Ok(());
        }
        let state = self.fold.state.as_deref();
        let head = self.sequencer.head();
        let context = {
            let mut rows = self.overlay.view(reader);
            gather(principal, &command, state, head, &mut rows, now_ms, &setup.settings, setup.digest)
        };
        let context = match context {
            Ok(context) => context,
            Err(error) => return Err((token, error)),
        };
        // Back to back on the same state: nothing changes after the check.
        let decision = authorize(principal, command, state, &context)
            .map_err(Refusal::from)
            .and_then(|authorized| Ok(decide(state, authorized, &context)?));
        self.step(Input::Decided { decision, now_ms, token }, Some(reader), out);
        Ok(())
    }

    /// The group that ends at `last` is durable.
    pub fn committed(&mut self, last: SeqId, out: &mut Vec<Step<T>>) {
        self.overlay.retire(last);
        self.step(Input::Committed(last), None, out);
    }

    /// Nothing of the group that ends at `last` was written (head moved, no space, poisoned before).
    pub fn refused(&mut self, last: SeqId, out: &mut Vec<Step<T>>) {
        self.step(Input::Refused(last), None, out);
    }

    /// The group that ends at `last` may have been written; the engine is poisoned.
    pub fn unknown(&mut self, last: SeqId, out: &mut Vec<Step<T>>) {
        self.step(Input::Unknown(last), None, out);
    }

    fn step(&mut self, input: Input<T>, reader: Option<&dyn Reader>, out: &mut Vec<Step<T>>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.sequencer.step(input, &mut outputs);
        for output in outputs.drain(..) {
            match (output, reader) {
                (Output::Append(group), Some(reader)) => self.append(group, reader, out),
                // Only a decision appends, and `submit` always gives a reader with it.
                (Output::Append(_), None) => {}
                (Output::Reply(token, answer), _) => out.push(Step::Reply(token, answer)),
                (Output::Reload, _) => self.forget(),
            }
        }
        self.outputs = outputs;
    }

    fn append(&mut self, group: NewGroup, reader: &dyn Reader, out: &mut Vec<Step<T>>) {
        self.overlay.push(&group.entries);
        let last = self.sequencer.head().seq;
        let mut rows = self.overlay.view(reader);
        let projected = group.entries.iter().try_for_each(|entry| self.fold.apply(entry, &mut rows));
        drop(rows);
        match projected {
            Ok(()) => {
                let rows = self.overlay.seal(last);
                out.push(Step::Commit { group, rows });
            }
            Err(error) => {
                // The group was never handed on; the state is off by it, so load again once the others are settled.
                out.push(Step::ReadFailed(error));
                let mut outputs = Vec::new();
                self.sequencer.step(Input::Refused(last), &mut outputs);
                for output in outputs {
                    match output {
                        Output::Reply(token, answer) => out.push(Step::Reply(token, answer)),
                        Output::Reload => self.forget(),
                        Output::Append(_) => {}
                    }
                }
            }
        }
    }

    /// Everything is settled and something failed: what is left in memory is not what is durable.
    fn forget(&mut self) {
        self.overlay.clear();
        self.stale = true;
    }

    fn reload(&mut self, reader: &dyn Reader) -> Result<(), RowsError> {
        let (fold, head) = durable(&self.feed, reader)?;
        self.fold = fold;
        self.stale = false;
        let mut outputs = Vec::new();
        self.sequencer.step(Input::Loaded(head), &mut outputs);
        Ok(())
    }
}

fn durable(feed: &FeedId, reader: &dyn Reader) -> Result<(Fold, Head), RowsError> {
    let state = reader.row(&RowKey::Feed(feed.clone()))?.and_then(RowValue::into_feed);
    Ok((Fold { state }, reader.head(feed)?))
}

#[cfg(test)]
mod tests;
