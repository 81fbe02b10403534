//! Unreplied: who waits for the user's answer since when (P8).

use crate::event::FeedKind;
use crate::ids::{FeedId, Ordinal, SeqId, TimeMs, Uid};
use crate::read::{Reader, Standing, blocks, seq_of};
use crate::rows::{Bits, RowsError};

/// What a user owes in a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The oldest message that waits for an answer.
    pub seq: SeqId,
    /// Its sender.
    pub from: Uid,
    /// Its time.
    pub waiting_since_ms: TimeMs,
    /// How many wait.
    pub count: u64,
}

/// What the user owes in the feed, `None` when nothing (P8). Only direct feeds and groups ask.
///
/// A message is answered when a later own one had seen it; the largest `seen_seq` of the user's answers thus closes all
/// before it, and what the user resolved or did not live through is closed likewise.
pub fn unreplied(reader: &dyn Reader, standing: &Standing<'_>) -> Result<Option<Owed>, RowsError> {
    let Standing { feed, uid, head, place, .. } = *standing;
    let Some(user_feed) = standing.user_feed else { return Ok(None) };
    let direct = match user_feed.kind {
        FeedKind::Direct => true,
        FeedKind::Group => false,
        FeedKind::Open | FeedKind::Personal => return Ok(None),
    };
    let closed = place.resolved_seq.max(user_feed.since_seq);
    if user_feed.since_ordinal >= head.ordinal {
        return Ok(None);
    }
    let closed = answered(reader, feed, uid, Bits::block(head.ordinal), closed)?.min(head.seq);
    let after = match closed {
        SeqId::ZERO => Ordinal::ZERO,
        seq => reader.entry(feed, seq)?.map_or(head.ordinal, |entry| entry.ordinal),
    };
    if after >= head.ordinal {
        return Ok(None);
    }

    let mut count = 0;
    let mut oldest = None;
    // Direct feeds: blocks without rows ask in full.
    let mut next = after.next();
    let from = Bits::block(next);
    let to = Bits::block(head.ordinal);
    blocks(reader, feed, uid, from, to, |block, all, own| {
        let range = Bits::range(block, after, head.ordinal);
        let asks = if direct {
            let first = Ordinal((block * crate::limits::COUNT_BLOCK_ORDINALS).max(next.0));
            if first > next {
                oldest = oldest.or(Some(next));
                count += first.0 - next.0;
            }
            next = Ordinal((block + 1) * crate::limits::COUNT_BLOCK_ORDINALS);
            range.without(all.gone).without(all.quiet).without(own.own)
        } else {
            range.and(all.ask_all.or(own.ask)).without(all.gone).without(own.own)
        };
        count += asks.len();
        oldest = oldest.or_else(|| asks.iter(block).next());
        Ok(())
    })?;
    if direct && next <= head.ordinal {
        oldest = oldest.or(Some(next));
        count += head.ordinal.0 + 1 - next.0;
    }
    let Some(ordinal) = oldest else { return Ok(None) };
    let Some(seq) = seq_of(reader, feed, ordinal, head)? else { return Ok(None) };
    let entry = reader.entry(feed, seq)?;
    Ok(entry.map(|entry| Owed { seq, from: entry.sender, waiting_since_ms: entry.time_ms, count }))
}

/// How far the user has answered, at least `closed`: the largest `seen_seq` of own messages that answer. Walks the user's
/// blocks backwards and stops where nothing older can have seen more.
fn answered(
    reader: &dyn Reader,
    feed: &FeedId,
    uid: &Uid,
    newest: u64,
    closed: SeqId,
) -> Result<SeqId, RowsError> {
    let mut best = closed;
    let mut to = newest;
    // One block answers for most users; the walk reads on in larger steps.
    let mut limit = 1;
    loop {
        let rows = reader.user_counts(feed, uid, 0, to, true, limit)?;
        let full = rows.len() == limit;
        for (block, counts) in rows {
            best = best.max(counts.answered_seq);
            // A message before the block's first own one had seen less than that one's place, less itself.
            let had_own = counts.first_own_seq > SeqId::ZERO;
            if block == 0 || had_own && best.0 + 2 >= counts.first_own_seq.0 {
                return Ok(best);
            }
            to = block - 1;
        }
        if !full {
            return Ok(best);
        }
        limit = 64;
    }
}
