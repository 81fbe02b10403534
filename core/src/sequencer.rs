//! The per-feed machine: gives events their places and holds every reply until what it rests on is durable (I-1, I-2).

use std::collections::VecDeque;

use crate::command::Done;
use crate::entry::{Entry, Head};
use crate::feed::{Decision, Rejected};
use crate::ids::{FeedId, SeqId, TimeMs};
use crate::policy::Denied;

/// A command that was not allowed or cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not allowed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Cannot be done.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input<T> {
    /// A command was decided against the state as of now. `token` is handed back with the reply.
    Decided {
        /// The decision.
        decision: Result<Decision, Refusal>,
        /// The time of deciding.
        now_ms: TimeMs,
        /// Whom to answer.
        token: T,
    },
    /// The group that ends at this place is durable. Groups become durable in order.
    Committed(SeqId),
    /// The group that ends at this place was refused or never handed to the engine: nothing of it was written.
    Refused(SeqId),
    /// The outcome of the group that ends at this place is unknown, the engine is poisoned.
    Unknown(SeqId),
    /// The state was loaded again after `Output::Reload`: this is the durable head.
    Loaded(Head),
}

/// What the machine wants done, in order.
#[derive(Debug)]
pub enum Output<T> {
    /// Project these entries and hand them to the committer.
    Append(NewGroup),
    /// Answer now.
    Reply(T, Answer),
    /// Drop the overlay and the state, load them from the durable store, then give [`Input::Loaded`]. Until then every
    /// command is answered with `Retry` (I-7).
    Reload,
}

/// Entries with their places, to be committed all or nothing.
#[derive(Debug)]
pub struct NewGroup {
    /// The feed.
    pub feed: FeedId,
    /// The head that they follow.
    pub expected: SeqId,
    /// Contiguous from `expected + 1`.
    pub entries: Vec<Entry>,
    /// Older entries whose payload is destroyed in the same batch.
    pub strip: Vec<SeqId>,
}

/// What a caller is told. `Done` is only given for entries that are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Durable.
    Done(Done),
    /// Refused; what the refusal rests on is durable.
    Refused(Refusal),
    /// Did not happen; may be tried again.
    Retry,
    /// May have happened; the same `client_msg_id` is safe to send again.
    Unknown,
}

/// The machine of one feed. No IO, no clock.
#[derive(Debug)]
pub struct Sequencer<T> {
    feed: FeedId,
    head: Head,
    durable: SeqId,
    waiting: VecDeque<(SeqId, T, Answer)>,
}

#[allow(unused_variables, dead_code)]
impl<T> Sequencer<T> {
    /// A machine at a durable head.
    pub fn new(feed: FeedId, durable: Head) -> Self {
        todo!()
    }

    /// The head including undurable entries: decide against this.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The durable head.
    pub fn durable(&self) -> SeqId {
        self.durable
    }

    /// Whether nothing is in flight and nobody waits, so that the machine may be dropped.
    pub fn is_idle(&self) -> bool {
        todo!()
    }

    /// Takes one input; appends what is to be done to `out`.
    pub fn step(&mut self, input: Input<T>, out: &mut Vec<Output<T>>) {
        todo!()
    }
}
