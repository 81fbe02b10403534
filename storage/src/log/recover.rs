//! What is checked when a store is opened.
//!
//! Recovery of an engine that stops at a damaged WAL record, or that loses a part of a batch, must not go unseen: the
//! newest change rows say which entries there must be.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use feedlog_core::ids::SeqId;

use super::{LogEngine, Poison, changes_of, damaged, read_error};
use crate::format::{self, Frame};
use crate::keys::{self, Kind};
use crate::kv::{Kv, Table};
use crate::{Direction, EngineError, OpenError};

/// Change rows that are looked at: more than any WAL holds that an engine replays.
const CHANGES_MAX: usize = 10_000;
/// Entries that are looked at, so that opening stays fast whatever the commits held.
const ENTRIES_MAX: u64 = 200_000;

pub(super) struct Recovered {
    pub(super) commit_no: u64,
    pub(super) next_number: u64,
    /// The lowest change row, 0 when there is none.
    pub(super) first_change: u64,
}

/// Newest commit, next feed number; every feed of the newest change rows is dense up to exactly where they say.
pub(super) fn check<K: Kv>(kv: &K, node: u16) -> Result<Recovered, OpenError> {
    let newest = newest_changes(kv, node)?;
    let commit_no = newest.commit_no;
    for (number, (first, last)) in newest.feeds {
        check_feed(kv, number, first, last)?;
    }
    let mut next_number = 1;
    let range = keys::all_of(Kind::FeedName);
    kv.scan(range.table, &range.from, &range.to, Direction::Backward, &mut |key, _| {
        next_number = keys::parse_feed_name(key).map_or(1, |number| number + 1);
        ControlFlow::Break(())
    })
    .map_err(OpenError::from)?;
    let mut first_change = 0;
    let (from, to) = changes_of(node);
    kv.scan(Table::Meta, &from, &to, Direction::Forward, &mut |key, _| {
        first_change = keys::parse_change(key).map_or(0, |(_, commit_no)| commit_no);
        ControlFlow::Break(())
    })
    .map_err(OpenError::from)?;
    Ok(Recovered { commit_no, next_number, first_change })
}

struct Newest {
    commit_no: u64,
    /// By feed number: the first and last entry of the rows looked at.
    feeds: HashMap<u64, (SeqId, SeqId)>,
}

fn newest_changes<K: Kv>(kv: &K, node: u16) -> Result<Newest, OpenError> {
    let (from, to) = changes_of(node);
    let mut newest = Newest { commit_no: 0, feeds: HashMap::new() };
    let mut below = None;
    let mut rows = 0;
    let mut entries = 0;
    let mut failed = None;
    kv.scan(Table::Meta, &from, &to, Direction::Backward, &mut |key, value| {
        let step = (|| {
            let (_, commit_no) =
                keys::parse_change(key).ok_or("the key of a change row is no key".to_owned())?;
            let feeds =
                format::decode_change(value).map_err(|error| format!("change row {commit_no}: {error}"))?;
            match below {
                None => newest.commit_no = commit_no,
                Some(above) if commit_no + 1 == above => {}
                Some(above) => return Err(format!("change rows {commit_no} and {above} are not neighbours")),
            }
            below = Some(commit_no);
            for (number, first, last) in feeds {
                entries += last.0 - first.0 + 1;
                match newest.feeds.entry(number) {
                    std::collections::hash_map::Entry::Vacant(place) => {
                        place.insert((first, last));
                    }
                    std::collections::hash_map::Entry::Occupied(mut place) => {
                        let known = place.get_mut();
                        if last.next() != known.0 {
                            return Err(format!(
                                "change row {commit_no} does not join the next of feed number {number}"
                            ));
                        }
                        known.0 = first;
                    }
                }
            }
            Ok(())
        })();
        rows += 1;
        match step {
            Err(text) => {
                failed = Some(text);
                ControlFlow::Break(())
            }
            Ok(()) if rows >= CHANGES_MAX || entries >= ENTRIES_MAX => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
        }
    })
    .map_err(OpenError::from)?;
    match failed {
        Some(text) => Err(OpenError::Damaged(text.into())),
        None => Ok(newest),
    }
}

/// INVARIANT I-1: the entries from `first` on are dense, sound, and end at `last`.
fn check_feed<K: Kv>(kv: &K, number: u64, first: SeqId, last: SeqId) -> Result<(), OpenError> {
    let mut expected = first;
    let mut failed = None;
    let (from, to) = (keys::entry_array(number, first), keys::entries_of(number).1);
    kv.scan(Table::Entries, &from, &to, Direction::Forward, &mut |key, value| {
        match Frame::parse(key, value) {
            Ok(frame) if frame.seq == expected => {}
            Ok(_) => failed = Some(format!("entry {expected} of feed number {number} is missing")),
            Err(error) => failed = Some(format!("entry {expected} of feed number {number}: {error}")),
        }
        expected = expected.next();
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(OpenError::from)?;
    if failed.is_none() && expected != last.next() {
        failed = Some(format!(
            "feed number {number} ends at {}, its newest change row says {last}",
            expected.prev()
        ));
    }
    failed.map_or(Ok(()), |text| Err(OpenError::Damaged(text.into())))
}

impl<K: Kv> LogEngine<K> {
    /// Opens the tables again after the disk was full.
    pub(super) fn open_again(&self) -> Result<(), EngineError> {
        let mut writer = self.writer();
        match self.poison() {
            Poison::None => return Ok(()),
            // After EIO the kernel may hold pages that are not on disk and look clean: only a new process may trust it.
            Poison::Hard => return Err(EngineError::Poisoned),
            Poison::Full => {}
        }
        if !writer.space.allows(0) {
            return Err(EngineError::NoSpace);
        }
        let mut slot = self.kv.write().unwrap_or_else(PoisonError::into_inner);
        // The old tables go first: they hold the engine's own lock.
        drop(slot.take());
        let kv = (self.openers.tables)().map_err(read_error)?;
        let recovered = check(&kv, self.options.node).map_err(|error| damaged(format_args!("{error}")))?;
        if recovered.commit_no < writer.commit_no {
            return Err(damaged(format_args!(
                "opened again, the store ends at commit {} and not at {}",
                recovered.commit_no, writer.commit_no
            )));
        }
        // The batch that failed may be there or not: whatever was known of heads is void.
        self.tips.clear();
        writer.commit_no = recovered.commit_no;
        writer.next_number = recovered.next_number;
        writer.first_change = recovered.first_change;
        self.commit_no.store(recovered.commit_no, Ordering::Release);
        if let Some(guard) = &self.guard {
            guard.note(recovered.commit_no);
        }
        *slot = Some(kv);
        self.poison.store(Poison::None as u8, Ordering::Release);
        tracing::warn!(commit_no = recovered.commit_no, "the store was opened again after a full disk");
        Ok(())
    }
}
