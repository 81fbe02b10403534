//! Messages that will expire, by time over all feeds.

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::Event;
use crate::rows::{FeedState, RowKey, RowValue, Rows, RowsError};

pub(super) fn project(_state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    match &entry.event {
        Event::MessageSent(message) => {
            if let Some(expires_ms) = message.expires_ms {
                let key = RowKey::Expiry(expires_ms, entry.feed.clone(), entry.seq);
                rows.put(key, Some(RowValue::Seq(entry.seq)));
            }
        }
        // A recalled message still expires, because its payload is still stored.
        Event::MessagesExpired { targets } | Event::MessagesErased { targets, .. } => {
            for (seq, _) in targets {
                let target = rows.entry(&entry.feed, *seq)?;
                if let Some(expires_ms) =
                    target.as_ref().and_then(Entry::message).and_then(|message| message.expires_ms)
                {
                    rows.put(RowKey::Expiry(expires_ms, entry.feed.clone(), *seq), None);
                }
            }
        }
        _ => {}
    }
    Ok(())
}
