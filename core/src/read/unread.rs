//! Unread: the messages of a range, less what does not count (P7).

use crate::read::{Reader, Standing, blocks};
use crate::rows::{Bits, RowsError};

/// How many messages are unread, and how many of them mention the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnreadCount {
    /// Messages.
    pub unread: u64,
    /// Those that mention the user.
    pub mentions: u64,
}

/// Unread of a user in a feed (P7): `range(start, head] \ gone \ system \ own`. Never negative: each message is in the
/// union of the exclusions once.
pub fn unread(reader: &dyn Reader, standing: &Standing<'_>) -> Result<UnreadCount, RowsError> {
    let Standing { feed, uid, head, .. } = *standing;
    let start = standing.start();
    let mut count = UnreadCount::default();
    if !standing.counts() || start >= head.ordinal {
        return Ok(count);
    }
    count.unread = head.ordinal.0 - start.0;
    let from = Bits::block(start.next());
    let to = Bits::block(head.ordinal);
    blocks(reader, feed, uid, from, to, |block, all, own| {
        let range = Bits::range(block, start, head.ordinal);
        let excluded = all.gone.or(all.system).or(own.own);
        count.unread -= range.and(excluded).len();
        count.mentions += range.without(excluded).and(all.mention_all.or(own.mention)).len();
        Ok(())
    })?;
    Ok(count)
}
