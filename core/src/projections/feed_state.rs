//! The folded state of a feed.

use std::sync::Arc;

use crate::entry::Entry;
use crate::feed::changes_state;
use crate::rows::{FeedState, RowKey, RowValue, Rows, RowsError};

pub(super) fn project(state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    if changes_state(&entry.event) {
        rows.put(RowKey::Feed(entry.feed.clone()), Some(RowValue::Feed(state.clone())));
    }
    Ok(())
}
