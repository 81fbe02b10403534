//! A shard: one thread that takes what waits for its feeds, lets the core decide, and hands the groups to the committer.
//!
//! Between fetching and deciding there is no await and no other IO: [`Lane::submit`] does both in one go.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use feedlog_core::command::{Command, Principal};
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::lane::{Lane, Setup, Step};
use feedlog_core::rows::{RowKey, RowValue, RowsError};
use feedlog_core::sequencer::Answer;
use feedlog_storage::{Committed, EngineError, Group, LogPart};
use tokio::sync::oneshot;

use crate::append::{Appender, answer};
use crate::cache::{ShardReader, is_cached};
use crate::clock::Clock;
use crate::error::SubmitError;
use crate::mailbox::{Asked, Mailbox, Token};
use crate::marks::{Coalescer, Taken};
use crate::metrics::Counters;
use crate::shelf::ShelfWrite;
use crate::subscribe::{Hub, Published};

/// Inputs that are taken before marks that are due are looked at.
const ROUND_MAX: usize = 1024;

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
    let mailbox = Mailbox::new(inputs.clone(), setting.mailbox_max);
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
