//! What asks for an answer and what answers. The rows are those of `unread`.

use crate::entry::Entry;
use crate::event::{FeedKind, Message, MessageKind};
use crate::ids::{FeedId, Ordinal, SeqId};
use crate::rows::{Bits, RowKey, RowValue, Rows, RowsError, UserCounts};

/// Whether the message asks for nothing, whatever it says: declined, or written by a machine that does not ask.
pub(super) fn is_quiet(message: &Message) -> bool {
    match message.to_reply {
        Some(asked) => !asked,
        None => message.auto || message.kind == MessageKind::System,
    }
}

/// Whether those whom the message addresses owe an answer one by one. In direct feeds everything asks that is not quiet, so
/// nothing is kept for it.
pub(super) fn asks(kind: FeedKind, message: &Message) -> bool {
    kind == FeedKind::Group && !is_quiet(message)
}

/// A recalled message no longer answers: if it held the block's `answered_seq`, that is found again among the sender's other
/// messages of the block, at most 256.
pub(super) fn recalled(
    entry: &Entry,
    target: SeqId,
    ordinal: Ordinal,
    rows: &mut dyn Rows,
) -> Result<(), RowsError> {
    let Some(recalled) = rows.entry(&entry.feed, target)? else { return Ok(()) };
    let Some(message) = recalled.message() else { return Ok(()) };
    let block = Bits::block(ordinal);
    let key = RowKey::UserCounts(entry.feed.clone(), recalled.sender.clone(), block);
    let Some(mut counts) = rows.get(&key)?.and_then(RowValue::into_user_counts) else { return Ok(()) };
    if message.auto || message.seen_seq < counts.answered_seq {
        return Ok(());
    }
    counts.answered_seq = answered_seq(&entry.feed, &counts, block, entry.seq, rows)?;
    rows.put(key, Some(RowValue::UserCounts(counts)));
    Ok(())
}

fn answered_seq(
    feed: &FeedId,
    counts: &UserCounts,
    block: u64,
    end: SeqId,
    rows: &mut dyn Rows,
) -> Result<SeqId, RowsError> {
    let mut best = SeqId::ZERO;
    let mut from = counts.first_own_seq;
    for ordinal in counts.own.iter(block) {
        let Some(own) = message_from(feed, ordinal, from, end, rows)? else { break };
        from = own.seq;
        let fate = rows.get(&RowKey::Fate(feed.clone(), own.seq))?.and_then(RowValue::into_fate);
        let is_recalled = fate.is_some_and(|fate| fate.recalled.is_some());
        if let Some(message) = own.message().filter(|message| !message.auto && !is_recalled) {
            best = best.max(message.seen_seq);
        }
    }
    Ok(best)
}

/// The message with this ordinal, looked for between `from`, which is not above its place, and `end`, which is above it.
fn message_from(
    feed: &FeedId,
    ordinal: Ordinal,
    mut from: SeqId,
    mut end: SeqId,
    rows: &mut dyn Rows,
) -> Result<Option<Entry>, RowsError> {
    // A message lies at least as many places further on as ordinals are missing, and mostly just there.
    for _ in 0..8 {
        let Some(entry) = rows.entry(feed, from)? else { return Ok(None) };
        if entry.ordinal >= ordinal {
            // `from` never passes the place, so this is the first entry with the ordinal: the message itself.
            return Ok(Some(entry).filter(Entry::is_message));
        }
        from = SeqId(from.0 + (ordinal.0 - entry.ordinal.0));
    }
    while from < end {
        let middle = SeqId(from.0 + (end.0 - from.0) / 2);
        let Some(entry) = rows.entry(feed, middle)? else { return Ok(None) };
        if entry.ordinal >= ordinal {
            end = middle;
        } else {
            from = middle.next();
        }
    }
    Ok(rows.entry(feed, from)?.filter(Entry::is_message))
}
