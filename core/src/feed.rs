//! The rules of a feed: `decide` turns an authorized command into events, `evolve` folds entries into the state.

mod gather;
mod members;
mod messages;
mod personal;

use std::sync::Arc;

use crate::command::{Action, CreateFeed, Done, Principal};
use crate::entry::{Entry, Head, Payload};
use crate::event::{Event, Role};
use crate::ids::{Digest, FeedId, Ordinal, SeqId, TimeMs, Uid};
use crate::limits;
use crate::policy::Authorized;
use crate::rows::{Fate, FeedState, Member, Place, Request};

pub use gather::gather;

/// The command is allowed but cannot be done. Nothing was appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// A field does not fit the feed or the message it names.
    #[error("{field}: {problem}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What is wrong with it, without repeating the input.
        problem: &'static str,
    },
    /// The same `client_msg_id` was used before with another body.
    #[error("this client_msg_id was used before with another body")]
    IdConflict {
        /// The entry that used it.
        seq: SeqId,
    },
    /// The head is not the one the sender expected.
    #[error("the head is {head}")]
    HeadMoved {
        /// The head now.
        head: SeqId,
    },
    /// The feed, member or request exists already.
    #[error("already exists")]
    AlreadyExists,
    /// The message does not exist, or is not shown to the caller.
    #[error("no such message")]
    MessageNotFound,
    /// There is no such member or request.
    #[error("no such member")]
    MemberNotFound,
    /// The time in which the sender may recall or edit is over.
    #[error("the time to recall or edit this message is over")]
    RecallWindowClosed,
    /// The payload is larger than configured.
    #[error("the payload is larger than {max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// The rules of the feed's kind forbid it, e.g. the owner leaving without naming another.
    #[error("{0}")]
    Rule(&'static str),
}

/// What an operator can choose about the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a sender may recall, in milliseconds. Owners, admins and services always may.
    pub recall_window_ms: u64,
    /// How long a message of an open feed may be recalled by whoever names the id it has in a shared scope, in
    /// milliseconds; `None`: at any time. Front ends with shared scopes have no senders, so there the id is the right.
    pub shared_recall_window_ms: Option<u64>,
    /// How long a sender may edit, in milliseconds.
    pub edit_window_ms: u64,
    /// Largest payload, in bytes; at most [`limits::PAYLOAD_BYTES_MAX`].
    pub payload_bytes_max: usize,
    /// Whether principals that did not authenticate may use open feeds.
    pub anonymous_open_feeds: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recall_window_ms: limits::RECALL_WINDOW_MS_DEFAULT,
            shared_recall_window_ms: None,
            edit_window_ms: limits::RECALL_WINDOW_MS_DEFAULT,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            anonymous_open_feeds: false,
        }
    }
}

/// An older entry that a command names, with what happened to it since.
#[derive(Debug, Clone)]
pub struct Target {
    /// The entry.
    pub entry: Entry,
    /// What happened to it, when it is a message.
    pub fate: Option<Box<Fate>>,
}

/// The feed that a command of a personal feed speaks about.
#[derive(Debug, Clone)]
pub struct Other {
    /// The feed.
    pub feed: FeedId,
    /// Its state, `None` when it does not exist.
    pub state: Option<Arc<FeedState>>,
    /// Its durable head.
    pub head: Head,
    /// The principal's membership there.
    pub member: Option<Member>,
    /// The principal's place there.
    pub place: Place,
    /// The ordinal at the new read mark.
    pub read_ordinal: Ordinal,
}

/// Everything that `authorize` and `decide` need besides the state of the feed, fetched before them by [`gather`].
#[derive(Debug, Clone)]
pub struct Context {
    /// The time of deciding.
    pub now_ms: TimeMs,
    /// The head of the feed, undurable entries included.
    pub head: Head,
    /// What the operator chose.
    pub settings: Settings,
    /// BLAKE3.
    pub digest: Digest,
    /// The principal's membership (groups).
    pub actor: Option<Member>,
    /// The membership of the user that the command is about.
    pub subject: Option<Member>,
    /// The pending request to join of that user.
    pub request: Option<Request>,
    /// The entry that used the same `client_msg_id` before.
    pub original: Option<Entry>,
    /// The messages that the command names and that exist, in the order named.
    pub targets: Vec<Target>,
    /// The entry by which the principal reacted to the target with this key before.
    pub reaction: Option<SeqId>,
    /// The sender's received mark, when it decides what an answer had seen.
    pub received: Option<SeqId>,
    /// What a command of a personal feed speaks about.
    pub other: Option<Other>,
}

