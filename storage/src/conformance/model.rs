//! Random operations on an engine against maps in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use feedlog_core::entry::{Entry, Head};
use feedlog_core::ids::{FeedId, SeqId, Uid};
use feedlog_core::rows::{Bits, Counts, Fate, Member, RowKey, RowValue, UserCounts};

use super::Make;
use super::kit::{Random, carrying, created, feed, sent, uid};
use crate::{Change, Direction, Engine, EngineError, Group, LogPart, RowRange, StateKey, StateTable, Store};

#[derive(Default)]
struct Model {
    feeds: BTreeMap<FeedId, Vec<Entry>>,
    rows: HashMap<RowKey, RowValue>,
    state: BTreeMap<StateKey, bytes::Bytes>,
    changes: Vec<Change>,
}

struct Run<'a> {
    random: Random,
    model: Model,
    names: Vec<FeedId>,
    users: Vec<Uid>,
    make: Make<'a>,
    dir: &'a Path,
    store: Option<Store>,
}

pub(super) fn run(make: Make<'_>, dir: &Path, seed: u64, operations: usize) {
    eprintln!("seed {seed}");
    let store = make(dir).unwrap_or_else(|error| panic!("{error}"));
    let mut run = Run {
        random: Random(seed),
        model: Model::default(),
        names: (0..6).map(|i| feed(&format!("feed-{i}"))).collect(),
        users: ["a", "ab", "b"].map(uid).to_vec(),
        make,
        dir,
        store: Some(store),
    };
    for step in 0..operations {
        match run.random.below(20) {
            0..8 => run.commit(),
            8 if run.random.one_in(4) => run.open_again(),
            9 if run.random.one_in(4) => run.prune(),
            10..13 => run.compare_rows(),
            13 => run.compare_state(),
            _ => run.compare_entries(),
        }
        if step % 500 == 499 {
            run.compare_all();
        }
    }
    run.compare_all();
    run.engine().close().unwrap();
}

