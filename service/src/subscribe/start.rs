//! Looking up from which place a feed is to be followed, and whether it may be.

use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::ReadScope;

use super::scan::place_at;
use crate::error::ReadError;
use crate::read::Reads;
use crate::views::After;

/// From where a feed is to be followed.
pub(super) struct Ask {
    pub(super) feed: FeedId,
    pub(super) after: After,
    /// Not before this place: the reader's own time in the feed begins after it.
    pub(super) floor: SeqId,
    /// What patterns had of it, when any matches: all up to this place or commit. Following begins no later.
    pub(super) covered: Option<Result<SeqId, u64>>,
}

impl Ask {
    pub(super) fn after(feed: FeedId, after: After) -> Self {
        Self { feed, after, floor: SeqId::ZERO, covered: None }
    }
}

/// The answer to an [`Ask`].
pub(super) struct Start {
    pub(super) feed: FeedId,
    /// The place, what may be read, and whether it is of the kind that patterns match. `None`: not for this reader.
    pub(super) place: Option<(SeqId, ReadScope, bool)>,
}

impl Start {
    /// Whether patterns match feeds of its kind, and the reader may read it.
    pub(super) fn is_open(&self) -> bool {
        self.place.is_some_and(|(_, _, is_open)| is_open)
    }
}

/// Looks up access and place. Blocks. An error is none of the feed's own.
pub(super) fn start(reads: &Reads, ask: Ask) -> Result<Start, ReadError> {
    match find_start(reads, &ask) {
        Ok(place) => Ok(Start { feed: ask.feed, place: Some(place) }),
        Err(ReadError::Denied(_)) => Ok(Start { feed: ask.feed, place: None }),
        Err(error) => Err(error),
    }
}

/// Where a feed's reader is, what it may have, and whether the feed is of the kind that patterns match.
pub(super) type Found = (SeqId, ReadScope, bool);

/// As [`find_start`], for a feed that may not exist yet: then from its first entry on, should it become one that this
/// reader may have. That is decided when its first entry comes, see `changes_access`.
pub(super) fn find_start_or_wait(reads: &Reads, ask: &Ask) -> Result<Found, ReadError> {
    match find_start(reads, ask) {
        Err(ReadError::Denied(_)) if reads.may_come(&ask.feed)? => {
            Ok((SeqId::ZERO, ReadScope { first: SeqId(1), contents: true, manages: false }, false))
        }
        // Once more: it may have come in between.
        Err(ReadError::Denied(_)) => find_start(reads, ask),
        found => found,
    }
}

pub(super) fn find_start(reads: &Reads, ask: &Ask) -> Result<Found, ReadError> {
    let access = reads.contents(&ask.feed)?;
    let is_open = access.state.kind == FeedKind::Open;
    let engine = &*reads.engine;
    let place = match ask.after {
        After::Seq(seq) => seq,
        After::Head => engine.head(&ask.feed)?.seq,
        After::Commit(commit_no) => place_at(engine, &ask.feed, commit_no)?.max(ask.floor),
    };
    let place = match ask.covered {
        Some(Ok(covered)) if is_open => place.min(covered),
        Some(Err(commit_no)) if is_open => place.min(place_at(engine, &ask.feed, commit_no)?),
        _ => place,
    };
    Ok((place, access.scope, is_open))
}

pub(super) fn starts(reads: &Reads, asks: Vec<Ask>) -> Result<Vec<Start>, ReadError> {
    asks.into_iter().map(|ask| start(reads, ask)).collect()
}

/// The reader's feeds, each with the entry where the reader's time in it begins.
pub(super) fn list_mine(reads: &Reads) -> Result<Vec<(FeedId, SeqId)>, ReadError> {
    let mut feeds = Vec::new();
    reads.each_feed(|feed, user_feed, _| {
        feeds.extend(user_feed.map(|row| (feed, row.since_seq)));
        Ok(())
    })?;
    Ok(feeds)
}