/// An event that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Who caused it.
    pub sender: Uid,
    /// What happened.
    pub event: Event,
    /// The bytes beside it.
    pub payload: Payload,
}

/// What is to be appended, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In order; never empty.
    pub events: Vec<NewEvent>,
    /// Which of them answers the command.
    pub answer: usize,
    /// Older entries whose payload is destroyed in the same batch.
    pub strip: Vec<SeqId>,
    /// Told in [`Done::requested`].
    pub requested: bool,
}

/// What comes of an authorized command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Append this.
    Append(Plan),
    /// Nothing to append: it had been done before, or changes nothing.
    Already(Done),
}

/// Turns an authorized command into events. Pure: all it needs is in the context.
///
/// The order is: dedup, `expect_head`, then the rules of the act. `state` is `None` for a feed that does not exist.
pub fn decide(
    state: Option<&FeedState>,
    authorized: Authorized,
    context: &Context,
) -> Result<Decision, Rejected> {
    let (principal, command) = authorized.into_parts();
    let case = Case { state, principal: &principal, feed: &command.feed, context };
    case.fits(&command.action)?;
    match command.action {
        Action::CreateFeed(create) => case.create(&create),
        Action::ChangeFeed { title, join, history, meta } => case.change(title, join, history, meta),
        Action::SendMessage(draft) => case.send(*draft),
        Action::EditMessage { target: _, content_type, payload } => case.edit(content_type, payload),
        Action::RecallMessage { target, reason } => case.recall(&target, reason),
        Action::React { target: _, key, on } => case.react(key, on),
        Action::AddMember { uid, role } => case.add_member(uid, role),
        Action::RemoveMember { uid, reason } => case.remove_member(uid, reason),
        Action::ChangeRole { uid, role } => case.change_role(uid, role),
        Action::Join { reason } => case.join(reason),
        Action::DecideJoin { uid, agree } => case.decide_join(uid, agree),
        Action::Broadcast { content_type, payload, create } => case.broadcast(content_type, payload, create),
        Action::ExpireMessages { targets: _, early } => case.expire(early),
        Action::EraseMessages { targets: _, reason } => case.erase(reason),
        Action::MoveMarks { feed, read, received, unread_from } => {
            case.move_marks(feed, read, received, unread_from)
        }
        Action::ResolveUnreplied { feed, upto } => case.resolve(feed, upto),
        Action::ChangeSettings { feed, pinned, muted_until_ms } => {
            case.change_settings(feed, pinned, muted_until_ms)
        }
        Action::Notify { content_type, payload } => case.notify(content_type, payload),
    }
}

/// One command on one state; its rules are in `feed/`.
struct Case<'a> {
    state: Option<&'a FeedState>,
    principal: &'a Principal,
    feed: &'a FeedId,
    context: &'a Context,
}