impl Run<'_> {
    fn engine(&self) -> std::sync::Arc<dyn Engine> {
        self.store.as_ref().expect("open between steps").engine()
    }

    fn pick_feed(&mut self) -> FeedId {
        let at = self.random.below(self.names.len() as u64);
        self.names[at as usize].clone()
    }

    fn pick_user(&mut self) -> Uid {
        let at = self.random.below(self.users.len() as u64);
        self.users[at as usize].clone()
    }

    fn open_again(&mut self) {
        if self.random.one_in(2) {
            self.engine().close().unwrap();
        }
        drop(self.store.take());
        self.store = Some((self.make)(self.dir).unwrap_or_else(|error| panic!("{error}")));
    }

    fn prune(&mut self) {
        let upto = self.random.below(self.model.changes.last().map_or(1, |change| change.commit_no + 2));
        self.engine().prune_changes(upto).unwrap();
        let newest = self.model.changes.last().map_or(0, |change| change.commit_no);
        self.model.changes.retain(|change| change.commit_no > upto || change.commit_no == newest);
    }

    fn row(&mut self, feed: &FeedId) -> (RowKey, Option<RowValue>) {
        let (user, number) = (self.pick_user(), self.random.below(5) * 130);
        let seq = SeqId(number + 1);
        let mut bits = Bits::EMPTY;
        (0..self.random.below(6)).for_each(|_| {
            bits.insert(feedlog_core::ids::Ordinal(self.random.below(256)));
        });
        let joined = Member {
            role: feedlog_core::event::Role::Admin,
            joined_seq: seq,
            joined_ordinal: Default::default(),
            joined_ms: self.random.below(1 << 41),
        };
        let (key, value) = match self.random.below(6) {
            0 => (RowKey::Member(feed.clone(), user), RowValue::Member(joined)),
            1 => {
                let value = UserCounts { own: bits, answered_seq: seq, ..UserCounts::default() };
                (RowKey::UserCounts(feed.clone(), user, number), RowValue::UserCounts(Box::new(value)))
            }
            2 => {
                let value = Counts { system: bits, ..Counts::default() };
                (RowKey::Counts(feed.clone(), number), RowValue::Counts(Box::new(value)))
            }
            3 => {
                let value = Fate { edited: Some(seq), ..Fate::default() };
                (RowKey::Fate(feed.clone(), seq), RowValue::Fate(Box::new(value)))
            }
            4 => (RowKey::Expiry(number, feed.clone(), seq), RowValue::Seq(seq)),
            _ => {
                let value = feedlog_core::rows::UserFeed {
                    kind: feedlog_core::event::FeedKind::Group,
                    since_ordinal: Default::default(),
                    since_seq: seq,
                };
                (RowKey::UserFeed(user, feed.clone()), RowValue::UserFeed(value))
            }
        };
        let value = if self.random.one_in(4) { None } else { Some(value) };
        (key, value)
    }

    fn group(&mut self, heads: &mut HashMap<FeedId, (u64, bool)>) -> (Group, bool) {
        let feed = self.pick_feed();
        let durable = self.model.feeds.get(&feed).map_or(0, Vec::len) as u64;
        let (head, refused) = *heads.entry(feed.clone()).or_insert((durable, false));
        let stale = self.random.one_in(12);
        let expected = if stale { head + 1 + self.random.below(2) } else { head };
        let count = 1 + self.random.below(4);
        let entries: Vec<Entry> = (expected + 1..=expected + count)
            .map(|seq| {
                let len = if self.random.one_in(50) { 9000 } else { self.random.below(40) };
                let payload: Vec<u8> = (0..len).map(|_| self.random.number() as u8).collect();
                let carried_max = if self.random.one_in(20) { 9000 } else { 40 };
                let carried = vec![1; self.random.below(carried_max) as usize];
                match seq {
                    1 => created(&feed),
                    _ if self.random.one_in(4) => carrying(&feed, seq, &payload, &carried),
                    _ => sent(&feed, seq, &payload),
                }
            })
            .collect();
        let rows = (0..self.random.below(5)).map(|_| self.row(&feed)).collect();
        let strip =
            (0..expected.min(self.random.below(3))).map(|_| SeqId(1 + self.random.below(expected))).collect();
        let mut state = Vec::new();
        if self.random.one_in(3) {
            let key = StateKey { table: StateTable::Checkpoint, key: vec![self.random.below(9) as u8] };
            let value = bytes::Bytes::from(self.random.number().to_be_bytes().to_vec());
            state.push((key, (!self.random.one_in(3)).then_some(value)));
        }
        let taken = !stale && !refused;
        heads.insert(feed.clone(), if taken { (head + count, false) } else { (head, true) });
        (Group { log: Some(LogPart { feed, expected: SeqId(expected), entries, rows, strip }), state }, taken)
    }

    fn commit(&mut self) {
        let mut heads = HashMap::new();
        let (mut groups, mut taken) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.random.below(6) {
            let (group, is_taken) = self.group(&mut heads);
            groups.push(group);
            taken.push(is_taken);
        }
        let mut touched: Vec<(FeedId, SeqId, SeqId)> = Vec::new();
        for (group, _) in groups.iter().zip(&taken).filter(|(_, taken)| **taken) {
            let part = group.log.as_ref().expect("made with a log");
            let last = part.entries[part.entries.len() - 1].seq;
            match touched.iter_mut().find(|(feed, _, _)| *feed == part.feed) {
                Some(known) => known.2 = last,
                None => touched.push((part.feed.clone(), part.entries[0].seq, last)),
            }
            let entries = self.model.feeds.entry(part.feed.clone()).or_default();
            entries.extend(part.entries.iter().cloned());
            for seq in &part.strip {
                entries[seq.0 as usize - 1].strip(crate::digest);
            }
            for (key, value) in &part.rows {
                match value {
                    Some(value) => self.model.rows.insert(key.clone(), value.clone()),
                    None => self.model.rows.remove(key),
                };
            }
            for (key, value) in &group.state {
                match value {
                    Some(value) => self.model.state.insert(key.clone(), value.clone()),
                    None => self.model.state.remove(key),
                };
            }
        }
        if !touched.is_empty() {
            let commit_no = self.model.changes.last().map_or(0, |change| change.commit_no) + 1;
            self.model.changes.push(Change { commit_no, feeds: touched });
        }
        let answers = self.engine().commit(groups);
        for (answer, taken) in answers.iter().zip(taken) {
            match answer {
                Ok(_) => assert!(taken, "a group was taken that must be refused"),
                Err(EngineError::HeadMoved { .. }) => {
                    assert!(!taken, "a group was refused that must be taken")
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    fn compare_entries(&mut self) {
        let feed = self.pick_feed();
        let known = self.model.feeds.get(&feed).cloned().unwrap_or_default();
        let bound = known.len() as u64 + 3;
        let (from, to) = (self.random.below(bound), self.random.below(bound));
        let max = 1 + self.random.below(8) as usize;
        let direction = if self.random.one_in(2) { Direction::Forward } else { Direction::Backward };
        let mut expected: Vec<Entry> =
            known.iter().filter(|entry| (from..=to).contains(&entry.seq.0)).cloned().collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        expected.truncate(max);
        let read = self.engine().read(&feed, SeqId(from), SeqId(to), direction, max, usize::MAX).unwrap();
        assert!(read == expected, "{feed} {from}..={to} {direction:?}");
        let head = known.last().map(Head::of).unwrap_or_default();
        assert_eq!(self.engine().head(&feed).unwrap(), head);
    }

    fn compare_rows(&mut self) {
        let (feed, user) = (self.pick_feed(), self.pick_user());
        let (from, to) = (self.random.below(600), self.random.below(600));
        let range = match self.random.below(7) {
            0 => RowRange::Members(feed),
            1 => RowRange::UserCounts(feed, user, from, to),
            2 => RowRange::Counts(feed, from, to),
            3 => RowRange::Fates(feed, SeqId(from), SeqId(to)),
            4 => RowRange::Expiries(to),
            5 => RowRange::AllUserCounts(feed),
            _ => RowRange::UserFeeds(user),
        };
        let direction = if self.random.one_in(2) { Direction::Forward } else { Direction::Backward };
        let mut expected = self.model.range(&range);
        if direction == Direction::Backward {
            expected.reverse();
        }
        let mut found = Vec::new();
        let page = 1 + self.random.below(4) as usize;
        loop {
            let after = found.last().map(|(key, _): &(RowKey, RowValue)| key.clone());
            let rows = self.engine().rows(&range, direction, after.as_ref(), page).unwrap();
            let is_last = rows.len() < page;
            found.extend(rows);
            if is_last {
                break;
            }
        }
        assert_eq!(found, expected, "{range:?} {direction:?}");
        if let Some((key, value)) = expected.first() {
            assert_eq!(self.engine().row(key).unwrap().as_ref(), Some(value));
        }
    }

    fn compare_state(&mut self) {
        let found = self.engine().states(StateTable::Checkpoint, &[], None, 99).unwrap();
        let expected: Vec<_> =
            self.model.state.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(found, expected);
    }

    fn compare_all(&mut self) {
        for name in self.names.clone() {
            let read =
                self.engine().read(&name, SeqId(1), SeqId::MAX, Direction::Forward, usize::MAX, usize::MAX);
            assert!(&read.unwrap() == self.model.feeds.get(&name).unwrap_or(&Vec::new()), "{name}");
        }
        let feeds: Vec<FeedId> = self.model.feeds.keys().cloned().collect();
        assert_eq!(self.engine().feeds(None, 99).unwrap(), feeds);
        assert_eq!(self.engine().changes(0, usize::MAX).unwrap(), self.model.changes);
        assert_eq!(self.engine().commit_no(), self.model.changes.last().map_or(0, |change| change.commit_no));
        self.compare_state();
    }
}

impl Model {
    /// The rows of a range, in order.
    fn range(&self, range: &RowRange) -> Vec<(RowKey, RowValue)> {
        /// By name, then by number; kinds that have no name leave it empty.
        fn place(range: &RowRange, key: &RowKey) -> Option<(u64, String, u64)> {
            Some(match (range, key) {
                (RowRange::Members(a), RowKey::Member(b, uid)) if a == b => (0, uid.to_string(), 0),
                (RowRange::Counts(a, from, to), RowKey::Counts(b, block)) if a == b => {
                    (from..=to).contains(&block).then_some((*block, String::new(), 0))?
                }
                (RowRange::UserCounts(a, u, from, to), RowKey::UserCounts(b, v, block))
                    if (a, u) == (b, v) =>
                {
                    (from..=to).contains(&block).then_some((*block, String::new(), 0))?
                }
                (RowRange::AllUserCounts(a), RowKey::UserCounts(b, uid, block)) if a == b => {
                    (0, uid.to_string(), *block)
                }
                (RowRange::Fates(a, from, to), RowKey::Fate(b, seq)) if a == b => {
                    (from..=to).contains(&seq).then_some((seq.0, String::new(), 0))?
                }
                (RowRange::Expiries(upto), RowKey::Expiry(time, feed, seq)) if time <= upto => {
                    (*time, feed.to_string(), seq.0)
                }
                (RowRange::UserFeeds(a), RowKey::UserFeed(b, feed)) if a == b => (0, feed.to_string(), 0),
                _ => return None,
            })
        }
        let mut found: Vec<_> =
            self.rows.iter().filter_map(|(key, value)| Some((place(range, key)?, key, value))).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.into_iter().map(|(_, key, value)| (key.clone(), value.clone())).collect()
    }
}
