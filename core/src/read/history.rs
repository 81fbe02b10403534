//! History: pages of the log as one reader may see it (P4, P5, P6).

use std::collections::HashMap;

use crate::entry::Entry;
use crate::event::Event;
use crate::ids::{FeedId, Ordinal, SeqId, TimeMs};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::policy::ReadScope;
use crate::read::{Reader, seq_of};
use crate::rows::{Fate, RowKey, RowValue, RowsError};
use crate::views::{Gone, GoneReason, HistoryQuery, Page, View};

/// Most entries that one page reads, so that long stretches of gone messages cost a bounded time; the page then ends early
/// and says where to go on.
const SCAN_ENTRIES_MAX: usize = 4 * PAGE_ENTRIES_MAX;

/// A page of history for a reader (P4, P5, P6): at most `limit` entries and [`PAGE_BYTES_MAX`] payload bytes, and at least
/// one entry where there is one to show within a bounded stretch. `scope` comes from [`crate::policy::may_read`] and allows
/// contents.
///
/// By position and by ordinal only messages are given; otherwise every entry of the range is, or is in `gone`.
pub fn history(
    reader: &dyn Reader,
    feed: &FeedId,
    scope: ReadScope,
    query: HistoryQuery,
    limit: usize,
    now_ms: TimeMs,
) -> Result<Page, RowsError> {
    let head = reader.head(feed)?;
    let scan = Scan { reader, feed, first: scope.first, head: head.seq, now_ms };
    let mut page = Page {
        feed: feed.clone(),
        head: head.seq,
        head_ordinal: head.ordinal,
        first: scope.first,
        entries: Vec::new(),
        gone: Vec::new(),
        next: None,
    };
    match query {
        HistoryQuery::After(after) => {
            let covered = scan.forward(&mut page, after.next(), limit, false)?;
            page.next = (covered.seq < head.seq).then_some(covered.seq.0 as i64);
        }
        HistoryQuery::Before(before) => {
            let lowest = scan.backward(&mut page, before.min(head.seq.next()), limit, false)?.seq;
            page.next = (lowest > scope.first).then_some(lowest.0 as i64);
        }
        HistoryQuery::BackFrom(ordinal) => {
            if let Some(from) = seq_of(reader, feed, ordinal.min(head.ordinal), head)? {
                let covered = scan.backward(&mut page, from.next(), limit, true)?;
                let more = covered.seq > scope.first && covered.ordinal > Ordinal::ZERO;
                page.next = more.then_some(covered.ordinal.0 as i64);
            }
        }
        HistoryQuery::Around(around) => {
            let around = around.min(head.seq.next());
            scan.backward(&mut page, around, limit / 2, false)?;
            page.entries.reverse();
            let left = limit - page.entries.len();
            let covered = scan.forward(&mut page, around.max(SeqId(1)), left, false)?;
            page.next = (covered.seq < head.seq).then_some(covered.seq.0 as i64);
        }
        HistoryQuery::Position(position) => {
            let position = if position < 0 {
                Ordinal(head.ordinal.next().0.saturating_sub(position.unsigned_abs()).max(1))
            } else {
                Ordinal(position.unsigned_abs().max(1))
            };
            if let Some(from) = seq_of(reader, feed, position, head)? {
                let covered = scan.forward(&mut page, from, limit, true)?;
                let next = covered.ordinal.next();
                page.next = (next <= head.ordinal).then_some(next.0 as i64);
            }
        }
    }
    page.gone = merged(page.gone);
    Ok(page)
}

/// What an entry is to a reader.
#[derive(Debug, Clone)]
pub enum Shown {
    /// It is shown like this.
    View(Box<View>),
    /// It is not shown.
    Gone(GoneReason),
}

/// One entry as a reader may see it: for live delivery and single reads. `prev` is the previous shown entry when the caller
/// knows it (a live stream does); else it is looked up.
pub fn show(
    reader: &dyn Reader,
    entry: Entry,
    scope: ReadScope,
    prev: Option<SeqId>,
    now_ms: TimeMs,
) -> Result<Shown, RowsError> {
    if entry.seq < scope.first {
        return Ok(Shown::Gone(GoneReason::BeforeJoin));
    }
    let feed = entry.feed.clone();
    let scan = Scan { reader, feed: &feed, first: scope.first, head: entry.seq, now_ms };
    let fate = if entry.is_message() { scan.fate(entry.seq)? } else { None };
    if let Some(reason) = scan.gone(&entry, fate.as_ref()) {
        return Ok(Shown::Gone(reason));
    }
    let prev_seq = match prev {
        Some(prev) => prev,
        None => scan.prev_shown(entry.seq)?,
    };
    let view = scan.view(entry, fate, prev_seq)?;
    Ok(Shown::View(Box::new(view)))
}

