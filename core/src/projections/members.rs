//! Members with roles, requests to join, and the feeds of each user.

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::{Event, FeedKind, Role};
use crate::ids::{Ordinal, SeqId, Uid};
use crate::rows::{FeedState, Member, Request, RowKey, RowValue, Rows, RowsError, UserFeed};

pub(super) fn project(state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    let feed = &entry.feed;
    match &entry.event {
        Event::FeedCreated { pair: Some((a, b)), .. } => {
            for uid in [a, b] {
                join(state.kind, entry, uid, Role::Member, rows);
            }
        }
        Event::MemberJoined { uid, role } => {
            join(state.kind, entry, uid, *role, rows);
            rows.put(RowKey::Request(feed.clone(), uid.clone()), None);
        }
        Event::MemberLeft { uid } | Event::MemberRemoved { uid, .. } => {
            rows.put(RowKey::Member(feed.clone(), uid.clone()), None);
            rows.put(RowKey::UserFeed(uid.clone(), feed.clone()), None);
        }
        Event::RoleChanged { uid, role } => {
            let key = RowKey::Member(feed.clone(), uid.clone());
            if let Some(member) = rows.get(&key)?.and_then(RowValue::into_member) {
                rows.put(key, Some(RowValue::Member(Member { role: *role, ..member })));
            }
        }
        Event::JoinRequested { reason } => {
            let key = RowKey::Request(feed.clone(), entry.sender.clone());
            let request = Request { seq: entry.seq, time_ms: entry.time_ms, reason: reason.clone() };
            rows.put(key, Some(RowValue::Request(request)));
        }
        Event::JoinDecided { uid, .. } => rows.put(RowKey::Request(feed.clone(), uid.clone()), None),
        // A personal feed is in its user's list from its first message on, not for marks alone.
        Event::MessageSent(_) if state.kind == FeedKind::Personal && entry.ordinal == Ordinal(1) => {
            if let Some(uid) = feed.personal_uid() {
                let row = UserFeed { kind: state.kind, since_ordinal: Ordinal::ZERO, since_seq: SeqId::ZERO };
                rows.put(RowKey::UserFeed(uid, feed.clone()), Some(RowValue::UserFeed(row)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// An open feed is in a user's list from the user's first message there on. `unread` calls this when the sender has no own
/// message in the current block, so that an ordinary send does not look for the row.
pub(super) fn sent_in_open_feed(entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    let key = RowKey::UserFeed(entry.sender.clone(), entry.feed.clone());
    if rows.get(&key)?.is_none() {
        rows.put(key, Some(user_feed(FeedKind::Open, entry)));
    }
    Ok(())
}

fn join(kind: FeedKind, entry: &Entry, uid: &Uid, role: Role, rows: &mut dyn Rows) {
    let member =
        Member { role, joined_seq: entry.seq, joined_ordinal: entry.ordinal, joined_ms: entry.time_ms };
    rows.put(RowKey::Member(entry.feed.clone(), uid.clone()), Some(RowValue::Member(member)));
    rows.put(RowKey::UserFeed(uid.clone(), entry.feed.clone()), Some(user_feed(kind, entry)));
}

fn user_feed(kind: FeedKind, entry: &Entry) -> RowValue {
    RowValue::UserFeed(UserFeed { kind, since_ordinal: entry.ordinal, since_seq: entry.seq })
}
