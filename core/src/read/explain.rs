//! Unread with its reasons: the same messages, found by reading the log instead of the counted sets.

use std::collections::HashMap;

use crate::entry::Entry;
use crate::event::MessageKind;
use crate::ids::{SeqId, Uid};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::read::{Reader, Standing, unread};
use crate::rows::{Fate, RowsError};
use crate::views::{ExplainedUnread, LeftOut, Unread};

/// Most entries that one explanation reads.
const ENTRIES_MAX: usize = 10 * PAGE_ENTRIES_MAX;

/// Unread with its reasons. `muted` is left to the caller to judge. A counted range holds counted messages and entries that
/// are no messages.
pub fn explain(
    reader: &dyn Reader,
    standing: &Standing<'_>,
    muted: bool,
) -> Result<ExplainedUnread, RowsError> {
    let Standing { feed, uid, head, place, .. } = *standing;
    let count = unread(reader, standing)?;
    let mut explained = ExplainedUnread {
        unread: Unread {
            feed: feed.clone(),
            unread: count.unread,
            mentions: count.mentions,
            read_seq: place.read_seq,
            muted,
        },
        counted: Vec::new(),
        left_out: Vec::new(),
        truncated_at: SeqId::ZERO,
    };
    if !standing.counts() || standing.start() >= head.ordinal {
        return Ok(explained);
    }
    let mut next = standing.since().1.max(place.read_seq).next();
    let mut read = 0;
    let mut open_range = false;
    while next <= head.seq {
        let entries = reader.entries(feed, next, head.seq, false, PAGE_ENTRIES_MAX, PAGE_BYTES_MAX)?;
        let Some(last) = entries.last().map(|entry| entry.seq) else { break };
        let fates: HashMap<SeqId, Fate> =
            reader.fates(feed, next, last, entries.len())?.into_iter().collect();
        for entry in &entries {
            if !entry.is_message() {
                continue;
            }
            if explained.counted.len() + explained.left_out.len() >= PAGE_ENTRIES_MAX {
                explained.truncated_at = entry.seq;
                return Ok(explained);
            }
            match left_out(entry, uid, fates.get(&entry.seq)) {
                Some(rule) => {
                    explained.left_out.push((entry.seq, rule));
                    open_range = false;
                }
                None => match explained.counted.last_mut() {
                    Some(range) if open_range => range.1 = entry.seq,
                    _ => {
                        explained.counted.push((entry.seq, entry.seq));
                        open_range = true;
                    }
                },
            }
        }
        read += entries.len();
        next = last.next();
        if read >= ENTRIES_MAX && next <= head.seq {
            explained.truncated_at = next;
            break;
        }
    }
    Ok(explained)
}

fn left_out(entry: &Entry, uid: &Uid, fate: Option<&Fate>) -> Option<LeftOut> {
    let kind = entry.message().map(|message| message.kind);
    if entry.sender == *uid {
        return Some(LeftOut::Own);
    }
    if kind == Some(MessageKind::System) {
        return Some(LeftOut::System);
    }
    let fate = fate?;
    if fate.recalled.is_some() {
        Some(LeftOut::Recalled)
    } else if fate.erased.is_some() {
        Some(LeftOut::Erased)
    } else if fate.expired.is_some() {
        Some(LeftOut::Expired)
    } else {
        None
    }
}
