//! A user's place in other feeds: marks, settings, what was resolved. Written by the user's personal feed only.

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::Event;
use crate::ids::FeedId;
use crate::rows::{FeedState, Place, Receipt, RowKey, RowValue, Rows, RowsError};

pub(super) fn project(_state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    match &entry.event {
        Event::MarkMoved { feed, read, received } => {
            change_place(rows, entry, feed, |place| {
                if let Some((seq, ordinal)) = read {
                    place.read_seq = *seq;
                    place.read_ordinal = *ordinal;
                }
                if let Some(seq) = received {
                    place.received_seq = *seq;
                    place.has_received = true;
                }
            })?;
            change_receipt(rows, entry, feed, |receipt| {
                if let Some((seq, _)) = read {
                    receipt.read_seq = *seq;
                    receipt.read_ms = entry.time_ms;
                }
                if let Some(seq) = received {
                    receipt.received_seq = *seq;
                    receipt.received_ms = entry.time_ms;
                }
            })
        }
        Event::UnrepliedResolved { feed, upto } => {
            change_place(rows, entry, feed, |place| place.resolved_seq = *upto)
        }
        Event::FeedPinned { feed, pinned } => change_place(rows, entry, feed, |place| place.pinned = *pinned),
        Event::FeedMuted { feed, until_ms } => {
            change_place(rows, entry, feed, |place| place.muted_until_ms = *until_ms)
        }
        _ => Ok(()),
    }
}

fn change_place(
    rows: &mut dyn Rows,
    entry: &Entry,
    feed: &FeedId,
    change: impl FnOnce(&mut Place),
) -> Result<(), RowsError> {
    let Some(uid) = entry.feed.personal_uid() else { return Ok(()) };
    super::change(rows, RowKey::Place(uid, feed.clone()), RowValue::into_place, RowValue::Place, change)
}

fn change_receipt(
    rows: &mut dyn Rows,
    entry: &Entry,
    feed: &FeedId,
    change: impl FnOnce(&mut Receipt),
) -> Result<(), RowsError> {
    let Some(uid) = entry.feed.personal_uid() else { return Ok(()) };
    let key = RowKey::Receipt(feed.clone(), uid);
    super::change(rows, key, RowValue::into_receipt, RowValue::Receipt, change)
}
