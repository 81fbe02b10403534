//! The pure read algorithms: unread, unreplied, history, over durable rows and entries.

mod explain;
mod history;
mod unread;
mod unreplied;

use crate::entry::{Entry, Head};
use crate::event::FeedKind;
use crate::ids::{FeedId, Ordinal, SeqId, Uid};
use crate::rows::{Counts, Fate, Place, RowKey, RowValue, RowsError, UserCounts, UserFeed};

pub use explain::explain;
pub use history::{Shown, history, show};
pub use unread::{UnreadCount, unread};
pub use unreplied::{Owed, unreplied};

/// Durable rows and entries, as an engine has them. Ranges are inclusive on both ends.
pub trait Reader {
    /// One row.
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, RowsError>;
    /// The head; all zero when the feed does not exist.
    fn head(&self, feed: &FeedId) -> Result<Head, RowsError>;
    /// One entry, `None` beyond the head.
    fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError>;
    /// Entries of `from..=to`, ascending or (`backward`) descending: at most `entries_max`, and as many as fit in
    /// `bytes_max` payload bytes but at least one.
    fn entries(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        backward: bool,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, RowsError>;
    /// Counted sets of blocks `from..=to` that have a row, ascending, the first `limit` of them.
    fn counts(
        &self,
        feed: &FeedId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Counts)>, RowsError>;
    /// One user's counted sets of blocks `from..=to` that have a row, ascending or (`backward`) descending, the first
    /// `limit` of them in that order.
    fn user_counts(
        &self,
        feed: &FeedId,
        uid: &Uid,
        from: u64,
        to: u64,
        backward: bool,
        limit: usize,
    ) -> Result<Vec<(u64, UserCounts)>, RowsError>;
    /// Fates of the messages `from..=to` that have one, ascending, the first `limit` of them.
    fn fates(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        limit: usize,
    ) -> Result<Vec<(SeqId, Fate)>, RowsError>;
}

/// A user in a feed: what unread and unreplied are computed from.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The feed.
    pub feed: &'a FeedId,
    /// The user.
    pub uid: &'a Uid,
    /// `RowKey::UserFeed(uid, feed)`. Absent in open feeds where the user never sent, and in feeds that are none of the
    /// user's: for those nobody may ask, because a former member's place outlives the membership.
    pub user_feed: Option<UserFeed>,
    /// `RowKey::Place(uid, feed)`, default when absent.
    pub place: Place,
    /// The head up to which to count.
    pub head: Head,
}

impl Standing<'_> {
    /// Whether messages of the feed count for the user at all: members of groups and direct feeds, the user of a personal
    /// feed, and in open feeds whoever sent there or set a mark.
    pub fn counts(&self) -> bool {
        self.user_feed.is_some() || self.place.has_received || self.place.read_seq > SeqId::ZERO
    }

    /// Messages count from after this ordinal on.
    pub fn start(&self) -> Ordinal {
        self.since().0.max(self.place.read_ordinal)
    }

    /// Where the user's time in the feed begins, whatever was read: the current membership. Open feeds have none: there
    /// the marks alone count once there is one, else the first own message; sending never hides what a mark left unread.
    pub(crate) fn since(&self) -> (Ordinal, SeqId) {
        match self.user_feed {
            Some(row) if row.kind == FeedKind::Open && self.place.has_received => Default::default(),
            Some(row) => (row.since_ordinal, row.since_seq),
            None => Default::default(),
        }
    }
}

/// The place of the message with this ordinal, `None` when the ordinal is 0 or beyond the head.
pub fn seq_of(
    reader: &dyn Reader,
    feed: &FeedId,
    ordinal: Ordinal,
    head: Head,
) -> Result<Option<SeqId>, RowsError> {
    if ordinal == Ordinal::ZERO || ordinal > head.ordinal {
        return Ok(None);
    }
    // The first entry with this ordinal is its message. It has at least as many entries before it as messages, and at least
    // as many entries after it as messages: the bounds meet at once in feeds that hold little else.
    let mut from = SeqId(ordinal.0);
    let mut to = SeqId(head.seq.0 - (head.ordinal.0 - ordinal.0));
    while from < to {
        let middle = SeqId(from.0 + (to.0 - from.0) / 2);
        let Some(entry) = reader.entry(feed, middle)? else { return Ok(None) };
        if entry.ordinal < ordinal {
            // Between here and the message lie at least the messages that are missing.
            from = SeqId(middle.0 + (ordinal.0 - entry.ordinal.0));
        } else {
            to = SeqId(middle.0 - (entry.ordinal.0 - ordinal.0));
        }
    }
    Ok(Some(from))
}

/// Rows read per call while counting.
const BLOCKS_PER_READ: usize = 256;

/// Counted sets of blocks `from..=to` of everybody and of one user, joined by block, ascending. Blocks without any row are
/// left out.
fn blocks(
    reader: &dyn Reader,
    feed: &FeedId,
    uid: &Uid,
    from: u64,
    to: u64,
    mut visit: impl FnMut(u64, &Counts, &UserCounts) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    if to - from < 2 {
        // Most users have read most of a feed: one or two blocks are cheaper by key.
        for block in from..=to {
            let key = RowKey::Counts(feed.clone(), block);
            let all = reader.row(&key)?.and_then(RowValue::into_counts);
            let key = RowKey::UserCounts(feed.clone(), uid.clone(), block);
            let own = reader.row(&key)?.and_then(RowValue::into_user_counts);
            if all.is_some() || own.is_some() {
                visit(block, &all.unwrap_or_default(), &own.unwrap_or_default())?;
            }
        }
        return Ok(());
    }
    let mut next = from;
    while next <= to {
        let all = reader.counts(feed, next, to, BLOCKS_PER_READ)?;
        let own = reader.user_counts(feed, uid, next, to, false, BLOCKS_PER_READ)?;
        // Only up to where both lists are known.
        let mut upto = to;
        for last in [
            (all.len() == BLOCKS_PER_READ).then(|| all.last().map(|(block, _)| *block)),
            (own.len() == BLOCKS_PER_READ).then(|| own.last().map(|(block, _)| *block)),
        ] {
            upto = upto.min(last.flatten().unwrap_or(to));
        }
        let mut all = all.into_iter().peekable();
        let mut own = own.into_iter().peekable();
        loop {
            let block = match (all.peek(), own.peek()) {
                (Some((a, _)), Some((b, _))) => *a.min(b),
                (Some((a, _)), None) => *a,
                (None, Some((b, _))) => *b,
                (None, None) => break,
            };
            if block > upto {
                break;
            }
            let a = all.next_if(|(at, _)| *at == block).map(|(_, row)| row).unwrap_or_default();
            let b = own.next_if(|(at, _)| *at == block).map(|(_, row)| row).unwrap_or_default();
            visit(block, &a, &b)?;
        }
        next = upto + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