impl Case<'_> {
    /// An event by the principal.
    fn event(&self, event: Event, payload: Payload) -> NewEvent {
        NewEvent { sender: self.principal.uid.clone(), event, payload }
    }

    /// Appends events by the principal without payload; the first answers.
    fn append(&self, events: impl IntoIterator<Item = Event>) -> Decision {
        let events = events.into_iter().map(|event| self.event(event, Payload::None)).collect();
        Decision::Append(Plan { events, ..Plan::default() })
    }

    /// Nothing to append; this entry, if any, stands for the answer.
    fn already(&self, seq: SeqId, ordinal: Ordinal, time_ms: TimeMs) -> Decision {
        Decision::Already(Done {
            feed: self.feed.clone(),
            seq,
            ordinal,
            time_ms,
            duplicate: true,
            requested: false,
        })
    }

    /// Nothing to append and no entry that stands for it.
    fn nothing(&self) -> Decision {
        self.already(SeqId::ZERO, Ordinal::ZERO, 0)
    }

    /// Bounds that hold for every command.
    fn fits(&self, action: &Action) -> Result<(), Rejected> {
        use limits::{
            CARRIED_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, META_BYTES_MAX, REASON_BYTES_MAX, TITLE_BYTES_MAX,
        };
        if self.context.head.seq.0 + ENTRIES_PER_COMMAND_MAX > SeqId::MAX.0 {
            return Err(Rejected::Rule("the feed is full"));
        }
        let text = |field, text: &Option<Arc<str>>, max| match text {
            Some(text) if text.len() > max => Err(Rejected::BadField { field, problem: "is too long" }),
            _ => Ok(()),
        };
        let created = |create: &CreateFeed| {
            if create.members.len() > limits::CREATE_MEMBERS_MAX {
                return Err(Rejected::BadField { field: "members", problem: "are too many" });
            }
            text("title", &create.title, TITLE_BYTES_MAX)?;
            text("meta", &create.meta, META_BYTES_MAX)
        };
        let body = |content_type: &str, payload: &bytes::Bytes| {
            if content_type.is_empty() || content_type.len() > CONTENT_TYPE_BYTES_MAX {
                return Err(Rejected::BadField {
                    field: "content_type",
                    problem: "must be 1 to 127 bytes long",
                });
            }
            let max = self.context.settings.payload_bytes_max;
            if payload.len() > max { Err(Rejected::TooLarge { max }) } else { Ok(()) }
        };
        match action {
            Action::CreateFeed(create) => created(create),
            Action::ChangeFeed { title, meta, .. } => {
                text("title", title, TITLE_BYTES_MAX)?;
                text("meta", meta, META_BYTES_MAX)
            }
            Action::SendMessage(draft) => {
                draft.create.as_ref().map_or(Ok(()), created)?;
                if draft.carried.len() > CARRIED_BYTES_MAX {
                    return Err(Rejected::TooLarge { max: CARRIED_BYTES_MAX });
                }
                body(&draft.content_type, &draft.payload)
            }
            Action::Broadcast { content_type, payload, create } => {
                create.as_ref().map_or(Ok(()), created)?;
                body(content_type, payload)
            }
            Action::EditMessage { content_type, payload, .. } | Action::Notify { content_type, payload } => {
                body(content_type, payload)
            }
            Action::RecallMessage { reason, .. }
            | Action::RemoveMember { reason, .. }
            | Action::Join { reason }
            | Action::EraseMessages { reason, .. } => text("reason", reason, REASON_BYTES_MAX),
            Action::React { .. }
            | Action::AddMember { .. }
            | Action::ChangeRole { .. }
            | Action::DecideJoin { .. }
            | Action::ExpireMessages { .. }
            | Action::MoveMarks { .. }
            | Action::ResolveUnreplied { .. }
            | Action::ChangeSettings { .. } => Ok(()),
        }
    }
}

/// More entries than any single command appends.
const ENTRIES_PER_COMMAND_MAX: u64 = limits::CREATE_MEMBERS_MAX as u64 + 8;

/// Folds an entry into the state of its feed. `None` is the state before the first entry.
pub fn evolve(state: &mut Option<Arc<FeedState>>, entry: &Entry) {
    if let Event::FeedCreated { kind, title, join, history, meta, pair } = &entry.event {
        *state = Some(Arc::new(FeedState {
            kind: *kind,
            title: title.clone(),
            join: *join,
            history: *history,
            meta: meta.clone(),
            pair: pair.clone(),
            creator: entry.sender.clone(),
            owner: None,
            created_ms: entry.time_ms,
            member_count: if pair.is_some() { 2 } else { 0 },
            holds: Vec::new(),
        }));
        return;
    }
    // Most entries change nothing here: the shared state is copied only when one does.
    let Some(state) = state.as_mut().filter(|_| changes_state(&entry.event)) else { return };
    let state = Arc::make_mut(state);
    match &entry.event {
        Event::FeedChanged { title, join, history, meta } => {
            if title.is_some() {
                state.title.clone_from(title);
            }
            if meta.is_some() {
                state.meta.clone_from(meta);
            }
            state.join = join.unwrap_or(state.join);
            state.history = history.unwrap_or(state.history);
        }
        Event::MemberJoined { uid, role } => {
            state.member_count += 1;
            if *role == Role::Owner {
                state.owner = Some(uid.clone());
            }
        }
        Event::MemberLeft { .. } | Event::MemberRemoved { .. } => {
            state.member_count = state.member_count.saturating_sub(1);
        }
        Event::RoleChanged { uid, role: Role::Owner } => state.owner = Some(uid.clone()),
        Event::HoldPlaced { hold } if !state.holds.contains(hold) => state.holds.push(hold.clone()),
        Event::HoldLifted { hold } => state.holds.retain(|name| name != hold),
        _ => {}
    }
}

/// Whether the row of the state changes with this event.
pub(crate) fn changes_state(event: &Event) -> bool {
    matches!(
        event,
        Event::FeedCreated { .. }
            | Event::FeedChanged { .. }
            | Event::MemberJoined { .. }
            | Event::MemberLeft { .. }
            | Event::MemberRemoved { .. }
            | Event::RoleChanged { role: Role::Owner, .. }
            | Event::HoldPlaced { .. }
            | Event::HoldLifted { .. }
    )
}

#[cfg(test)]
mod tests;
