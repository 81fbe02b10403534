//! One call: made up, carried, tried again, given up.

use feedlog_core::event::Event;
use feedlog_core::ids::Uid;
use feedlog_core::read::Reader as _;
use feedlog_storage::{Direction, EngineError};

use super::admin::Ask;
use super::call::{Call, CarryError, What};
use super::parked::{PARK_TRIES, Stuck};
use super::plan::{Part, Run, call_id};
use super::prepare::{Prepared, Sources};
use super::retry::Next;
use super::rows::*;
use super::worker::{UNAVAILABLE_WAIT, Worker, rest};
use super::{Desk, lock};
use crate::clock::Moment;
use crate::error::ReadError;
use crate::metrics as names;
use crate::read::EngineReader;

/// Items of one call, unless one entry alone makes more.
const ITEMS_MAX: usize = 1_000;
/// Tries of a dead letter in one replay.
const DEAD_TRIES_MAX: u32 = 3;

/// A piece of a run, for a part of the recipients.
pub(super) struct Task {
    pub(super) run: Run,
    pub(super) part: Part,
    /// The part is still to be cut.
    pub(super) cut: bool,
    pub(super) replay: Option<u64>,
    /// The dead letter that it is.
    pub(super) letter: Option<u64>,
    /// It is given back when it fails again and again.
    pub(super) may_park: bool,
    /// Failed tries so far.
    pub(super) tries: u32,
}

/// What became of a task.
pub(super) enum Fate {
    /// Taken, or nobody needs to know.
    Done,
    Dead,
    /// It fails again and again.
    Stuck,
}

/// Counts a call that is under way, also when it is dropped.
struct InFlight<'a>(&'a Desk);

impl<'a> InFlight<'a> {
    fn begin(desk: &'a Desk) -> Self {
        lock(&desk.vitals).in_flight += 1;
        Self(desk)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(&self.0.vitals).in_flight -= 1;
    }
}

/// Likewise, calls that wait for their next try.
struct Retrying<'a>(&'a Desk);

impl<'a> Retrying<'a> {
    fn begin(desk: &'a Desk) -> Self {
        lock(&desk.vitals).retrying += 1;
        Self(desk)
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        lock(&self.0.vitals).retrying -= 1;
    }
}

impl Worker {
    /// All calls about a run, in order. With `park` the tries that its first call had; then it ends with what is left when
    /// a call fails again and again.
    pub(super) async fn tell_run(&self, run: Run, replay: Option<u64>, park: Option<u32>) -> Option<Stuck> {
        self.tell_pieces(run, replay, park.is_some(), park.unwrap_or_default()).await
    }

    /// All calls about a run of a parked feed, whose first call had so many tries.
    pub(super) async fn tell_run_after(&self, run: Run, tries: u32) {
        self.tell_pieces(run, None, false, tries).await;
    }

    async fn tell_pieces(&self, run: Run, replay: Option<u64>, may_park: bool, tries: u32) -> Option<Stuck> {
        let mut tries = tries;
        let mut left = Some(run);
        while let Some(rest) = left {
            let piece = self.cut_piece(&rest).await;
            if let Some(stuck) = self.tell_piece(&piece, &rest, replay, may_park, tries).await {
                return Some(stuck);
            }
            tries = 0;
            left = (piece.last < rest.last).then(|| Run { first: piece.last.next(), ..rest });
        }
        None
    }

    /// What the next call is about: a bounded number of entries; those that take back many messages weigh as many. From the
    /// same entry on it is always cut the same way.
    async fn cut_piece(&self, run: &Run) -> Run {
        let piece = run.start(self.desk().office.limits.call_entries_max);
        if piece.first == piece.last {
            return piece;
        }
        let desk = self.desk().clone();
        self.read(move || {
            let (engine, bytes_max) = (&desk.office.engine, desk.office.limits.call_bytes_max);
            let mut weights = Vec::new();
            let mut next = piece.first;
            while next <= piece.last {
                let max = usize::try_from(piece.last.0 - next.0 + 1).unwrap_or(usize::MAX);
                let entries =
                    match engine.read(&piece.feed, next, piece.last, Direction::Forward, max, bytes_max) {
                        // As damaged the next time: the call becomes a dead letter, and others go on.
                        Err(EngineError::Damaged(_)) => return Ok(piece.clone()),
                        read => read?,
                    };
                let Some(last) = entries.last() else { break };
                next = last.seq.next();
                weights.extend(entries.iter().map(|entry| (entry.seq, items_of(&entry.event))));
            }
            Ok(piece.clone().light(&weights, ITEMS_MAX))
        })
        .await
    }

