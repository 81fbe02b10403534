//! Where a user stands.

use std::collections::BTreeMap;

use feedlog_core::ids::FeedId;
use feedlog_core::limits::PAGE_ENTRIES_MAX;
use feedlog_service::Gate;
use prost::Message as _;

use super::TOPIC_UNREAD;
use super::encode::Down;
use super::ids::Ids;
use super::wire::{BaseUserUnreadStatics, UserUnreadFeed};
use crate::errors::ApiError;

/// Unread and unreplied of the caller, as [`BaseUserUnreadStatics`].
pub async fn unread(ids: &Ids, gate: &Gate) -> Result<Down, ApiError> {
    let unread = gate.unread().await?;
    let owed = gate.unreplied(PAGE_ENTRIES_MAX).await?;
    let mut feeds: BTreeMap<&FeedId, UserUnreadFeed> = BTreeMap::new();
    for row in &unread.feeds {
        feeds.entry(&row.feed).or_default().unread = row.unread;
    }
    let mut unreplied_total = 0;
    for row in &owed {
        unreplied_total += row.count;
        feeds.entry(&row.feed).or_default().unreplied = row.count;
    }
    // One read for the places of most feeds. One that lies further down the list gets its own.
    let places = gate.conversations(None, PAGE_ENTRIES_MAX).await?.rows;
    for row in &places {
        if let Some(feed) = feeds.get_mut(&row.info.feed) {
            (feed.last_seq_id, feed.read_seq_id) = (row.info.head.0, row.read_seq.0);
        }
    }
    let mut rows = Vec::with_capacity(feeds.len().min(PAGE_ENTRIES_MAX));
    for (name, mut row) in feeds.into_iter().take(PAGE_ENTRIES_MAX) {
        name.as_str().clone_into(&mut row.feed);
        if row.last_seq_id == 0 {
            // Left in between: the next push tells.
            let Ok(info) = gate.feed(name).await else { continue };
            (row.last_seq_id, row.read_seq_id) = (info.head.0, gate.marks(name).await?.read_seq.0);
        }
        rows.push(row);
    }
    let body = BaseUserUnreadStatics {
        user_id: ids.number_of(&gate.principal().uid).await?,
        unread_total: unread.total,
        unreplied_total,
        feeds: rows,
    };
    Ok(Down { topic: TOPIC_UNREAD, body: body.encode_to_vec() })
}
