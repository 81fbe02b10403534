//! Rules of personal feeds: marks, resolving, own settings, notifications.

use std::sync::Arc;

use bytes::Bytes;

use crate::entry::Payload;
use crate::event::{Event, FeedKind, HistoryMode, JoinMode};
use crate::feed::{Case, Decision, NewEvent, Other, Plan, Rejected};
use crate::ids::{FeedId, SeqId, TimeMs};

const BEYOND: &str = "is beyond the head";

impl Case<'_> {
    pub(super) fn move_marks(
        &self,
        feed: FeedId,
        read: Option<SeqId>,
        received: Option<SeqId>,
        unread_from: Option<SeqId>,
    ) -> Result<Decision, Rejected> {
        let Other { head, place, read_ordinal, .. } = self.other()?;
        let marks = [("read_seq_id", read), ("received_seq_id", received), ("unread_from", unread_from)];
        for (field, mark) in marks {
            if mark.is_some_and(|mark| mark > head.seq) {
                return Err(Rejected::BadField { field, problem: BEYOND });
            }
        }
        if unread_from.is_some() && read.is_some() {
            return Err(Rejected::BadField { field: "unread_from", problem: "cannot go with read_seq_id" });
        }
        if unread_from == Some(SeqId::ZERO) {
            return Err(Rejected::BadField { field: "unread_from", problem: "must be at least 1" });
        }
        let forward = read.filter(|read| *read > place.read_seq);
        // What is unread already stays so: marking unread never moves the mark forward.
        let back = unread_from.map(SeqId::prev).filter(|to| *to < place.read_seq);
        let moved = forward.or(back).map(|seq| (seq, *read_ordinal));
        let received = received.max(read).filter(|received| *received > place.received_seq);
        if moved.is_none() && received.is_none() {
            return Ok(self.nothing());
        }
        self.own(Event::MarkMoved { feed, read: moved, received })
    }

    pub(super) fn resolve(&self, feed: FeedId, upto: SeqId) -> Result<Decision, Rejected> {
        let other = self.other()?;
        if upto > other.head.seq {
            return Err(Rejected::BadField { field: "seq_id", problem: BEYOND });
        }
        if upto <= other.place.resolved_seq {
            return Ok(self.nothing());
        }
        self.own(Event::UnrepliedResolved { feed, upto })
    }

    pub(super) fn change_settings(
        &self,
        feed: FeedId,
        pinned: Option<bool>,
        muted_until_ms: Option<TimeMs>,
    ) -> Result<Decision, Rejected> {
        let place = self.other()?.place;
        if muted_until_ms.is_some_and(|ms| ms > SeqId::MAX.0) {
            return Err(Rejected::BadField { field: "muted_until_ms", problem: "is too large" });
        }
        let pinned = pinned.filter(|pinned| *pinned != place.pinned);
        let muted = muted_until_ms.filter(|until_ms| *until_ms != place.muted_until_ms);
        let changes = [
            pinned.map(|pinned| Event::FeedPinned { feed: feed.clone(), pinned }),
            muted.map(|until_ms| Event::FeedMuted { feed: feed.clone(), until_ms }),
        ];
        let mut events: Vec<NewEvent> =
            changes.into_iter().flatten().map(|event| self.event(event, Payload::None)).collect();
        if events.is_empty() {
            return Ok(self.nothing());
        }
        if self.state.is_none() {
            events.insert(0, self.personal_created());
        }
        let answer = events.len() - 1;
        Ok(Decision::Append(Plan { events, answer, ..Plan::default() }))
    }

    pub(super) fn notify(&self, content_type: Arc<str>, payload: Bytes) -> Result<Decision, Rejected> {
        self.first_append(Event::Notified { content_type }, Payload::Bytes(payload), None)
    }

    /// The first entry of a personal feed.
    pub(super) fn personal_created(&self) -> NewEvent {
        let event = Event::FeedCreated {
            kind: FeedKind::Personal,
            title: None,
            join: JoinMode::Invite,
            history: HistoryMode::All,
            meta: None,
            pair: None,
        };
        self.event(event, Payload::None)
    }

    fn own(&self, event: Event) -> Result<Decision, Rejected> {
        self.first_append(event, Payload::None, None)
    }

    fn other(&self) -> Result<&Other, Rejected> {
        // `gather` always fetches it for these commands.
        self.context.other.as_ref().ok_or(Rejected::Rule("the feed does not exist"))
    }
}