    async fn tell_piece(
        &self,
        piece: &Run,
        run: &Run,
        replay: Option<u64>,
        may_park: bool,
        tries: u32,
    ) -> Option<Stuck> {
        let mut tries = tries;
        let mut part = Part::default();
        loop {
            let mut task =
                Task { run: piece.clone(), part, cut: true, replay, letter: None, may_park, tries };
            if let Fate::Stuck = self.tell(&mut task).await {
                // From the first entry of the piece on: it is cut the same way again.
                return Some(Stuck { rest: run.clone(), tries: task.tries });
            }
            tries = 0;
            match task.part.upto {
                Some(upto) if task.part.more => part = Part { after: Some(upto), ..Part::default() },
                _ => return None,
            }
        }
    }

    async fn prepare(&self, task: &Task) -> Result<Prepared, ReadError> {
        let desk = self.desk().clone();
        let (run, part, cut) = (task.run.clone(), task.part.clone(), task.cut);
        let read = move || {
            let office = &desk.office;
            let sources = Sources {
                engine: &office.engine,
                hub: &office.hub,
                settings: office.settings,
                clock: &office.clock,
                limits: &office.limits,
                endpoint: &desk.endpoint,
                told: &desk.told,
            };
            sources.prepare(&run, &part, cut)
        };
        self.desk().office.blocking.run(read).await
    }

    /// One call, again until it is taken or dead. The part is cut with its first try and stays.
    pub(super) async fn tell(&self, task: &mut Task) -> Fate {
        let endpoint = &self.desk().endpoint;
        let mut patience = endpoint.patience;
        if task.letter.is_some() {
            patience.attempts_max = DEAD_TRIES_MAX;
        }
        let began = Moment::now();
        loop {
            // A parked feed waits for its turn, so that it never takes the place of others.
            let turn = if task.may_park || task.replay.is_some() {
                None
            } else {
                self.parked_calls.acquire().await.ok()
            };
            let prepared = match self.prepare(task).await {
                Ok(prepared) => prepared,
                Err(ReadError::Damaged) => {
                    // It would be as damaged the next time.
                    if self.bury(task, "stored data is damaged").await {
                        return Fate::Dead;
                    }
                    rest(UNAVAILABLE_WAIT).await;
                    continue;
                }
                Err(_) => {
                    rest(UNAVAILABLE_WAIT).await;
                    continue;
                }
            };
            task.cut = false;
            task.part = prepared.part.clone();
            if prepared.to.is_empty() {
                return Fate::Done;
            }
            task.tries += 1;
            let tries = task.tries;
            let error = match self.carry(task, prepared, tries).await {
                Ok(()) => return Fate::Done,
                Err(error) => error,
            };
            drop(turn);
            self.note_error(&error);
            let random = getrandom::u64().unwrap_or(u64::MAX);
            let wait = match patience.next(&error, tries, began.elapsed(), random) {
                Next::Again(wait) => wait,
                Next::Dead => {
                    if self.bury(task, &error.to_string()).await {
                        return Fate::Dead;
                    }
                    // No room, or not written: nothing is lost, it goes on trying.
                    patience.wait(&error, tries, random)
                }
                Next::Gone => {
                    // The worker pauses and drops this.
                    let _ = self.desk().asks.send(Ask::Gone).await;
                    return std::future::pending().await;
                }
            };
            lock(&self.desk().vitals).retried += 1;
            count_call(endpoint, "retried");
            if task.may_park && tries >= PARK_TRIES && self.take_room() {
                return Fate::Stuck;
            }
            self.show_lag();
            let _waiting = Retrying::begin(self.desk());
            rest(wait).await;
        }
    }

