//! Who reacted to a message, and how many with each key.

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::Event;
use crate::projection::fates;
use crate::rows::{FeedState, RowKey, RowValue, Rows, RowsError};

pub(super) fn project(_state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    let Event::ReactionChanged { target, key, on } = &entry.event else { return Ok(()) };
    let row = RowKey::Reaction(entry.feed.clone(), *target, key.clone(), entry.sender.clone());
    rows.put(row, on.then_some(RowValue::Seq(entry.seq)));
    fates::change(rows, entry, *target, |fate| {
        let at = fate.reactions.binary_search_by(|(other, _)| other.cmp(key));
        match (at, on) {
            (Ok(at), true) => fate.reactions[at].1 += 1,
            (Err(at), true) => fate.reactions.insert(at, (key.clone(), 1)),
            (Ok(at), false) => {
                fate.reactions[at].1 -= 1;
                if fate.reactions[at].1 == 0 {
                    fate.reactions.remove(at);
                }
            }
            // `decide` takes back only what was there.
            (Err(_), false) => {}
        }
    })
}
