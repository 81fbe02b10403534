//! Plays random commands and compares the system with the oracle after each.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::command::{Action, Command, Draft, Principal, RecallTarget};
use crate::entry::Entry;
use crate::event::{FeedKind, JoinMode, Role, Scope};
use crate::feed::Rejected;
use crate::ids::{ClientMsgId, FeedId, Ordinal, SeqId, TimeMs, Uid};
use crate::policy::Denied;
use crate::rows::DedupScope;
use crate::sequencer::{Answer, Refusal};
use crate::testing::operations::{Cast, user};
use crate::testing::oracle::{NaiveMarks, Oracle};
use crate::testing::pages::check_page;
use crate::testing::{MemStore, Random, System};
use crate::views::HistoryQuery;

/// What to play.
#[derive(Debug, Clone)]
pub struct Options {
    /// Repeats the run.
    pub seed: u64,
    /// How many commands.
    pub operations: u64,
    /// Before every name, so that several runs can share a system.
    pub prefix: String,
    /// Whether groups may be refused by the system (answers `Retry`), so that nothing is said of what must succeed.
    pub refusing: bool,
}

/// What was played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Played {
    /// Commands that appended.
    pub appended: u64,
    /// Commands that had been done before or changed nothing.
    pub repeated: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Entries of all feeds.
    pub entries: u64,
    /// Messages of the longest feed.
    pub longest: u64,
}

/// Plays `options.operations` random commands on the system and compares it with the oracle after each. Panics, with the
/// seed, at the first difference.
pub fn run(system: &mut dyn System, options: &Options) -> Played {
    let mut random = Random::new(options.seed);
    let cast = Cast::new(&options.prefix, system.digest(), &mut random);
    let mut world = World {
        system,
        oracle: Oracle::default(),
        random,
        users: cast.users.clone(),
        feeds: cast.feeds.clone(),
        sent: Vec::new(),
        used: HashMap::new(),
        marks: None,
        refusing: options.refusing,
        played: Played::default(),
        place: format!("seed {}, before the first command", options.seed),
    };
    for created in cast.created() {
        // A refusing system is asked until it agrees.
        while matches!(world.play(vec![created.clone()])[..], [Answer::Retry]) {}
    }
    let mut done = 0;
    while done < options.operations {
        let count = if world.random.chance(12) { 2 + world.random.below(6) } else { 1 };
        let now_ms = world.system.now_ms();
        let mut batch: Vec<(Principal, Command)> =
            (0..count).map(|_| cast.command(&mut world.random, &world.oracle, &world.sent, now_ms)).collect();
        if count > 2 && world.random.chance(30) {
            // The same command again while the first is in flight.
            batch[1] = batch[0].clone();
        }
        done += count;
        world.place = format!("seed {}, operation {done}: {batch:?}", options.seed);
        world.play(batch);
        world.check_somewhere();
        if done % 8 == 0 {
            world.check_history();
        }
        if done % 400 == 0 {
            world.check_everywhere();
        }
        if world.random.chance(60) {
            let ms = world.random.below(400);
            world.system.advance(ms);
        }
    }
    world.check_everywhere();
    world.check_rebuild();
    for log in world.oracle.logs.values() {
        world.played.entries += log.len() as u64;
        world.played.longest = world.played.longest.max(log.last().map_or(0, |last| last.ordinal.0));
    }
    world.played
}

/// What must come of a command that is alone.
#[derive(Debug, PartialEq)]
enum Expected {
    /// A new entry.
    Appended,
    /// An old answer; the place when known.
    Again(Option<SeqId>),
    Refused(Refusal),
    /// The oracle has no opinion.
    Anything,
}

struct World<'a> {
    system: &'a mut dyn System,
    oracle: Oracle,
    random: Random,
    users: Vec<Uid>,
    feeds: Vec<FeedId>,
    /// Messages with a client_msg_id that are in the log.
    sent: Vec<(FeedId, Uid, Draft)>,
    used: HashMap<(FeedId, DedupScope, ClientMsgId), (SeqId, Draft)>,
    /// Where marks must be after the command in hand.
    marks: Option<(Uid, FeedId, NaiveMarks)>,
    refusing: bool,
    played: Played,
    place: String,
}

