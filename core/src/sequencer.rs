//! The per-feed machine: gives events their places and holds every reply until what it rests on is durable (I-1, I-2).

use std::collections::VecDeque;

use crate::command::Done;
use crate::entry::{Entry, Head};
use crate::feed::{Decision, Plan, Rejected};
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
    /// The place of the entry that answers the command.
    pub answer: Head,
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
    /// The head that the next entry follows.
    head: Head,
    durable: SeqId,
    /// Last places of the groups whose outcome is open, ascending.
    in_flight: VecDeque<SeqId>,
    /// Replies that wait, in the order of their commands.
    waiting: VecDeque<Waiting<T>>,
    /// A group did not become durable: nothing more is appended until the state is loaded again.
    broken: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    /// What the answer rests on: it is given when this place is durable.
    at: SeqId,
    /// Whether the group that ends at `at` is this command's own.
    own: bool,
    token: T,
    answer: Answer,
}

impl<T> Sequencer<T> {
    /// A machine at a durable head.
    pub fn new(feed: FeedId, durable: Head) -> Self {
        Self {
            feed,
            head: durable,
            durable: durable.seq,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            broken: false,
        }
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
        self.in_flight.is_empty() && self.waiting.is_empty()
    }

    /// Whether commands are answered with `Retry` because the state must be loaded again.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes one input; appends what is to be done to `out`.
    pub fn step(&mut self, input: Input<T>, out: &mut Vec<Output<T>>) {
        match input {
            // INVARIANT I-7: nothing is appended to a feed between a group that failed and the reload.
            Input::Decided { token, .. } if self.broken => out.push(Output::Reply(token, Answer::Retry)),
            Input::Decided { decision: Ok(Decision::Append(plan)), now_ms, token } => {
                self.append(plan, now_ms, token, out);
            }
            Input::Decided { decision: Ok(Decision::Already(done)), token, .. } => {
                self.hold(token, Answer::Done(done), out);
            }
            Input::Decided { decision: Err(refusal), token, .. } => {
                self.hold(token, Answer::Refused(refusal), out);
            }
            Input::Committed(last) => {
                self.in_flight.retain(|group| *group > last);
                self.durable = self.durable.max(last);
                // INVARIANT I-2: a reply leaves only when what it rests on is durable.
                while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.at <= self.durable) {
                    out.push(Output::Reply(waiting.token, waiting.answer));
                }
                self.reload_when_settled(out);
            }
            Input::Refused(last) => self.fail(last, &Answer::Retry, out),
            Input::Unknown(last) => self.fail(last, &Answer::Unknown, out),
            Input::Loaded(head) => {
                self.head = head;
                self.durable = head.seq;
                self.broken = false;
            }
        }
    }

    fn append(&mut self, plan: Plan, now_ms: TimeMs, token: T, out: &mut Vec<Output<T>>) {
        let expected = self.head.seq;
        // The clock may jump, the log may not.
        let time_ms = now_ms.max(self.head.time_ms);
        let mut entries = Vec::with_capacity(plan.events.len());
        for new in plan.events {
            // INVARIANT I-1: places are given here and nowhere else, one after the other.
            let ordinal = if new.event.is_message() { self.head.ordinal.next() } else { self.head.ordinal };
            let entry = Entry {
                feed: self.feed.clone(),
                seq: self.head.seq.next(),
                ordinal,
                time_ms,
                sender: new.sender,
                event: new.event,
                payload: new.payload,
            };
            self.head = Head::of(&entry);
            entries.push(entry);
        }
        let answer = entries.get(plan.answer).map_or(self.head, Head::of);
        let done = Done {
            feed: self.feed.clone(),
            seq: answer.seq,
            ordinal: answer.ordinal,
            time_ms: answer.time_ms,
            duplicate: false,
            requested: plan.requested,
        };
        self.in_flight.push_back(self.head.seq);
        self.waiting.push_back(Waiting { at: self.head.seq, own: true, token, answer: Answer::Done(done) });
        let feed = self.feed.clone();
        out.push(Output::Append(NewGroup { feed, expected, entries, strip: plan.strip, answer }));
    }

    /// Refusals and repeated commands rest on the state they were decided against.
    fn hold(&mut self, token: T, answer: Answer, out: &mut Vec<Output<T>>) {
        let at = self.head.seq;
        if at <= self.durable {
            out.push(Output::Reply(token, answer));
        } else {
            self.waiting.push_back(Waiting { at, own: false, token, answer });
        }
    }

    fn fail(&mut self, last: SeqId, outcome: &Answer, out: &mut Vec<Output<T>>) {
        self.broken = true;
        self.in_flight.retain(|group| *group != last);
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.at < last || (waiting.own && waiting.at > last) {
                // Rests on earlier groups, or gets its own outcome.
                self.waiting.push_back(waiting);
                continue;
            }
            let answer = match (waiting.own, &waiting.answer) {
                // A repeated command may have happened just as its original may have.
                (true, _) | (false, Answer::Done(_)) => outcome.clone(),
                (false, _) => Answer::Retry,
            };
            out.push(Output::Reply(waiting.token, answer));
        }
        self.reload_when_settled(out);
    }

    fn reload_when_settled(&self, out: &mut Vec<Output<T>>) {
        if self.broken && self.in_flight.is_empty() {
            out.push(Output::Reload);
        }
    }
}

#[cfg(test)]
mod tests;
