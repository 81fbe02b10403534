//! Where a `client_msg_id` was used, for the life of the feed (P3, I-5).

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::Event;
use crate::rows::{DedupScope, FeedState, RowKey, RowValue, Rows, RowsError};

pub(super) fn project(_state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    if let Event::MessageSent(message) = &entry.event
        && let Some(id) = &message.client_msg_id
    {
        let scope = DedupScope::of(&message.scope, &entry.sender);
        rows.put(RowKey::Dedup(entry.feed.clone(), scope, id.clone()), Some(RowValue::Seq(entry.seq)));
    }
    Ok(())
}