impl World<'_> {
    fn play(&mut self, batch: Vec<(Principal, Command)>) -> Vec<Answer> {
        let expected = match &batch[..] {
            [(principal, command)] => self.expected(principal, command),
            _ => Expected::Anything,
        };
        let heads: BTreeMap<FeedId, SeqId> =
            batch.iter().map(|(_, c)| (c.feed.clone(), self.oracle.head(&c.feed))).collect();
        let answers = self.system.submit(batch.clone());
        assert_eq!(answers.len(), batch.len(), "{}", self.place);
        for feed in heads.keys() {
            self.pull(feed);
        }
        let mut answered: BTreeSet<(FeedId, SeqId)> = BTreeSet::new();
        for ((principal, command), answer) in batch.iter().zip(&answers) {
            match answer {
                Answer::Done(done) if done.duplicate => self.played.repeated += 1,
                Answer::Done(_) => self.played.appended += 1,
                _ => self.played.refused += 1,
            }
            match answer {
                Answer::Done(done) if !done.duplicate => {
                    assert!(done.seq > heads[&command.feed], "{}: {done:?} is new", self.place);
                    assert!(answered.insert((done.feed.clone(), done.seq)), "{}", self.place);
                    let alone = (batch.len() == 1).then_some(heads[&command.feed]);
                    self.check_appended(principal, command, done.seq, alone);
                }
                Answer::Done(done) => {
                    assert!(done.seq <= self.oracle.head(&command.feed), "{}: {done:?}", self.place);
                    self.note_used(principal, command, done.seq);
                }
                Answer::Retry => assert!(self.refusing, "{}: nothing was refused", self.place),
                Answer::Refused(_) => {}
                Answer::Unknown => panic!("{}: nothing fails to sync here", self.place),
            }
        }
        // Every message in the log was answered for: what was refused or never written is not there.
        for (feed, head) in &heads {
            for entry in &self.oracle.log(feed)[head.0 as usize..] {
                let is_answered = answered.contains(&(feed.clone(), entry.seq));
                assert!(!entry.is_message() || is_answered, "{}: nobody sent {entry:?}", self.place);
            }
        }
        self.compare(&expected, answers.first());
        if let (Some((uid, feed, marks)), Some(Answer::Done(_))) = (self.marks.take(), answers.first()) {
            assert_eq!(self.oracle.marks(&feed, &uid), marks, "{}", self.place);
        }
        answers
    }

    fn compare(&self, expected: &Expected, answer: Option<&Answer>) {
        let fits = match (expected, answer) {
            (Expected::Anything, _) => true,
            (_, Some(Answer::Retry)) => self.refusing,
            (Expected::Appended, Some(Answer::Done(done))) => !done.duplicate,
            (Expected::Again(seq), Some(Answer::Done(done))) => {
                done.duplicate && seq.is_none_or(|seq| done.seq == seq)
            }
            (Expected::Refused(refusal), Some(Answer::Refused(given))) => given == refusal,
            _ => false,
        };
        assert!(fits, "{}: expected {expected:?}, got {answer:?}", self.place);
    }

    /// Takes over what is new in a log, and checks that it follows (I-1).
    fn pull(&mut self, feed: &FeedId) {
        let log = self.oracle.logs.entry(feed.clone()).or_default();
        for entry in self.system.log(feed, SeqId(log.len() as u64)) {
            let (ordinal, time_ms) =
                log.last().map_or((Ordinal::ZERO, 0), |last| (last.ordinal, last.time_ms));
            assert_eq!(entry.seq.0, log.len() as u64 + 1, "{}: dense", self.place);
            let next = if entry.is_message() { ordinal.next() } else { ordinal };
            assert_eq!(entry.ordinal, next, "{}: ordinals are dense", self.place);
            assert!(entry.time_ms >= time_ms, "{}: time does not go back", self.place);
            log.push(entry);
        }
        if log.is_empty() {
            self.oracle.logs.remove(feed);
        }
    }

    /// `alone` is the head before, when nothing else was handed over with the command.
    fn check_appended(&mut self, principal: &Principal, command: &Command, seq: SeqId, alone: Option<SeqId>) {
        let entry = self.oracle.entry(&command.feed, seq).cloned();
        let entry = entry.unwrap_or_else(|| panic!("{}: {seq} is durable", self.place));
        assert_eq!(entry.sender, principal.uid, "{}", self.place);
        let Action::SendMessage(draft) = &command.action else { return };
        let message = entry.message().unwrap_or_else(|| panic!("{}: {entry:?}", self.place));
        assert_eq!(entry.payload.bytes().cloned().unwrap_or_default(), draft.payload, "{}", self.place);
        assert_eq!(message.carried.bytes().cloned().unwrap_or_default(), draft.carried, "{}", self.place);
        assert_eq!(message.client_msg_id, draft.client_msg_id, "{}", self.place);
        assert!(message.seen_seq < seq, "{}: nobody saw what comes later", self.place);
        if let Some(head) = alone {
            let received = self.oracle.marks(&command.feed, &principal.uid).received;
            let seen = draft.seen_seq.or(received).unwrap_or(head).min(head);
            assert_eq!(message.seen_seq, seen, "{}", self.place);
        }
        if let Some(id) = &draft.client_msg_id {
            let scope = DedupScope::of(&draft.scope, &principal.uid);
            let key = (command.feed.clone(), scope, id.clone());
            let before = self.used.insert(key, (seq, (**draft).clone()));
            assert!(before.is_none(), "{}: I-5, sent as {before:?}", self.place);
            self.sent.push((command.feed.clone(), principal.uid.clone(), (**draft).clone()));
        }
    }

    /// A repeated send gets the first place.
    fn note_used(&mut self, principal: &Principal, command: &Command, seq: SeqId) {
        let Action::SendMessage(draft) = &command.action else { return };
        let id = draft.client_msg_id.clone().unwrap_or_else(|| panic!("{}: no id", self.place));
        let scope = DedupScope::of(&draft.scope, &principal.uid);
        let key = (command.feed.clone(), scope, id);
        assert_eq!(self.used.get(&key).map(|(seq, _)| *seq), Some(seq), "{}", self.place);
    }

    fn expected(&mut self, principal: &Principal, command: &Command) -> Expected {
        let now_ms = self.system.now_ms();
        match &command.action {
            Action::SendMessage(draft) => self.expected_send(principal, &command.feed, draft, now_ms),
            Action::RecallMessage { target, .. } if !principal.scopes.send_as => {
                self.expected_recall(principal, &command.feed, target, now_ms)
            }
            Action::MoveMarks { feed, read, received, unread_from } => {
                self.expected_marks(&principal.uid, feed, *read, *received, *unread_from)
            }
            _ => Expected::Anything,
        }
    }

    /// Whether a user may write, and what the answer is when not.
    fn barred(&self, feed: &FeedId, uid: &Uid) -> Option<Denied> {
        if self.oracle.first_readable(feed, uid).is_some() {
            return None;
        }
        let group = self.oracle.kind(feed) == Some(FeedKind::Group);
        let knowable = group && self.oracle.join_mode(feed) != JoinMode::Invite;
        Some(if knowable { Denied::Forbidden } else { Denied::FeedNotFound })
    }

    fn expected_send(&self, principal: &Principal, feed: &FeedId, draft: &Draft, now_ms: TimeMs) -> Expected {
        let uid = &principal.uid;
        let exists = self.oracle.kind(feed).is_some();
        if exists && !principal.scopes.send_as {
            if let Some(denied) = self.barred(feed, uid) {
                return Expected::Refused(denied.into());
            }
        } else if !exists && !principal.scopes.send_as {
            let own = feed.is_personal_of(uid);
            let named = draft
                .create
                .as_ref()
                .is_some_and(|create| create.kind == FeedKind::Open || create.members.contains(uid));
            match (own || named, &draft.create) {
                (true, _) => {}
                (false, Some(create)) if create.kind == FeedKind::Direct => {
                    return Expected::Refused(Denied::Forbidden.into());
                }
                (false, _) => return Expected::Refused(Denied::FeedNotFound.into()),
            }
        }
        if let Some(id) = &draft.client_msg_id
            && let Some((seq, first)) =
                self.used.get(&(feed.clone(), DedupScope::of(&draft.scope, uid), id.clone()))
        {
            let body = |draft: &Draft| {
                (
                    draft.payload.clone(),
                    draft.kind,
                    draft.mentions.clone(),
                    draft.reply_to,
                    draft.to_reply,
                    draft.expires_ms,
                )
            };
            let same = body(first) == body(draft);
            return if same {
                Expected::Again(Some(*seq))
            } else {
                Expected::Refused(Rejected::IdConflict { seq: *seq }.into())
            };
        }
        let head = self.oracle.head(feed);
        if draft.expect_head.is_some_and(|expected| expected != head) {
            return Expected::Refused(Rejected::HeadMoved { head }.into());
        }
        if draft.expires_ms.is_some_and(|ms| ms <= now_ms) {
            return Expected::Refused(
                Rejected::BadField { field: "expires_ms", problem: "is in the past" }.into(),
            );
        }
        if let Some(seq) = draft.reply_to
            && !self.is_visible_message(feed, uid, seq, now_ms)
        {
            return Expected::Refused(
                Rejected::BadField { field: "reply_to", problem: "names no message of this feed" }.into(),
            );
        }
        Expected::Appended
    }

    fn is_visible_message(&self, feed: &FeedId, uid: &Uid, seq: SeqId, now_ms: TimeMs) -> bool {
        let first = self.oracle.first_readable(feed, uid).unwrap_or(SeqId(1));
        let Some(message) = self.oracle.entry(feed, seq).and_then(Entry::message) else { return false };
        let (_, gone) = self.oracle.fate(feed, seq);
        seq >= first && !gone && message.expires_ms.is_none_or(|ms| ms > now_ms)
    }

    fn expected_recall(
        &self,
        principal: &Principal,
        feed: &FeedId,
        target: &RecallTarget,
        now_ms: TimeMs,
    ) -> Expected {
        let uid = &principal.uid;
        if let Some(denied) = self.barred(feed, uid) {
            return Expected::Refused(denied.into());
        }
        let missing = Expected::Refused(Rejected::MessageNotFound.into());
        let seq = match target {
            RecallTarget::Seq(seq) => *seq,
            RecallTarget::ClientMsgId { sender, scope, id } => {
                let scope = DedupScope::of(scope, sender.as_ref().unwrap_or(uid));
                match self.used.get(&(feed.clone(), scope, id.clone())) {
                    Some((seq, _)) => *seq,
                    None => return missing,
                }
            }
        };
        let first = self.oracle.first_readable(feed, uid).unwrap_or(SeqId(1));
        let Some(entry) = self.oracle.entry(feed, seq).filter(|entry| entry.is_message()) else {
            return missing;
        };
        if seq < first {
            return missing;
        }
        let group = self.oracle.kind(feed) == Some(FeedKind::Group);
        let manager = group && self.oracle.member(feed, uid).is_some_and(|member| member.role >= Role::Admin);
        let shared = self.oracle.kind(feed) == Some(FeedKind::Open)
            && matches!(target, RecallTarget::ClientMsgId { scope: Scope::Shared(_), .. });
        if entry.sender != *uid && !manager && !shared {
            return Expected::Refused(Denied::Forbidden.into());
        }
        if !self.is_visible_message(feed, uid, seq, now_ms) {
            return missing;
        }
        if self.oracle.fate(feed, seq).0 {
            return Expected::Again(None);
        }
        let (settings, age_ms) = (self.system.settings(), now_ms.saturating_sub(entry.time_ms));
        let late = entry.sender != *uid || age_ms > settings.recall_window_ms;
        let late_shared = !shared || settings.shared_recall_window_ms.is_some_and(|ms| age_ms > ms);
        if late && late_shared && !manager {
            return Expected::Refused(Rejected::RecallWindowClosed.into());
        }
        Expected::Appended
    }

    fn expected_marks(
        &mut self,
        uid: &Uid,
        feed: &FeedId,
        read: Option<SeqId>,
        received: Option<SeqId>,
        unread_from: Option<SeqId>,
    ) -> Expected {
        if let Some(denied) = self.barred(feed, uid) {
            return Expected::Refused(denied.into());
        }
        let head = self.oracle.head(feed);
        let beyond = |mark: Option<SeqId>| mark.is_some_and(|mark| mark > head);
        if beyond(read) || beyond(received) || beyond(unread_from) || unread_from == Some(SeqId::ZERO) {
            return Expected::Anything;
        }
        // Folded from the log, which a refusing system may have left behind what was asked.
        let before = self.oracle.marks(feed, uid);
        let mut after = before;
        after.read = after.read.max(read.unwrap_or_default());
        if let Some(from) = unread_from {
            after.read = after.read.min(SeqId(from.0 - 1));
        }
        let highest = received.max(read).filter(|seq| *seq > SeqId::ZERO);
        after.received = after.received.max(highest);
        let moved = after != before;
        self.marks = Some((uid.clone(), feed.clone(), after));
        if moved { Expected::Appended } else { Expected::Again(None) }
    }

    /// One user in one feed, mostly where something just happened.
    fn check_somewhere(&mut self) {
        let feed = self.random.pick(&self.feeds).clone();
        let uid = self.random.pick(&self.users).clone();
        self.check(&uid, &feed);
    }

    fn check_everywhere(&mut self) {
        for uid in self.users.clone() {
            for feed in self.feeds.clone() {
                self.check(&uid, &feed);
            }
        }
    }

    fn check(&mut self, uid: &Uid, feed: &FeedId) {
        if self.oracle.first_readable(feed, uid).is_none() {
            return;
        }
        let of = format!("{uid} in {feed} after {}", self.place);
        assert_eq!(self.system.unread(uid, feed), self.oracle.unread_count(feed, uid), "unread of {of}");
        assert_eq!(self.system.unreplied(uid, feed), self.oracle.unreplied(feed, uid), "unreplied of {of}");
        if self.random.chance(20) {
            let explained = self.system.explain(uid, feed);
            if explained.truncated_at == SeqId::ZERO {
                let in_counted = |seq: SeqId| explained.counted.iter().any(|(a, b)| *a <= seq && seq <= *b);
                let counted: Vec<SeqId> = self
                    .oracle
                    .log(feed)
                    .iter()
                    .filter(|entry| entry.is_message() && in_counted(entry.seq))
                    .map(|entry| entry.seq)
                    .collect();
                let unread: Vec<SeqId> =
                    self.oracle.unread(feed, uid).into_iter().map(|(seq, _)| seq).collect();
                assert_eq!(counted, unread, "explained unread of {of}");
            }
        }
    }

    fn check_history(&mut self) {
        let feed = self.random.pick(&self.feeds).clone();
        let uid = self.random.pick(&self.users).clone();
        let head = self.oracle.head(&feed);
        let limit = 1 + self.random.below(30) as usize;
        let at = SeqId(self.random.below(head.0 + 2));
        let query = match self.random.below(5) {
            4 => HistoryQuery::BackFrom(Ordinal(at.0)),
            0 => HistoryQuery::After(at),
            1 => HistoryQuery::Before(at),
            2 => HistoryQuery::Around(at),
            _ => HistoryQuery::Position(at.0 as i64 - head.0 as i64 / 2),
        };
        let now_ms = self.system.now_ms();
        let seen = self.oracle.history(&feed, &uid, now_ms);
        let page = self.system.history(&user(&uid), &feed, query, limit);
        let of = format!("{query:?} limit {limit} of {uid} in {feed} after {}", self.place);
        match (seen, page) {
            (None, Err(denied)) => assert_eq!(Some(denied), self.barred(&feed, &uid), "{of}"),
            (Some(seen), Ok(page)) => check_page(&self.oracle, &seen, query, limit, &page, &of),
            (seen, page) => panic!("may read: {}, {page:?}: {of}", seen.is_some()),
        }
    }

    /// Every row is what a rebuild from the log gives (P9, I-6).
    fn check_rebuild(&mut self) {
        let Some(rows) = self.system.rows() else { return };
        let mut logs: BTreeMap<FeedId, Vec<Entry>> = BTreeMap::new();
        for key in rows.keys() {
            logs.entry(key.owner()).or_default();
        }
        for feed in self.oracle.logs.keys() {
            logs.entry(feed.clone()).or_default();
        }
        for (feed, log) in &mut logs {
            *log = self.system.log(feed, SeqId::ZERO);
        }
        let rebuilt = MemStore::rebuild(&logs);
        for (key, value) in &rows {
            assert_eq!(Some(value), rebuilt.get(key), "{key:?} after {}", self.place);
        }
        for key in rebuilt.keys() {
            assert!(rows.contains_key(key), "{key:?} is missing after {}", self.place);
        }
    }
}
