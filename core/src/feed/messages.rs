//! Rules of messages: send, edit, recall, react, expire, erase.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{CreateFeed, Draft, RecallTarget};
use crate::entry::{Entry, Payload};
use crate::event::{Event, Message};
use crate::feed::{Case, Decision, Plan, Rejected, Target};
use crate::ids::{Digest, Ordinal, ReactionKey, SeqId};
use crate::limits;
use crate::policy::{first_visible, shares_target};
use crate::rows::Fate;

impl Case<'_> {
    pub(super) fn send(&self, draft: Draft) -> Result<Decision, Rejected> {
        let context = self.context;
        if let Some(original) = &context.original {
            // INVARIANT I-5: one (feed, scope, client_msg_id) makes at most one entry.
            return if is_same_body(&draft, original, context.digest) {
                Ok(self.already(original.seq, original.ordinal, original.time_ms))
            } else {
                Err(Rejected::IdConflict { seq: original.seq })
            };
        }
        let head = context.head.seq;
        if draft.expect_head.is_some_and(|expected| expected != head) {
            return Err(Rejected::HeadMoved { head });
        }
        if draft.mentions.len() > limits::MENTIONS_MAX {
            return Err(Rejected::BadField { field: "mentions", problem: "are too many" });
        }
        if let Some(expires_ms) = draft.expires_ms {
            if expires_ms <= context.now_ms {
                return Err(Rejected::BadField { field: "expires_ms", problem: "is in the past" });
            }
            if expires_ms > SeqId::MAX.0 {
                return Err(Rejected::BadField { field: "expires_ms", problem: "is too large" });
            }
        }
        if draft.sent_ms.is_some_and(|ms| ms > SeqId::MAX.0) {
            return Err(Rejected::BadField { field: "sent_ms", problem: "is too large" });
        }
        if draft.reply_to.is_some() {
            self.target().map_err(|_| Rejected::BadField {
                field: "reply_to",
                problem: "names no message of this feed",
            })?;
        }
        let seen_seq = draft.seen_seq.or(context.received).unwrap_or(head).min(head);
        let message = Event::MessageSent(Message {
            kind: draft.kind,
            content_type: draft.content_type,
            client_msg_id: draft.client_msg_id,
            scope: draft.scope,
            reply_to: draft.reply_to,
            mentions: draft.mentions,
            to_reply: draft.to_reply,
            seen_seq,
            sent_ms: draft.sent_ms,
            expires_ms: draft.expires_ms,
            auto: draft.auto,
            carried: Payload::if_any(draft.carried),
        });
        self.first_append(message, Payload::Bytes(draft.payload), draft.create.as_ref())
    }

    pub(super) fn broadcast(
        &self,
        content_type: Arc<str>,
        payload: Bytes,
        create: Option<CreateFeed>,
    ) -> Result<Decision, Rejected> {
        self.first_append(Event::Broadcast { content_type }, Payload::Bytes(payload), create.as_ref())
    }

    /// Appends an event by the principal; when the feed is absent, FeedCreated goes before it in the same group.
    pub(super) fn first_append(
        &self,
        event: Event,
        payload: Payload,
        create: Option<&CreateFeed>,
    ) -> Result<Decision, Rejected> {
        let mut events = match (self.state, create) {
            (Some(_), _) => Vec::with_capacity(1),
            (None, _) if self.feed.personal_uid().is_some() => vec![self.personal_created()],
            (None, Some(create)) => self.created(create)?,
            // `authorize` lets nothing else through.
            (None, None) => return Err(Rejected::Rule("the feed does not exist")),
        };
        let answer = events.len();
        events.push(self.event(event, payload));
        Ok(Decision::Append(Plan { events, answer, ..Plan::default() }))
    }

    pub(super) fn edit(&self, content_type: Arc<str>, payload: Bytes) -> Result<Decision, Rejected> {
        let Target { entry, fate } = self.target()?;
        if fate.as_ref().is_some_and(|fate| fate.recalled.is_some()) {
            return Err(Rejected::Rule("the message was recalled"));
        }
        if self.age_ms(entry) > self.context.settings.edit_window_ms {
            return Err(Rejected::RecallWindowClosed);
        }
        if fate.as_ref().is_some_and(|fate| fate.earlier_edits.len() + 1 >= limits::EDITS_MAX) {
            return Err(Rejected::Rule("the message was edited too often"));
        }
        let event = Event::MessageEdited { target: entry.seq, content_type };
        let events = vec![self.event(event, Payload::Bytes(payload))];
        Ok(Decision::Append(Plan { events, ..Plan::default() }))
    }

    pub(super) fn recall(
        &self,
        named: &RecallTarget,
        reason: Option<Arc<str>>,
    ) -> Result<Decision, Rejected> {
        let Target { entry, fate } = self.target()?;
        if let Some(recalled) = fate.as_ref().and_then(|fate| fate.recalled.as_ref()) {
            // Its ordinal is not kept; the recall's own entry is what the caller may look up.
            return Ok(self.already(recalled.seq, Ordinal::ZERO, recalled.time_ms));
        }
        let (age_ms, settings) = (self.age_ms(entry), &self.context.settings);
        let own = entry.sender == self.principal.uid && age_ms <= settings.recall_window_ms;
        let shared = self.state.is_some_and(|state| shares_target(state, named))
            && settings.shared_recall_window_ms.is_none_or(|window_ms| age_ms <= window_ms);
        if !own && !shared && !self.recalls_any() {
            return Err(Rejected::RecallWindowClosed);
        }
        Ok(self.append([Event::MessageRecalled { target: entry.seq, target_ordinal: entry.ordinal, reason }]))
    }

    pub(super) fn react(&self, key: ReactionKey, on: bool) -> Result<Decision, Rejected> {
        let Target { entry, fate } = self.target()?;
        match (self.context.reaction, on) {
            // The ordinal and time of that entry are not kept; its place is.
            (Some(seq), true) => return Ok(self.already(seq, Ordinal::ZERO, 0)),
            (None, false) => return Ok(self.nothing()),
            (Some(_), false) | (None, true) => {}
        }
        if let Some(fate) = fate.as_ref().filter(|_| on) {
            if fate.recalled.is_some() {
                return Err(Rejected::Rule("the message was recalled"));
            }
            let known = fate.reactions.iter().any(|(other, _)| *other == key);
            if !known && fate.reactions.len() >= limits::REACTION_KEYS_MAX {
                return Err(Rejected::Rule("the message has too many different reactions"));
            }
        }
        Ok(self.append([Event::ReactionChanged { target: entry.seq, key, on }]))
    }

    pub(super) fn expire(&self, early: bool) -> Result<Decision, Rejected> {
        self.not_held()?;
        let due = |target: &&Target| {
            let Some(message) = target.entry.message() else { return false };
            let gone = target.fate.as_ref().is_some_and(|fate| fate.is_gone());
            !gone && (early || message.expires_ms.is_some_and(|ms| ms <= self.context.now_ms))
        };
        let targets: Vec<&Target> = self.context.targets.iter().filter(due).collect();
        if targets.is_empty() {
            return Ok(self.nothing());
        }
        let event = Event::MessagesExpired { targets: places(&targets) };
        let events = vec![self.event(event, Payload::None)];
        Ok(Decision::Append(Plan { events, strip: payloads(&targets), ..Plan::default() }))
    }

    pub(super) fn erase(&self, reason: Option<Arc<str>>) -> Result<Decision, Rejected> {
        self.not_held()?;
        let messages = || self.context.targets.iter().filter(|target| target.entry.is_message());
        if messages().next().is_none() {
            return Err(Rejected::MessageNotFound);
        }
        let left = |target: &&Target| target.fate.as_ref().is_none_or(|fate| fate.erased.is_none());
        let targets: Vec<&Target> = messages().filter(left).collect();
        if targets.is_empty() {
            return Ok(self.nothing());
        }
        let event = Event::MessagesErased { targets: places(&targets), reason };
        let events = vec![self.event(event, Payload::None)];
        Ok(Decision::Append(Plan { events, strip: payloads(&targets), ..Plan::default() }))
    }

    fn not_held(&self) -> Result<(), Rejected> {
        match self.state {
            Some(state) if !state.holds.is_empty() => Err(Rejected::Rule("the feed is under a legal hold")),
            _ => Ok(()),
        }
    }

    /// The message that the command names, if the caller may see it.
    fn target(&self) -> Result<&Target, Rejected> {
        let first = self.state.map_or(SeqId(1), |state| first_visible(state, self.context));
        let target = self.context.targets.first().filter(|target| target.entry.seq >= first);
        let Some(target) = target else { return Err(Rejected::MessageNotFound) };
        let Some(message) = target.entry.message() else { return Err(Rejected::MessageNotFound) };
        let past = message.expires_ms.is_some_and(|ms| ms <= self.context.now_ms);
        if past || target.fate.as_ref().is_some_and(|fate| fate.is_gone()) {
            return Err(Rejected::MessageNotFound);
        }
        Ok(target)
    }

    fn age_ms(&self, entry: &Entry) -> u64 {
        self.context.now_ms.saturating_sub(entry.time_ms)
    }
}

