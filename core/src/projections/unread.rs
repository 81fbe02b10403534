//! The counted sets behind unread and unreplied: bitmaps of ordinals, per block, for everybody and per user.
//!
//! The cost of a send does not grow with the number of members (P7): an ordinary message touches one row, its sender's.

use std::sync::Arc;

use crate::entry::Entry;
use crate::event::{Event, FeedKind, MENTION_ALL, Message, MessageKind};
use crate::ids::{Ordinal, SeqId, Uid};
use crate::projection::{change, members, unreplied};
use crate::rows::{Bits, Counts, FeedState, RowKey, RowValue, Rows, RowsError, UserCounts};

pub(super) fn project(state: &Arc<FeedState>, entry: &Entry, rows: &mut dyn Rows) -> Result<(), RowsError> {
    match &entry.event {
        Event::MessageSent(message) => sent(state.kind, entry, message, rows),
        Event::MessageRecalled { target, target_ordinal, .. } => {
            gone(entry, &[(*target, *target_ordinal)], rows)?;
            unreplied::recalled(entry, *target, *target_ordinal, rows)
        }
        Event::MessagesExpired { targets } | Event::MessagesErased { targets, .. } => {
            gone(entry, targets, rows)
        }
        _ => Ok(()),
    }
}

fn sent(kind: FeedKind, entry: &Entry, message: &Message, rows: &mut dyn Rows) -> Result<(), RowsError> {
    let block = Bits::block(entry.ordinal);
    // Nobody counts for senders that did not authenticate.
    if !entry.sender.is_anonymous() {
        let mut first_of_block = false;
        user_counts(rows, entry, &entry.sender, block, |counts| {
            counts.own.insert(entry.ordinal);
            if counts.first_own_seq == SeqId::ZERO {
                counts.first_own_seq = entry.seq;
                first_of_block = true;
            }
            if !message.auto {
                counts.answered_seq = counts.answered_seq.max(message.seen_seq);
            }
        })?;
        if first_of_block && kind == FeedKind::Open {
            members::sent_in_open_feed(entry, rows)?;
        }
    }

    let asks = unreplied::asks(kind, message);
    let mention_all = message.mentions.iter().any(|uid| uid.as_str() == MENTION_ALL);
    let system = message.kind == MessageKind::System;
    let quiet = kind == FeedKind::Direct && unreplied::is_quiet(message);
    let ask_all = asks && (mention_all || message.to_reply == Some(true) && message.mentions.is_empty());
    if system || quiet || ask_all || mention_all {
        let key = RowKey::Counts(entry.feed.clone(), block);
        change(rows, key, RowValue::into_counts, RowValue::Counts, |counts: &mut Box<Counts>| {
            for (set, is_in) in [
                (&mut counts.system, system),
                (&mut counts.quiet, quiet),
                (&mut counts.ask_all, ask_all),
                (&mut counts.mention_all, mention_all),
            ] {
                if is_in {
                    set.insert(entry.ordinal);
                }
            }
        })?;
    }

    for uid in message.mentions.iter().filter(|uid| uid.as_str() != MENTION_ALL && **uid != entry.sender) {
        user_counts(rows, entry, uid, block, |counts| {
            counts.mention.insert(entry.ordinal);
            if asks {
                counts.ask.insert(entry.ordinal);
            }
        })?;
    }
    if asks
        && let Some(answered) = message.reply_to
        && let Some(answered) = rows.entry(&entry.feed, answered)?
        && answered.sender != entry.sender
        && !answered.sender.is_anonymous()
    {
        user_counts(rows, entry, &answered.sender, block, |counts| counts.ask.insert(entry.ordinal))?;
    }
    Ok(())
}

/// Recalled, expired and erased messages count nowhere.
fn gone(entry: &Entry, targets: &[(SeqId, Ordinal)], rows: &mut dyn Rows) -> Result<(), RowsError> {
    for block in targets.chunk_by(|a, b| Bits::block(a.1) == Bits::block(b.1)) {
        let key = RowKey::Counts(entry.feed.clone(), Bits::block(block[0].1));
        change(rows, key, RowValue::into_counts, RowValue::Counts, |counts: &mut Box<Counts>| {
            for (_, ordinal) in block {
                counts.gone.insert(*ordinal);
            }
        })?;
    }
    Ok(())
}

fn user_counts(
    rows: &mut dyn Rows,
    entry: &Entry,
    uid: &Uid,
    block: u64,
    f: impl FnOnce(&mut UserCounts),
) -> Result<(), RowsError> {
    let key = RowKey::UserCounts(entry.feed.clone(), uid.clone(), block);
    change(rows, key, RowValue::into_user_counts, RowValue::UserCounts, |counts| f(counts))
}