    async fn carry(&self, task: &Task, prepared: Prepared, tries: u32) -> Result<(), CarryError> {
        let Desk { office, endpoint, told, vitals, .. } = &**self.desk();
        let now_ms = office.clock.now_ms();
        let mut read = Vec::new();
        {
            let mut told = lock(told);
            for one in &prepared.to {
                let concerned = prepared
                    .items
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| one.items.as_ref().is_none_or(|items| items.contains(at)));
                for (_, item) in concerned {
                    match &item.what {
                        // Before the call: if it fails it may have been taken all the same.
                        What::Message { .. } => told.note(&one.uid, &task.run.feed, item.seq, now_ms),
                        What::Read { feed, upto } => read.push((one.uid.clone(), feed.clone(), *upto)),
                        What::Notified { .. } | What::Withdrawn { .. } => {}
                    }
                }
            }
        }
        let call = Call {
            endpoint: endpoint.name.clone(),
            id: self.id(task),
            feed: task.run.feed.clone(),
            kind: prepared.kind,
            items: prepared.items,
            to: prepared.to,
            attempt: tries,
            replay: task.replay.is_some(),
            time_ms: now_ms,
        };
        let in_flight = InFlight::begin(self.desk());
        office.carrier.carry(call).await?;
        drop(in_flight);
        count_call(endpoint, "delivered");
        {
            let mut vitals = lock(vitals);
            vitals.delivered += 1;
            vitals.last_delivered_ms = Some(office.clock.now_ms());
        }
        for (uid, feed, upto) in read {
            let (engine, at) = (office.engine.clone(), feed.clone());
            let entry = office.blocking.run(move || Ok(EngineReader(&*engine).entry(&at, upto)?)).await;
            if let Ok(Some(entry)) = entry {
                lock(told).read(&uid, &feed, upto, entry.time_ms, now_ms);
            }
        }
        Ok(())
    }

    fn id(&self, task: &Task) -> String {
        call_id(&self.desk().endpoint.name, &task.run, &task.part, task.replay, feedlog_storage::digest)
    }

    fn note_error(&self, error: &CarryError) {
        let now_ms = self.desk().office.clock.now_ms();
        let mut vitals = lock(&self.desk().vitals);
        let text = error.to_string();
        // Each change once, not each try.
        let is_new = vitals.last_error.as_ref().is_none_or(|(last, _)| *last != text);
        vitals.last_error = Some((text, now_ms));
        drop(vitals);
        if is_new {
            tracing::warn!(%error, endpoint = &*self.desk().endpoint.name, "a call of the outbox was not taken");
        }
    }

    /// Makes a dead letter of a call; `false` when there is no room, or it could not be written.
    async fn bury(&self, task: &Task, error: &str) -> bool {
        let Desk { office, endpoint, vitals, .. } = &**self.desk();
        let number = {
            let mut vitals = lock(vitals);
            match task.letter {
                Some(number) => number,
                None if vitals.dead + vitals.dying >= office.limits.dead_max => {
                    if !vitals.full {
                        tracing::error!(
                            endpoint = &*endpoint.name,
                            "no room for more dead letters: the endpoint stands still"
                        );
                    }
                    vitals.full = true;
                    return false;
                }
                None => {
                    vitals.dying += 1;
                    vitals.next_number(office.clock.now_ms())
                }
            }
        };
        let name = |uid: &Option<Uid>| uid.as_ref().map(|uid| uid.as_str().to_owned());
        // The id of a letter is that of the call which died.
        let first_id = call_id(&endpoint.name, &task.run, &task.part, None, feedlog_storage::digest);
        let letter = StoredDead {
            id: first_id,
            feed: task.run.feed.as_str().to_owned(),
            first: task.run.first.0,
            last: task.run.last.0,
            after: name(&task.part.after),
            upto: name(&task.part.upto),
            more: task.part.more,
            tries: task.tries,
            error: error.to_owned(),
            time_ms: office.clock.now_ms(),
        };
        let row = (numbered(dead_prefix(&endpoint.name), number), Some(encode(&letter)));
        let written = office.shelf.put(vec![row]).await.is_ok();
        let mut vitals = lock(vitals);
        if task.letter.is_none() {
            vitals.dying = vitals.dying.saturating_sub(1);
            vitals.dead += usize::from(written);
        }
        if written {
            vitals.full = false;
            count_call(endpoint, "dead");
        }
        written
    }
}

fn count_call(endpoint: &super::Endpoint, outcome: &'static str) {
    let endpoint = endpoint.name.to_string();
    metrics::counter!(names::OUTBOX_CALLS_TOTAL, "endpoint" => endpoint, "outcome" => outcome).increment(1);
}

/// How many items an entry makes at most.
fn items_of(event: &Event) -> usize {
    match event {
        Event::MessagesExpired { targets } | Event::MessagesErased { targets, .. } => targets.len().max(1),
        _ => 1,
    }
}