/// Whether a retry says the same as the entry that used its id. The payload's hash stands in once it was destroyed.
fn is_same_body(draft: &Draft, original: &Entry, digest: Digest) -> bool {
    let Some(message) = original.message() else { return false };
    let payload = match &original.payload {
        Payload::Bytes(bytes) => *bytes == draft.payload,
        Payload::None => draft.payload.is_empty(),
        Payload::Stripped { hash } => *hash == digest(&draft.payload),
    };
    payload
        && message.kind == draft.kind
        && message.content_type == draft.content_type
        && message.reply_to == draft.reply_to
        && message.mentions == draft.mentions
        && message.to_reply == draft.to_reply
        && message.expires_ms == draft.expires_ms
}

fn places(targets: &[&Target]) -> Vec<(SeqId, Ordinal)> {
    targets.iter().map(|target| (target.entry.seq, target.entry.ordinal)).collect()
}

/// The entries that hold payloads of these messages: they and their edits.
fn payloads(targets: &[&Target]) -> Vec<SeqId> {
    let mut strip = Vec::with_capacity(targets.len());
    for target in targets {
        strip.push(target.entry.seq);
        strip.extend(target.fate.iter().flat_map(|fate| fate.edits()));
    }
    strip.sort_unstable();
    strip
}

impl Fate {
    /// Expired or erased: not shown to anybody.
    pub fn is_gone(&self) -> bool {
        self.expired.is_some() || self.erased.is_some()
    }

    /// All edits, ascending.
    pub fn edits(&self) -> impl Iterator<Item = SeqId> + '_ {
        self.earlier_edits.iter().copied().chain(self.edited)
    }
}