struct Scan<'a> {
    reader: &'a dyn Reader,
    feed: &'a FeedId,
    /// The first entry that the reader is entitled to.
    first: SeqId,
    head: SeqId,
    now_ms: TimeMs,
}

/// How far a page went.
struct Covered {
    seq: SeqId,
    ordinal: Ordinal,
}

impl Scan<'_> {
    /// Adds entries from `from` on, ascending. The entries and gone ranges of the page then cover all up to the result.
    fn forward(
        &self,
        page: &mut Page,
        from: SeqId,
        limit: usize,
        only_messages: bool,
    ) -> Result<Covered, RowsError> {
        let mut covered = Covered { seq: from.prev(), ordinal: Ordinal(u64::MAX - 1) };
        let mut next = from.max(self.first);
        if from < next && from <= self.head {
            let to = next.prev().min(self.head);
            page.gone.push(Gone { from, to, reason: GoneReason::BeforeJoin });
        }
        let end = page.entries.len() + limit;
        let mut bytes = 0;
        let mut scanned = 0;
        let mut prev = None;
        // The first read also fetches the entry before, which mostly is the one shown before.
        let mut look_back = u64::from(next > self.first);
        while next <= self.head && page.entries.len() < end && scanned < SCAN_ENTRIES_MAX {
            let left = PAGE_BYTES_MAX.saturating_sub(bytes);
            if bytes > 0 && left == 0 {
                break;
            }
            // Skipped entries are few, so a page is mostly one read.
            let wanted = (end - page.entries.len()).max(if scanned == 0 { 1 } else { 64 });
            let low = SeqId(next.0 - look_back);
            let wanted = wanted + std::mem::take(&mut look_back) as usize;
            let entries = self.reader.entries(self.feed, low, self.head, false, wanted, left.max(1))?;
            let (Some(low), Some(high)) = (entries.first(), entries.last()) else { break };
            let mut fates = self.fates(low.seq, high.seq, entries.len())?;
            for entry in entries {
                if page.entries.len() == end {
                    break;
                }
                let (seq, ordinal) = (entry.seq, entry.ordinal);
                if seq < next {
                    prev = self.gone(&entry, fates.get(&seq)).is_none().then_some(seq);
                    continue;
                }
                scanned += 1;
                let size = entry.size();
                if bytes > 0 && bytes + size > PAGE_BYTES_MAX {
                    return Ok(covered);
                }
                bytes += size;
                let fate = fates.remove(&seq);
                if let Some(reason) = self.gone(&entry, fate.as_ref()) {
                    page.gone.push(Gone { from: seq, to: seq, reason });
                } else if only_messages && !entry.is_message() {
                    prev = Some(seq);
                } else {
                    let prev_seq = match prev {
                        Some(prev) => prev,
                        None => self.prev_shown(seq)?,
                    };
                    prev = Some(seq);
                    let view = self.view(entry, fate, prev_seq)?;
                    page.entries.push(view);
                }
                covered = Covered { seq, ordinal };
                next = seq.next();
            }
        }
        Ok(covered)
    }

    /// Adds entries before `before`, descending, and gives the lowest place covered, with the newest ordinal before it.
    fn backward(
        &self,
        page: &mut Page,
        before: SeqId,
        limit: usize,
        only_messages: bool,
    ) -> Result<Covered, RowsError> {
        let mut lowest = before;
        let mut below = Ordinal::ZERO;
        let end = page.entries.len() + limit;
        let mut bytes = 0;
        let mut scanned = 0;
        let mut prev = None;
        'reading: while lowest > self.first && page.entries.len() < end && scanned < SCAN_ENTRIES_MAX {
            let left = PAGE_BYTES_MAX.saturating_sub(bytes);
            if bytes > 0 && left == 0 {
                break;
            }
            // One more than is shown, which mostly is the one shown before the earliest.
            let wanted = (end - page.entries.len()).max(if scanned == 0 { 1 } else { 64 }) + 1;
            let to = lowest.prev();
            let entries = self.reader.entries(self.feed, self.first, to, true, wanted, left.max(1))?;
            let (Some(high), Some(low)) = (entries.first(), entries.last()) else { break };
            let mut fates = self.fates(low.seq, high.seq, entries.len())?;
            for entry in entries {
                let seq = entry.seq;
                let before_it = Ordinal(entry.ordinal.0 - u64::from(entry.is_message()));
                if page.entries.len() == end {
                    prev = self.gone(&entry, fates.get(&seq)).is_none().then_some(seq);
                    break 'reading;
                }
                scanned += 1;
                let size = entry.size();
                if bytes > 0 && bytes + size > PAGE_BYTES_MAX {
                    break 'reading;
                }
                bytes += size;
                let fate = fates.remove(&seq);
                if let Some(reason) = self.gone(&entry, fate.as_ref()) {
                    page.gone.push(Gone { from: seq, to: seq, reason });
                } else {
                    if let Some(later) = page.entries.last_mut().filter(|view| view.prev_seq == SeqId::ZERO) {
                        later.prev_seq = seq;
                    }
                    if entry.is_message() || !only_messages {
                        let view = self.view(entry, fate, SeqId::ZERO)?;
                        page.entries.push(view);
                    }
                }
                (lowest, below) = (seq, before_it);
            }
        }
        if let Some(earliest) = page.entries.last_mut().filter(|view| view.prev_seq == SeqId::ZERO) {
            earliest.prev_seq = match prev {
                Some(prev) => prev,
                None => self.prev_shown(earliest.entry.seq)?,
            };
        }
        if lowest <= self.first && self.first > SeqId(1) && before > SeqId(1) {
            let to = self.first.prev().min(before.prev());
            page.gone.push(Gone { from: SeqId(1), to, reason: GoneReason::BeforeJoin });
        }
        Ok(Covered { seq: lowest, ordinal: below })
    }

    /// The entry before `seq` that the reader is shown, 0 when there is none.
    fn prev_shown(&self, seq: SeqId) -> Result<SeqId, RowsError> {
        let mut to = seq.prev();
        let mut wanted = 1;
        while to >= self.first && to > SeqId::ZERO {
            let entries = self.reader.entries(self.feed, self.first, to, true, wanted, PAGE_BYTES_MAX)?;
            let (Some(high), Some(low)) = (entries.first(), entries.last()) else { break };
            let fates = match &entries[..] {
                [one] if !one.is_message() => HashMap::new(),
                [one] => self.fate(one.seq)?.map(|fate| (one.seq, fate)).into_iter().collect(),
                _ => self.fates(low.seq, high.seq, entries.len())?,
            };
            to = low.seq.prev();
            for entry in &entries {
                if self.gone(entry, fates.get(&entry.seq)).is_none() {
                    return Ok(entry.seq);
                }
            }
            wanted = 256;
        }
        Ok(SeqId::ZERO)
    }

    fn fates(&self, from: SeqId, to: SeqId, limit: usize) -> Result<HashMap<SeqId, Fate>, RowsError> {
        Ok(self.reader.fates(self.feed, from, to, limit)?.into_iter().collect())
    }

    fn fate(&self, seq: SeqId) -> Result<Option<Fate>, RowsError> {
        let row = self.reader.row(&RowKey::Fate(self.feed.clone(), seq))?;
        Ok(row.and_then(RowValue::into_fate).map(|fate| *fate))
    }

    /// Why an entry is not shown. A message is hidden from its `expires_ms` on, even before that is an entry.
    fn gone(&self, entry: &Entry, fate: Option<&Fate>) -> Option<GoneReason> {
        let message = entry.message()?;
        if fate.is_some_and(|fate| fate.erased.is_some()) {
            return Some(GoneReason::Erased);
        }
        let due = message.expires_ms.is_some_and(|ms| ms <= self.now_ms);
        if due || fate.is_some_and(|fate| fate.expired.is_some()) {
            return Some(GoneReason::Expired);
        }
        None
    }

    /// INVARIANT: the payload of a recalled message leaves here neither as the message nor as one of its edits (P6).
    fn view(&self, mut entry: Entry, fate: Option<Fate>, prev_seq: SeqId) -> Result<View, RowsError> {
        match (&mut entry.event, &fate) {
            (Event::MessageSent(_), Some(Fate { recalled: Some(_), .. })) => entry.hide(),
            (Event::MessageSent(message), Some(Fate { edited: Some(edited), .. })) => {
                if let Some(Entry { event: Event::MessageEdited { content_type, .. }, payload, .. }) =
                    self.reader.entry(self.feed, *edited)?
                {
                    message.content_type = content_type;
                    entry.payload = payload;
                }
            }
            (Event::MessageEdited { target, .. }, _) if !self.is_readable(*target)? => {
                entry.hide();
            }
            _ => {}
        }
        Ok(View { entry, prev_seq, fate: fate.map(Box::new) })
    }

    /// Whether the reader may see the body of that message now.
    fn is_readable(&self, target: SeqId) -> Result<bool, RowsError> {
        if target < self.first {
            return Ok(false);
        }
        let fate = self.fate(target)?;
        if fate.as_ref().is_some_and(|fate| fate.recalled.is_some()) {
            return Ok(false);
        }
        let Some(entry) = self.reader.entry(self.feed, target)? else { return Ok(false) };
        Ok(self.gone(&entry, fate.as_ref()).is_none())
    }
}

fn merged(mut gone: Vec<Gone>) -> Vec<Gone> {
    gone.sort_unstable_by_key(|gone| gone.from);
    let mut merged: Vec<Gone> = Vec::with_capacity(gone.len());
    for next in gone {
        match merged.last_mut() {
            Some(last) if last.to.next() == next.from && last.reason == next.reason => last.to = next.to,
            _ => merged.push(next),
        }
    }
    merged
}
