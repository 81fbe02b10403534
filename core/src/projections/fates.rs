//! What happened to a message after it was sent: recall, edits, expiry, erasure.

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::Event;
use crate::ids::SeqId;
use crate::rows::{Fate, FeedState, Recalled, RowKey, RowValue, Rows, RowsError};

pub(super) fn project(_state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    match &entry.event {
        Event::MessageRecalled { target, .. } => change(rows, entry, *target, |fate| {
            fate.recalled =
                Some(Recalled { by: entry.sender.clone(), seq: entry.seq, time_ms: entry.time_ms });
        }),
        Event::MessageEdited { target, .. } => change(rows, entry, *target, |fate| {
            fate.earlier_edits.extend(fate.edited.replace(entry.seq));
        }),
        Event::MessagesExpired { targets } => targets
            .iter()
            .try_for_each(|(seq, _)| change(rows, entry, *seq, |fate| fate.expired = Some(entry.seq))),
        Event::MessagesErased { targets, .. } => targets
            .iter()
            .try_for_each(|(seq, _)| change(rows, entry, *seq, |fate| fate.erased = Some(entry.seq))),
        _ => Ok(()),
    }
}

/// Changes the fate of a message of the entry's feed.
pub(super) fn change(
    rows: &mut dyn Rows,
    entry: &Entry,
    target: SeqId,
    change: impl FnOnce(&mut Fate),
) -> Result<(), RowsError> {
    let key = RowKey::Fate(entry.feed.clone(), target);
    super::change(rows, key, RowValue::into_fate, RowValue::Fate, |fate| change(fate))
}
