//! The way into a shard: room for what waits, and whom to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::time::Duration;

use feedlog_core::command::{Action, Command, Principal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use crate::answers::Ticket;
use crate::append::Receipt;
use crate::error::SubmitError;
use crate::metrics::Counters;
use crate::shard::Input;
use crate::shelf::ShelfWrite;

/// Payload bytes beyond which a command takes a further place in the mailbox.
const PLACE_BYTES: usize = 16 * 1024;

/// The way into one shard.
#[derive(Clone)]
pub(crate) struct Mailbox {
    inputs: Sender<Input>,
    room: Arc<Semaphore>,
    room_max: usize,
    waiting: Arc<AtomicUsize>,
}

impl Mailbox {
    /// The way to whoever receives `inputs`, with room for `room_max` places.
    pub(crate) fn new(inputs: Sender<Input>, room_max: usize) -> Self {
        let room_max = room_max.clamp(1, Semaphore::MAX_PERMITS >> 1);
        let room = Arc::new(Semaphore::new(room_max));
        Self { inputs, room, room_max, waiting: Arc::new(AtomicUsize::new(0)) }
    }

    /// Room for a command; waits for it at most `wait`.
    pub(crate) async fn room(
        &self,
        command: &Command,
        rows: &[ShelfWrite],
        wait: Duration,
        counters: &Counters,
    ) -> Result<OwnedSemaphorePermit, SubmitError> {
        let weight = self.weight(command, rows);
        match self.room.clone().try_acquire_many_owned(weight) {
            Ok(permit) => Ok(permit),
            Err(TryAcquireError::Closed) => Err(SubmitError::Unavailable("closing")),
            Err(TryAcquireError::NoPermits) => {
                counters.waited.increment(1);
                let _waits = Waits::new(&self.waiting);
                match tokio::time::timeout(wait, self.room.clone().acquire_many_owned(weight)).await {
                    Ok(Ok(permit)) => Ok(permit),
                    Ok(Err(_)) => Err(SubmitError::Unavailable("closing")),
                    Err(_) => Err(SubmitError::Unavailable("too many commands are waiting")),
                }
            }
        }
    }

    /// Places that a command takes: one, and more for a large payload, so that a full mailbox is bounded in bytes too.
    fn weight(&self, command: &Command, rows: &[ShelfWrite]) -> u32 {
        let payload = match &command.action {
            Action::SendMessage(draft) => draft.payload.len() + draft.carried.len(),
            Action::EditMessage { payload, .. }
            | Action::Broadcast { payload, .. }
            | Action::Notify { payload, .. } => payload.len(),
            _ => 0,
        };
        let bytes = payload + rows.iter().map(ShelfWrite::size).sum::<usize>();
        u32::try_from((1 + bytes / PLACE_BYTES).min(self.room_max)).unwrap_or(1)
    }

    /// Hands over a command of the service itself, whatever waits.
    pub(crate) fn send_own(
        &self,
        principal: Arc<Principal>,
        command: Command,
    ) -> Result<oneshot::Receiver<Result<Receipt, SubmitError>>, SubmitError> {
        let (reply, answer) = Reply::one(None);
        self.hand_over(Asked { principal, command, rows: Vec::new(), reply })?;
        Ok(answer)
    }

    /// Hands over a command that has room. On `Err` it was not, and nothing answers it.
    pub(crate) fn hand_over(&self, asked: Asked) -> Result<(), SubmitError> {
        match self.inputs.send(Input::Command(asked)) {
            Ok(()) => Ok(()),
            Err(SendError(input)) => {
                if let Input::Command(asked) = input {
                    asked.reply.withdraw();
                }
                Err(SubmitError::Unavailable("closing"))
            }
        }
    }

    pub(crate) fn input(&self, input: Input) {
        // A shard that has ended needs nothing more.
        let _ = self.inputs.send(input);
    }

    /// Commands that were taken and not yet answered, and those that wait for room.
    pub(crate) fn queued(&self) -> usize {
        self.room_max.saturating_sub(self.room.available_permits()) + self.waiting.load(Ordering::Relaxed)
    }

    /// Takes no more commands and waits until all that were taken are answered.
    pub(crate) async fn drain(&self) {
        let all = u32::try_from(self.room_max).unwrap_or(u32::MAX);
        let _ = self.room.acquire_many(all).await;
        self.room.close();
    }
}

/// Whom to answer, and the room in the mailbox that the command takes until then.
pub(crate) struct Reply {
    caller: Caller,
    permit: Option<OwnedSemaphorePermit>,
}

/// Who waits for the answer. Dropped by a shard that died, either tells that the outcome is unknown.
enum Caller {
    One(oneshot::Sender<Result<Receipt, SubmitError>>),
    /// A connection, which takes its answers in order.
    Queue(Ticket),
}

impl Reply {
    /// A caller that waits for this answer alone.
    pub(crate) fn one(
        permit: Option<OwnedSemaphorePermit>,
    ) -> (Self, oneshot::Receiver<Result<Receipt, SubmitError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { caller: Caller::One(sender), permit }, receiver)
    }

    /// A caller that takes its answers in order.
    pub(crate) fn queued(ticket: Ticket, permit: OwnedSemaphorePermit) -> Self {
        Self { caller: Caller::Queue(ticket), permit: Some(permit) }
    }

    /// Gives back the room in the mailbox while the command waits elsewhere.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    pub(crate) fn send(self, result: Result<Receipt, SubmitError>) {
        // Before the answer: whoever sends the next command because of it finds the room.
        drop(self.permit);
        match self.caller {
            // A caller that went away needs no answer; its command stands.
            Caller::One(sender) => drop(sender.send(result)),
            Caller::Queue(ticket) => ticket.answer(result),
        }
    }

    /// The command was not handed over, and the caller is told otherwise.
    fn withdraw(self) {
        match self.caller {
            Caller::One(_) => {}
            Caller::Queue(ticket) => ticket.withdraw(),
        }
    }
}

/// All who are answered by one decision.
pub(crate) struct Token {
    pub(crate) reply: Option<Reply>,
    /// Moves that were merged into this one.
    pub(crate) merged: Vec<Reply>,
}

impl Token {
    /// One who is answered alone.
    pub(crate) fn of(reply: Reply) -> Self {
        Self { reply: Some(reply), merged: Vec::new() }
    }

    pub(crate) fn send(self, result: Result<Receipt, SubmitError>) {
        for reply in self.merged {
            reply.send(result.clone());
        }
        if let Some(reply) = self.reply {
            reply.send(result);
        }
    }
}

/// Counts one who waits for room, also when the caller gives up waiting.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A command on its way to its shard.
pub(crate) struct Asked {
    pub(crate) principal: Arc<Principal>,
    pub(crate) command: Command,
    /// Rows of the front end that are written with the entries of the command, if it makes any.
    pub(crate) rows: Vec<ShelfWrite>,
    pub(crate) reply: Reply,
}
