//! A shard: one thread that takes what waits for its feeds, lets the core decide, and hands the groups to the committer.
//!
//! Between fetching and deciding there is no await and no other IO: [`Lane::submit`] does both in one go.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use feedlog_core::command::{Action, Command, Principal};
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::lane::{Lane, Setup, Step};
use feedlog_core::rows::{RowKey, RowValue, RowsError};
use feedlog_core::sequencer::Answer;
use feedlog_storage::{Committed, EngineError, Group, LogPart};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use crate::answers::Ticket;
use crate::append::{Appender, Receipt, answer};
use crate::cache::{ShardReader, is_cached};
use crate::clock::Clock;
use crate::error::SubmitError;
use crate::marks::{Coalescer, Taken};
use crate::metrics::Counters;
use crate::shelf::ShelfWrite;
use crate::subscribe::{Hub, Published};

/// Inputs that are taken before marks that are due are looked at.
const ROUND_MAX: usize = 1024;

/// Payload bytes beyond which a command takes a further place in the mailbox.
const PLACE_BYTES: usize = 16 * 1024;

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

    fn send(self, result: Result<Receipt, SubmitError>) {
        for reply in self.merged {
            reply.send(result.clone());
        }
        if let Some(reply) = self.reply {
            reply.send(result);
        }
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

pub(crate) enum Input {
    Command(Asked),
    /// What became of a group at the committer.
    Settled(Flight, Result<Committed, EngineError>),
    /// Forget everything about a feed that is not in flight: its rows were replaced.
    Forget(FeedId, oneshot::Sender<()>),
    /// Forget everything: the engine was opened again.
    Reset,
    Stop,
}

/// A group at the committer.
pub(crate) struct Flight {
    feed: FeedId,
    last: SeqId,
    /// Rows to remember once they are durable.
    rows: Vec<(RowKey, Option<RowValue>)>,
    /// Users for whom the feed is new.
    joined: Vec<(Uid, SeqId)>,
}

/// The way into one shard.
#[derive(Clone)]
pub(crate) struct Mailbox {
    inputs: Sender<Input>,
    room: Arc<Semaphore>,
    room_max: usize,
    waiting: Arc<AtomicUsize>,
}

impl Mailbox {
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
                self.waiting.fetch_add(1, Ordering::Relaxed);
                let permit = tokio::time::timeout(wait, self.room.clone().acquire_many_owned(weight)).await;
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                match permit {
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

/// Which of `shards` a feed belongs to.
pub(crate) fn shard_of(feed: &FeedId, shards: usize) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(feed.as_str());
    (hash % shards.max(1) as u64) as usize
}

/// What a shard needs from outside.
pub(crate) struct Setting {
    pub(crate) index: usize,
    pub(crate) reader: ShardReader,
    pub(crate) appender: Appender,
    pub(crate) hub: Arc<Hub>,
    pub(crate) clock: Clock,
    pub(crate) setup: Setup,
    pub(crate) feeds_max: usize,
    pub(crate) mailbox_max: usize,
    pub(crate) received_every: Duration,
    pub(crate) counters: Counters,
}

/// Starts the thread of a shard.
pub(crate) fn start(setting: Setting) -> std::io::Result<(Mailbox, JoinHandle<()>)> {
    let (inputs, waiting) = channel();
    let room_max = setting.mailbox_max.clamp(1, Semaphore::MAX_PERMITS >> 1);
    let mailbox = Mailbox {
        inputs: inputs.clone(),
        room: Arc::new(Semaphore::new(room_max)),
        room_max,
        waiting: Arc::new(AtomicUsize::new(0)),
    };
    let thread =
        std::thread::Builder::new().name(format!("feedlog-shard-{}", setting.index)).spawn(move || {
            Shard {
                coalescer: Coalescer::new(setting.received_every),
                setting,
                inputs,
                lanes: HashMap::new(),
                order: VecDeque::new(),
                steps: Vec::new(),
                in_flight: 0,
                stopping: false,
            }
            .run(&waiting);
        })?;
    Ok((mailbox, thread))
}

struct Slot {
    lane: Lane<Token>,
    used: bool,
}

struct Shard {
    setting: Setting,
    inputs: Sender<Input>,
    lanes: HashMap<FeedId, Slot>,
    // Lanes in the order in which they are looked at for eviction: second chance.
    order: VecDeque<FeedId>,
    coalescer: Coalescer,
    // Scratch.
    steps: Vec<Step<Token>>,
    // Groups at the committer.
    in_flight: usize,
    // Ends when nothing is at the committer any more.
    stopping: bool,
}

impl Shard {
    fn run(mut self, waiting: &Receiver<Input>) {
        loop {
            let first = match self.coalescer.next_due() {
                None => match waiting.recv() {
                    Ok(input) => Some(input),
                    Err(_) => return,
                },
                Some(wait) => match waiting.recv_timeout(wait) {
                    Ok(input) => Some(input),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            let mut next = first;
            let mut taken = 0;
            while let Some(input) = next.take() {
                self.apply(input);
                taken += 1;
                if taken < ROUND_MAX {
                    next = waiting.try_recv().ok();
                }
            }
            self.write_due_marks(self.stopping);
            if self.stopping && self.in_flight == 0 {
                return;
            }
        }
    }

    fn apply(&mut self, input: Input) {
        match input {
            Input::Command(Asked { principal, command, rows, reply }) if rows.is_empty() => {
                match self.coalescer.take(&principal, command, reply, &self.setting.reader) {
                    Taken::Held => {}
                    Taken::Submit(command, token) => self.submit(&principal, command, Vec::new(), token),
                }
            }
            // Rows go with the entry of their own command: it is never merged into another.
            Input::Command(Asked { principal, command, rows, reply }) => {
                self.submit(&principal, command, rows, Token::of(reply));
            }
            Input::Settled(flight, result) => {
                self.in_flight -= 1;
                self.settle(flight, result);
            }
            Input::Forget(feed, done) => {
                if self.lanes.get(&feed).is_some_and(|slot| slot.lane.is_idle()) {
                    self.lanes.remove(&feed);
                }
                self.setting.reader.clear();
                let _ = done.send(());
            }
            Input::Reset => {
                self.lanes.retain(|_, slot| !slot.lane.is_idle());
                self.setting.reader.clear();
            }
            Input::Stop => self.stopping = true,
        }
    }

    fn write_due_marks(&mut self, all: bool) {
        for (principal, command, token) in self.coalescer.due(all) {
            self.submit(&principal, command, Vec::new(), token);
        }
    }

    /// Fetch, authorize, decide, sequence, project; the groups wait for the end of the round.
    fn submit(&mut self, principal: &Principal, command: Command, rows: Vec<ShelfWrite>, token: Token) {
        let now_ms = self.setting.clock.now_ms();
        let span = tracing::debug_span!("decide", feed_id = command.feed.as_str());
        let _in_span = span.enter();
        let feed = command.feed.clone();
        let slot = match self.lanes.get_mut(&feed) {
            Some(slot) => slot,
            None => match Lane::load(feed.clone(), &self.setting.reader) {
                Ok(lane) => {
                    self.make_room();
                    self.order.push_back(feed.clone());
                    self.lanes.entry(feed.clone()).or_insert(Slot { lane, used: true })
                }
                Err(error) => {
                    token.send(Err(reading_failed(&error)));
                    return;
                }
            },
        };
        slot.used = true;
        let result = slot.lane.submit(
            principal,
            command,
            token,
            now_ms,
            &self.setting.setup,
            &self.setting.reader,
            &mut self.steps,
        );
        if let Err((token, error)) = result {
            token.send(Err(reading_failed(&error)));
        }
        self.carry_out(rows);
    }

    /// Does what lanes want done. A command makes one group at most, and `shelf` is written with it.
    fn carry_out(&mut self, mut shelf: Vec<ShelfWrite>) {
        for step in self.steps.drain(..) {
            match step {
                Step::Reply(token, what) => {
                    self.setting.counters.answered(&what);
                    token.send(answer(what));
                }
                Step::ReadFailed(error) => {
                    tracing::error!(%error, "rows could not be derived, the command did not happen");
                }
                Step::Commit { group, rows } => {
                    let mut kept = Vec::new();
                    let mut joined = Vec::new();
                    for (key, value) in &rows {
                        match (key, value) {
                            (RowKey::UserFeed(uid, _), Some(_)) => {
                                joined.push((uid.clone(), group.expected));
                            }
                            _ if is_cached(key) => kept.push((key.clone(), value.clone())),
                            _ => {}
                        }
                    }
                    let state =
                        std::mem::take(&mut shelf).into_iter().map(|row| row.at(group.answer)).collect();
                    let last = group.entries.last().map_or(group.expected, |entry| entry.seq);
                    let flight = Flight { feed: group.feed.clone(), last, rows: kept, joined };
                    let log = Some(LogPart {
                        feed: group.feed,
                        expected: group.expected,
                        entries: group.entries,
                        rows,
                        strip: group.strip,
                    });
                    self.in_flight += 1;
                    self.setting.appender.append(Group { log, state }, flight, &self.inputs);
                }
            }
        }
    }

    /// INVARIANT I-2: replies and subscribers learn of entries here and nowhere else, from `Committed`.
    fn settle(&mut self, flight: Flight, result: Result<Committed, EngineError>) {
        let span = tracing::debug_span!("ack", feed_id = flight.feed.as_str(), seq_id = flight.last.0);
        let _in_span = span.enter();
        let Some(slot) = self.lanes.get_mut(&flight.feed) else {
            debug_assert!(false, "INVARIANT: a lane with a group in flight is not idle, so it is kept");
            return;
        };
        match result {
            Ok(committed) => {
                self.setting.reader.remember(flight.rows);
                slot.lane.committed(flight.last, &mut self.steps);
                let commit_no = committed.commit_no();
                let entries = committed.into_entries();
                self.setting.counters.entries.increment(entries.len() as u64);
                let is_open = slot.lane.kind() == Some(FeedKind::Open);
                self.setting.hub.publish(Published {
                    feed: &flight.feed,
                    entries,
                    commit_no,
                    is_open,
                    joined: flight.joined,
                });
            }
            Err(EngineError::Unknown(_)) => slot.lane.unknown(flight.last, &mut self.steps),
            // INVARIANT I-7: the lane loads the feed again before it decides anything more.
            Err(_) => slot.lane.refused(flight.last, &mut self.steps),
        }
        self.carry_out(Vec::new());
    }

    /// Keeps the number of lanes bounded: drops idle ones that were not used since they were last looked at.
    fn make_room(&mut self) {
        let mut looked = 0;
        while self.lanes.len() >= self.setting.feeds_max && looked < 64 {
            looked += 1;
            let Some(feed) = self.order.pop_front() else { return };
            match self.lanes.get_mut(&feed) {
                None => {}
                Some(slot) if slot.used || !slot.lane.is_idle() => {
                    slot.used = false;
                    self.order.push_back(feed);
                }
                Some(_) => {
                    self.lanes.remove(&feed);
                }
            }
        }
    }
}

fn reading_failed(error: &RowsError) -> SubmitError {
    tracing::error!(error = %error, "a command could not be decided");
    SubmitError::Unavailable("the engine does not answer")
}

impl Counters {
    fn answered(&self, answer: &Answer) {
        use feedlog_core::sequencer::Refusal;
        let counter = match answer {
            Answer::Done(done) if done.duplicate => &self.duplicate,
            Answer::Done(_) => &self.done,
            Answer::Refused(Refusal::Denied(_)) => &self.denied,
            Answer::Refused(Refusal::Rejected(_)) => &self.rejected,
            Answer::Retry => &self.retry,
            Answer::Unknown => &self.unknown,
        };
        counter.increment(1);
    }
}
