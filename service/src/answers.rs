//! Pending answers of one connection: completed by the shard that has the durable outcome, taken in the order of the
//! commands. No task and no allocation per command; one wake-up serves all that became durable together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::append::Receipt;
use crate::error::SubmitError;

type Outcome = Result<Receipt, SubmitError>;

/// Pending answers of one connection, in the order of their commands. Cheap to clone; clones share the queue.
///
/// It grows with what is handed over and not yet taken: whoever hands over bounds that.
#[derive(Clone, Default)]
pub struct Answers(Arc<Ring>);

#[derive(Default)]
struct Ring {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    /// The number of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    withdrawn: usize,
}

enum Slot {
    Open,
    Answered(Outcome),
    /// Its command was not handed over after all.
    Withdrawn,
}

impl State {
    fn fill(&mut self, number: u64, slot: Slot) {
        let place =
            number.checked_sub(self.first).and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?));
        match place {
            Some(place) => *place = slot,
            None => debug_assert!(false, "INVARIANT: a slot is dropped only after it was filled"),
        }
    }

    fn drop_withdrawn(&mut self) {
        while matches!(self.slots.front(), Some(Slot::Withdrawn)) {
            self.slots.pop_front();
            self.first += 1;
            self.withdrawn -= 1;
        }
    }

    fn has_oldest(&self) -> bool {
        matches!(self.slots.front(), Some(Slot::Answered(_)))
    }
}

impl Ring {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, number: u64, slot: Slot) {
        let mut state = self.state();
        let oldest = number == state.first;
        state.withdrawn += usize::from(matches!(slot, Slot::Withdrawn));
        state.fill(number, slot);
        state.drop_withdrawn();
        // Whoever waits, waits for the oldest: the others need no wake-up of their own.
        let ring = oldest && state.has_oldest();
        drop(state);
        if ring {
            self.bell.notify_waiters();
        }
    }
}

impl Answers {
    /// Nothing is pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the oldest answer, when it is there.
    pub fn pop(&self) -> Option<Outcome> {
        let mut state = self.0.state();
        if !state.has_oldest() {
            return None;
        }
        let oldest = state.slots.pop_front();
        state.first += 1;
        state.drop_withdrawn();
        match oldest {
            Some(Slot::Answered(outcome)) => Some(outcome),
            _ => None,
        }
    }

    /// Waits until the oldest command has its answer; for ever when nothing is pending. Cancel safe: it takes nothing.
    pub async fn ready(&self) {
        loop {
            if self.0.state().has_oldest() {
                return;
            }
            let rung = self.0.bell.notified();
            tokio::pin!(rung);
            // Registered before looking again: an answer that comes in between rings.
            rung.as_mut().enable();
            if self.0.state().has_oldest() {
                return;
            }
            rung.await;
        }
    }

    /// Commands that were handed over and whose answers were not taken.
    pub fn pending(&self) -> usize {
        let state = self.0.state();
        state.slots.len() - state.withdrawn
    }

    /// The next place in the order.
    pub(crate) fn ticket(&self) -> Ticket {
        let mut state = self.0.state();
        let number = state.first + state.slots.len() as u64;
        state.slots.push_back(Slot::Open);
        Ticket { ring: Some(self.0.clone()), number }
    }
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("pending", &self.pending()).finish_non_exhaustive()
    }
}

/// The place of one command among the answers. Dropped unused by a shard that died: then the outcome is unknown.
pub(crate) struct Ticket {
    ring: Option<Arc<Ring>>,
    number: u64,
}

impl Ticket {
    pub(crate) fn answer(mut self, outcome: Outcome) {
        self.fill(Slot::Answered(outcome));
    }

    /// The command was not handed over: no answer comes, and none is waited for.
    pub(crate) fn withdraw(mut self) {
        self.fill(Slot::Withdrawn);
    }

    fn fill(&mut self, slot: Slot) {
        if let Some(ring) = self.ring.take() {
            ring.fill(self.number, slot);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.fill(Slot::Answered(Err(SubmitError::Unknown)));
    }
}

#[cfg(test)]
mod tests;
