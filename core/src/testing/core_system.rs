//! The core on a map: lanes over a store, with commits held back so that overlays and waiting replies are used.

use std::collections::{BTreeMap, VecDeque};

use crate::command::{Command, Principal};
use crate::entry::Entry;
use crate::feed::Settings;
use crate::ids::{Digest, FeedId, SeqId, TimeMs, Uid};
use crate::lane::{Lane, Setup, Step};
use crate::policy::{Denied, may_read};
use crate::read::{Owed, Reader, Standing, UnreadCount, explain, history, unread, unreplied};
use crate::rows::{RowKey, RowValue};
use crate::sequencer::{Answer, NewGroup};
use crate::testing::{MemStore, Random, System, toy_digest};
use crate::views::{ExplainedUnread, HistoryQuery, Page};

type Waiting = VecDeque<(NewGroup, Vec<(RowKey, Option<RowValue>)>)>;

/// The core without a service round it.
#[derive(Debug)]
pub struct CoreSystem {
    /// What is durable.
    pub store: MemStore,
    lanes: BTreeMap<FeedId, Lane<usize>>,
    setup: Setup,
    now_ms: TimeMs,
    random: Random,
    /// Out of 100 groups, so many are refused by the store.
    refuse_percent: u64,
}

impl CoreSystem {
    /// An empty store. `refuse_percent` of all groups are refused, to see that nothing of them is left.
    pub fn new(settings: Settings, seed: u64, refuse_percent: u64) -> Self {
        Self {
            store: MemStore::default(),
            lanes: BTreeMap::new(),
            setup: Setup { settings, digest: toy_digest },
            now_ms: 1_700_000_000_000,
            random: Random::new(seed),
            refuse_percent,
        }
    }

    fn standing<'a>(&self, uid: &'a Uid, feed: &'a FeedId) -> Standing<'a> {
        let row = |key| self.store.rows.get(&key).cloned();
        Standing {
            feed,
            uid,
            user_feed: row(RowKey::UserFeed(uid.clone(), feed.clone())).and_then(RowValue::into_user_feed),
            place: row(RowKey::Place(uid.clone(), feed.clone()))
                .and_then(RowValue::into_place)
                .unwrap_or_default(),
            head: Reader::head(&self.store, feed).expect("maps can be read"),
        }
    }

    /// Settles the oldest waiting group, durable or refused; with it, when refused, all later ones of its feed.
    fn settle(&mut self, waiting: &mut Waiting, steps: &mut Vec<Step<usize>>) {
        let Some((group, rows)) = waiting.pop_front() else { return };
        let last = SeqId(group.expected.0 + group.entries.len() as u64);
        let feed = group.feed.clone();
        let lane = self.lanes.get_mut(&feed).expect("a group comes from a lane");
        let head = Reader::head(&self.store, &feed).expect("maps can be read");
        if head.seq != group.expected || self.random.chance(self.refuse_percent) {
            lane.refused(last, steps);
        } else {
            self.store.commit(group, rows);
            lane.committed(last, steps);
        }
    }
}

impl System for CoreSystem {
    fn digest(&self) -> Digest {
        toy_digest
    }

    fn settings(&self) -> Settings {
        self.setup.settings
    }

    fn now_ms(&self) -> TimeMs {
        self.now_ms
    }

    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    fn submit(&mut self, commands: Vec<(Principal, Command)>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = commands.iter().map(|_| None).collect();
        let mut waiting = Waiting::new();
        let mut steps = Vec::new();
        let mut take = |steps: &mut Vec<Step<usize>>, waiting: &mut Waiting| {
            for step in steps.drain(..) {
                match step {
                    Step::Commit { group, rows } => waiting.push_back((group, rows)),
                    Step::Reply(token, answer) => {
                        assert!(answers[token].replace(answer).is_none(), "one answer per command");
                    }
                    Step::ReadFailed(error) => panic!("maps can be read: {error}"),
                }
            }
        };
        for (token, (principal, command)) in commands.into_iter().enumerate() {
            let feed = command.feed.clone();
            if !self.lanes.contains_key(&feed) {
                let lane = Lane::load(feed.clone(), &self.store).expect("maps can be read");
                self.lanes.insert(feed.clone(), lane);
            }
            let lane = self.lanes.get_mut(&feed).expect("just put there");
            lane.submit(&principal, command, token, self.now_ms, &self.setup, &self.store, &mut steps)
                .expect("maps can be read");
            take(&mut steps, &mut waiting);
            if self.random.chance(30) {
                self.settle(&mut waiting, &mut steps);
                take(&mut steps, &mut waiting);
            }
        }
        while !waiting.is_empty() {
            self.settle(&mut waiting, &mut steps);
            take(&mut steps, &mut waiting);
        }
        assert!(self.lanes.values().all(Lane::is_idle), "everything is settled and nothing is kept");
        // Idle lanes may be dropped at any time.
        if self.random.chance(10) {
            self.lanes.retain(|_, lane| !lane.is_idle());
        }
        answers.into_iter().map(|answer| answer.expect("every command is answered")).collect()
    }

    fn log(&mut self, feed: &FeedId, after: SeqId) -> Vec<Entry> {
        self.store.logs.get(feed).map_or_else(Vec::new, |log| log[after.0 as usize..].to_vec())
    }

    fn unread(&mut self, uid: &Uid, feed: &FeedId) -> UnreadCount {
        unread(&self.store, &self.standing(uid, feed)).expect("maps can be read")
    }

    fn explain(&mut self, uid: &Uid, feed: &FeedId) -> ExplainedUnread {
        explain(&self.store, &self.standing(uid, feed), false).expect("maps can be read")
    }

    fn unreplied(&mut self, uid: &Uid, feed: &FeedId) -> Option<Owed> {
        unreplied(&self.store, &self.standing(uid, feed)).expect("maps can be read")
    }

    fn history(
        &mut self,
        principal: &Principal,
        feed: &FeedId,
        query: HistoryQuery,
        limit: usize,
    ) -> Result<Page, Denied> {
        let row = |key| self.store.rows.get(&key).cloned();
        let state = row(RowKey::Feed(feed.clone())).and_then(RowValue::into_feed);
        let member = row(RowKey::Member(feed.clone(), principal.uid.clone())).and_then(RowValue::into_member);
        let settings = &self.setup.settings;
        let scope = may_read(principal, feed, state.as_deref(), member.as_ref(), settings)?;
        scope.contents()?;
        Ok(history(&self.store, feed, scope, query, limit, self.now_ms).expect("maps can be read"))
    }

    fn rows(&mut self) -> Option<BTreeMap<RowKey, RowValue>> {
        Some(self.store.rows.clone())
    }
}
