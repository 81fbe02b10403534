//! All projections in one list. Each derives its rows from the log of one feed alone (P9, I-6).

use std::sync::Arc;

use crate::entry::Entry;
use crate::rows::{FeedState, Rows, RowsError};

/// Derives every row from the next entry of a feed. `state` is the state after the entry
/// ([`crate::feed::evolve`] first). Entries must come in order, each once, and `rows.entry` must find the entry itself
/// and all before it.
#[allow(unused_variables)]
pub fn project(state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    todo!()
}

/// The state of a feed and its rows, folded entry by entry: for appending and for rebuilding alike.
#[derive(Debug, Default)]
pub struct Fold {
    /// The state after the newest folded entry; `None` before the first.
    pub state: Option<Arc<FeedState>>,
}

impl Fold {
    /// `evolve`, then `project`.
    #[allow(unused_variables)]
    pub fn apply(&mut self, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
        todo!()
    }
}
