//! Fetch first: whatever deciding a command may need.

use crate::command::{Action, Command, Draft, Principal, RecallTarget};
use crate::entry::Head;
use crate::event::FeedKind;
use crate::feed::{Context, Other, Settings, Target};
use crate::ids::{ClientMsgId, Digest, FeedId, Ordinal, SeqId, TimeMs, Uid};
use crate::limits;
use crate::rows::{DedupScope, FeedState, Member, Place, RowKey, RowValue, Rows, RowsError};

/// Fetches whatever deciding this command may need; nothing is read later.
///
/// Rows and entries of the feed itself are read as of now (undurable groups included), those of other feeds as durable.
#[allow(clippy::too_many_arguments)] // the inputs of a decision, and nothing else
pub fn gather(
    principal: &Principal,
    command: &Command,
    state: Option<&FeedState>,
    head: Head,
    rows: &mut dyn Rows,
    now_ms: TimeMs,
    settings: &Settings,
    digest: Digest,
) -> Result<Context, RowsError> {
    let mut context = Context {
        now_ms,
        head,
        settings: *settings,
        digest,
        actor: None,
        subject: None,
        request: None,
        original: None,
        targets: Vec::new(),
        reaction: None,
        received: None,
        other: None,
    };
    let feed = &command.feed;
    match &command.action {
        // These speak of other feeds, from a personal feed that may not exist yet.
        Action::MoveMarks { feed: other, read, unread_from, .. } => {
            let mark = read.or(unread_from.map(SeqId::prev));
            context.other = Some(gather_other(principal, other, mark, rows)?);
            return Ok(context);
        }
        Action::ResolveUnreplied { feed: other, .. } | Action::ChangeSettings { feed: other, .. } => {
            context.other = Some(gather_other(principal, other, None, rows)?);
            return Ok(context);
        }
        _ => {}
    }
    let Some(state) = state else { return Ok(context) };
    let group = state.kind == FeedKind::Group;
    if group {
        context.actor = member(rows, feed, &principal.uid)?;
    }
    match &command.action {
        Action::SendMessage(draft) => gather_send(principal, feed, draft, head, rows, &mut context)?,
        Action::EditMessage { target, .. } => gather_target(rows, feed, *target, &mut context)?,
        Action::RecallMessage { target, .. } => {
            let seq = match target {
                RecallTarget::Seq(seq) => Some(*seq),
                RecallTarget::ClientMsgId { sender, scope, id } => {
                    let scope = DedupScope::of(scope, sender.as_ref().unwrap_or(&principal.uid));
                    used_before(rows, feed, scope, id)?
                }
            };
            if let Some(seq) = seq {
                gather_target(rows, feed, seq, &mut context)?;
            }
        }
        Action::React { target, key, .. } => {
            gather_target(rows, feed, *target, &mut context)?;
            let key = RowKey::Reaction(feed.clone(), *target, key.clone(), principal.uid.clone());
            context.reaction = rows.get(&key)?.and_then(RowValue::into_seq);
        }
        Action::AddMember { uid, .. }
        | Action::RemoveMember { uid, .. }
        | Action::ChangeRole { uid, .. }
        | Action::DecideJoin { uid, .. }
            if group =>
        {
            context.subject = member(rows, feed, uid)?;
            let key = RowKey::Request(feed.clone(), uid.clone());
            context.request = rows.get(&key)?.and_then(RowValue::into_request);
        }
        Action::Join { .. } if group => {
            let key = RowKey::Request(feed.clone(), principal.uid.clone());
            context.request = rows.get(&key)?.and_then(RowValue::into_request);
        }
        Action::ExpireMessages { targets, .. } | Action::EraseMessages { targets, .. } => {
            let mut targets = targets.clone();
            targets.sort_unstable();
            targets.dedup();
            for seq in targets.into_iter().take(limits::EXPIRE_BATCH_MAX) {
                gather_target(rows, feed, seq, &mut context)?;
            }
        }
        _ => {}
    }
    Ok(context)
}

fn gather_send(
    principal: &Principal,
    feed: &FeedId,
    draft: &Draft,
    head: Head,
    rows: &mut dyn Rows,
    context: &mut Context,
) -> Result<(), RowsError> {
    if let Some(id) = &draft.client_msg_id {
        let scope = DedupScope::of(&draft.scope, &principal.uid);
        if let Some(seq) = used_before(rows, feed, scope, id)? {
            context.original = rows.entry(feed, seq)?;
            return Ok(());
        }
    }
    if draft.seen_seq.is_none() {
        let key = RowKey::Place(principal.uid.clone(), feed.clone());
        let place = rows.get(&key)?.and_then(RowValue::into_place).unwrap_or_default();
        context.received = place.has_received.then_some(place.received_seq);
    }
    match draft.reply_to {
        Some(seq) if seq <= head.seq => gather_target(rows, feed, seq, context),
        _ => Ok(()),
    }
}

fn gather_target(
    rows: &mut dyn Rows,
    feed: &FeedId,
    seq: SeqId,
    context: &mut Context,
) -> Result<(), RowsError> {
    if seq == SeqId::ZERO || seq > context.head.seq {
        return Ok(());
    }
    let Some(entry) = rows.entry(feed, seq)? else { return Ok(()) };
    let fate = if entry.is_message() {
        rows.get(&RowKey::Fate(feed.clone(), seq))?.and_then(RowValue::into_fate)
    } else {
        None
    };
    context.targets.push(Target { entry, fate });
    Ok(())
}

fn gather_other(
    principal: &Principal,
    feed: &FeedId,
    mark: Option<SeqId>,
    rows: &mut dyn Rows,
) -> Result<Other, RowsError> {
    let uid = &principal.uid;
    let state = rows.get(&RowKey::Feed(feed.clone()))?.and_then(RowValue::into_feed);
    let mut other = Other {
        feed: feed.clone(),
        state,
        head: Head::default(),
        member: None,
        place: Place::default(),
        read_ordinal: Ordinal::ZERO,
    };
    let Some(state) = &other.state else { return Ok(other) };
    if state.kind == FeedKind::Group {
        other.member = member(rows, feed, uid)?;
    }
    other.head = rows.head(feed)?;
    let key = RowKey::Place(uid.clone(), feed.clone());
    other.place = rows.get(&key)?.and_then(RowValue::into_place).unwrap_or_default();
    if let Some(seq) = mark.filter(|seq| *seq > SeqId::ZERO && *seq <= other.head.seq)
        && let Some(entry) = rows.entry(feed, seq)?
    {
        other.read_ordinal = entry.ordinal;
    }
    Ok(other)
}

fn member(rows: &mut dyn Rows, feed: &FeedId, uid: &Uid) -> Result<Option<Member>, RowsError> {
    Ok(rows.get(&RowKey::Member(feed.clone(), uid.clone()))?.and_then(RowValue::into_member))
}

fn used_before(
    rows: &mut dyn Rows,
    feed: &FeedId,
    scope: DedupScope,
    id: &ClientMsgId,
) -> Result<Option<SeqId>, RowsError> {
    Ok(rows.get(&RowKey::Dedup(feed.clone(), scope, id.clone()))?.and_then(RowValue::into_seq))
}
