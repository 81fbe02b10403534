//! All projections in one list. Each derives its rows from the log of one feed alone (P9, I-6).

#[path = "projections/dedup.rs"]
mod dedup;
#[path = "projections/expiry.rs"]
mod expiry;
#[path = "projections/fates.rs"]
mod fates;
#[path = "projections/feed_state.rs"]
mod feed_state;
#[path = "projections/members.rs"]
mod members;
#[path = "projections/places.rs"]
mod places;
#[path = "projections/reactions.rs"]
mod reactions;
#[path = "projections/unread.rs"]
mod unread;
#[path = "projections/unreplied.rs"]
mod unreplied;

use std::sync::Arc;

use crate::entry::Entry;
use crate::feed::evolve;
use crate::rows::{FeedState, RowKey, RowValue, Rows, RowsError};

type Projection = fn(&Arc<FeedState>, &Entry, &mut dyn Rows) -> Result<(), RowsError>;

/// A new view of the log is one file in `projections/` and one line here. Order matters in one place: `unread` finds the
/// fates that `fates` wrote for the same entry.
const ALL: &[Projection] = &[
    feed_state::project,
    members::project,
    dedup::project,
    fates::project,
    reactions::project,
    expiry::project,
    unread::project,
    places::project,
];

/// Derives every row from the next entry of a feed. `state` is the state after the entry
/// ([`crate::feed::evolve`] first). Entries must come in order, each once, and `rows.entry` must find the entry itself
/// and all before it.
pub fn project(state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    ALL.iter().try_for_each(|project| project(state, entry, rows))
}

/// The state of a feed and its rows, folded entry by entry: for appending and for rebuilding alike.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    /// The state after the newest folded entry; `None` before the first.
    pub state: Option<Arc<FeedState>>,
}

impl Fold {
    /// `evolve`, then `project`. An entry before FeedCreated is damage and derives nothing.
    pub fn apply(&mut self, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
        evolve(&mut self.state, entry);
        match &self.state {
            Some(state) => project(state, entry, rows),
            None => Ok(()),
        }
    }
}

/// Reads a row, changes it and writes it back; a row at its default is removed ("no row = nothing").
fn change<T: Default + PartialEq>(
    rows: &mut dyn Rows,
    key: RowKey,
    unwrap: fn(RowValue) -> Option<T>,
    wrap: fn(T) -> RowValue,
    change: impl FnOnce(&mut T),
) -> Result<(), RowsError> {
    let mut value = rows.get(&key)?.and_then(unwrap).unwrap_or_default();
    change(&mut value);
    let value = if value == T::default() { None } else { Some(wrap(value)) };
    rows.put(key, value);
    Ok(())
}
