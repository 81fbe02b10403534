//! A call as it is to be made now: from the log, the rows and the attachments of this moment. Blocks.
//!
//! Made anew for every try, so that nothing that was recalled meanwhile leaves (P6), and counts are those of the call.

use std::collections::HashSet;
use std::sync::Arc;

use feedlog_core::command::{Principal, Scopes};
use feedlog_core::entry::Entry;
use feedlog_core::event::{Event, FeedKind};
use feedlog_core::feed::Settings;
use feedlog_core::ids::{ANONYMOUS_PREFIX, FeedId, SeqId, TimeMs, Uid};
use feedlog_core::policy::ReadScope;
use feedlog_core::read::{self, Reader, Shown, Standing};
use feedlog_core::rows::{FeedState, RowKey, RowValue};
use feedlog_storage::{Direction, Engine, RowRange};

use super::call::{Item, To, What, Withdrawal};
use super::plan::{Part, Run};
use super::told::Told;
use super::{Endpoint, OutboxLimits};
use crate::clock::Clock;
use crate::error::ReadError;
use crate::read::{EngineReader, Reads};
use crate::subscribe::Hub;

/// Members that are read together.
const USERS_PAGE: usize = 1000;
/// While it is not known whom an item concerns, so many times the payload bytes of a call are held.
const SPARE: usize = 4;

/// What making a call needs.
pub(super) struct Sources<'a> {
    pub(super) engine: &'a Arc<dyn Engine>,
    pub(super) hub: &'a Hub,
    pub(super) settings: Settings,
    pub(super) clock: &'a Clock,
    pub(super) limits: &'a OutboxLimits,
    pub(super) endpoint: &'a Endpoint,
    pub(super) told: &'a std::sync::Mutex<Told>,
}

/// What there is to tell of a run to a part of those who may be told.
pub(super) struct Prepared {
    pub(super) kind: FeedKind,
    pub(super) items: Vec<Item>,
    /// Empty: no call.
    pub(super) to: Vec<To>,
    /// The part as it was cut.
    pub(super) part: Part,
}

/// An item with what decides for whom it is.
struct Drafted {
    item: Item,
    /// The place whose reader knows of it.
    about: SeqId,
    /// Whoever wrote what it is about.
    author: Option<Uid>,
}

/// A name behind those of all anonymous users and before all others.
fn behind_anonymous() -> Uid {
    Uid::parse(&format!("{ANONYMOUS_PREFIX}{}", char::MAX))
        .expect("INVARIANT: a short text without controls is a uid")
}

impl Sources<'_> {
    /// `part.upto` is `None` for a part that is still to be cut, or that goes to the end: `cut` says which.
    pub(super) fn prepare(&self, run: &Run, part: &Part, cut: bool) -> Result<Prepared, ReadError> {
        let nothing =
            |kind, part: &Part| Prepared { kind, items: Vec::new(), to: Vec::new(), part: part.clone() };
        let whole = Part { after: part.after.clone(), ..Part::default() };
        let reader = EngineReader(&**self.engine);
        let Some(state) = reader.row(&RowKey::Feed(run.feed.clone()))?.and_then(RowValue::into_feed) else {
            return Ok(nothing(FeedKind::Open, &whole));
        };
        let own = self.endpoint.wants(&run.feed) && self.is_of_kind(state.kind);
        let now_ms = self.clock.now_ms();
        let drafted = self.draft(run, own, now_ms)?;
        if drafted.is_empty() {
            // Whatever part comes next, there is nothing either.
            return Ok(nothing(state.kind, &whole));
        }
        let (users, part) = self.users(run, &state, part, cut)?;
        let readers = self.hub.readers(&run.feed, state.kind == FeedKind::Open);
        let mut to = Vec::new();
        let mut wanted = vec![false; drafted.len()];
        for uid in users {
            let Some(mut one) = self.tell(run, &state, &drafted, uid, &readers, now_ms)? else { continue };
            let concerned = one.items.take().unwrap_or_default();
            concerned.iter().for_each(|at| wanted[*at] = true);
            to.push(To { items: Some(concerned), ..one });
        }
        // What concerns nobody does not leave.
        let mut place = vec![0; drafted.len()];
        let mut items = Vec::new();
        for (at, drafted) in drafted.into_iter().enumerate() {
            if wanted[at] {
                place[at] = items.len();
                items.push(drafted.item);
            }
        }
        for one in &mut to {
            let concerned: Vec<usize> =
                one.items.take().unwrap_or_default().into_iter().map(|at| place[at]).collect();
            one.items = (concerned.len() < items.len()).then_some(concerned);
        }
        let mut bytes = 0;
        items.iter_mut().for_each(|item| self.weigh(item, &mut bytes, self.limits.call_bytes_max));
        Ok(Prepared { kind: state.kind, items, to, part })
    }

    /// What the entries of the run are to those who know only the endpoint, in order. `own`: the feed itself is wanted.
    fn draft(&self, run: &Run, own: bool, now_ms: TimeMs) -> Result<Vec<Drafted>, ReadError> {
        let mut drafted = Vec::new();
        let mut bytes = 0;
        let mut next = run.first;
        while next <= run.last {
            let count = usize::try_from(run.last.0 - next.0 + 1).unwrap_or(usize::MAX);
            let entries = self.engine.read(
                &run.feed,
                next,
                run.last,
                Direction::Forward,
                count,
                self.limits.call_bytes_max,
            )?;
            let Some(last) = entries.last() else { break };
            next = last.seq.next();
            for entry in entries {
                let before = drafted.len();
                self.draft_entry(entry, own, now_ms, &mut drafted)?;
                // At once, so that a bounded number of bytes is held.
                let max = self.limits.call_bytes_max.saturating_mul(SPARE);
                drafted[before..].iter_mut().for_each(|one| self.weigh(&mut one.item, &mut bytes, max));
            }
        }
        Ok(drafted)
    }

    fn draft_entry(
        &self,
        entry: Entry,
        own: bool,
        now_ms: TimeMs,
        out: &mut Vec<Drafted>,
    ) -> Result<(), ReadError> {
        if let Event::MarkMoved { feed, read: Some((upto, _)), .. } = &entry.event {
            if self.endpoint.events.reads && self.wants_reads_of(feed)? {
                let what = What::Read { feed: feed.clone(), upto: *upto };
                let item = Item { seq: entry.seq, what };
                out.push(Drafted { item, about: entry.seq, author: None });
            }
            return Ok(());
        }
        if !own {
            return Ok(());
        }
        let reader = EngineReader(&**self.engine);
        let events = self.endpoint.events;
        let seq = entry.seq;
        let withdraw = |target: SeqId, reason: Withdrawal| -> Result<Option<Drafted>, ReadError> {
            let Some(message) = reader.entry(&entry.feed, target)? else { return Ok(None) };
            if !self.is_of_sender(&message.sender) {
                return Ok(None);
            }
            let item = Item { seq, what: What::Withdrawn { target, reason } };
            Ok(Some(Drafted { item, about: target, author: Some(message.sender) }))
        };
        match &entry.event {
            Event::MessageSent(_) if events.messages && self.is_of_sender(&entry.sender) => {
                let everything = ReadScope { first: SeqId(1), contents: true, manages: false };
                let author = Some(entry.sender.clone());
                // INVARIANT: what is recalled, expired or erased by now is in no call (P6).
                if let Shown::View(view) = read::show(&reader, entry, everything, Some(SeqId::ZERO), now_ms)?
                    && view.fate.as_ref().is_none_or(|fate| fate.recalled.is_none())
                {
                    let what = What::Message { entry: Box::new(view.entry), left_out: false };
                    out.push(Drafted { item: Item { seq, what }, about: seq, author });
                }
            }
            Event::Notified { .. } if events.messages && self.is_of_sender(&entry.sender) => {
                let author = Some(entry.sender.clone());
                let what = What::Notified { entry: Box::new(entry), left_out: false };
                out.push(Drafted { item: Item { seq, what }, about: seq, author });
            }
            Event::MessageRecalled { target, .. } if events.withdrawals => {
                out.extend(withdraw(*target, Withdrawal::Recalled)?);
            }
            Event::MessagesExpired { targets } if events.withdrawals => {
                for (target, _) in targets {
                    out.extend(withdraw(*target, Withdrawal::Expired)?);
                }
            }
            Event::MessagesErased { targets, .. } if events.withdrawals => {
                for (target, _) in targets {
                    out.extend(withdraw(*target, Withdrawal::Erased)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_of_kind(&self, kind: FeedKind) -> bool {
        self.endpoint.kinds.is_empty() || self.endpoint.kinds.contains(&kind)
    }

    /// Whether messages of this feed are told.
    fn wants_reads_of(&self, feed: &FeedId) -> Result<bool, ReadError> {
        if !self.endpoint.wants(feed) {
            return Ok(false);
        }
        let state = EngineReader(&**self.engine).row(&RowKey::Feed(feed.clone()))?;
        Ok(state.and_then(RowValue::into_feed).is_some_and(|state| self.is_of_kind(state.kind)))
    }

    fn is_of_sender(&self, sender: &Uid) -> bool {
        let senders = &self.endpoint.senders;
        senders.is_empty() || senders.iter().any(|pattern| pattern.matches(sender.as_str()))
    }

    /// One user's row of the call, with the indexes of all items that concern that user; `None`: none does.
    fn tell(
        &self,
        run: &Run,
        state: &FeedState,
        drafted: &[Drafted],
        uid: Uid,
        readers: &HashSet<Uid>,
        now_ms: TimeMs,
    ) -> Result<Option<To>, ReadError> {
        let is_connected = readers.contains(&uid) || self.hub.follows_own(&uid);
        let only_live = |one: &Drafted| matches!(one.item.what, What::Message { .. } | What::Notified { .. });
        // Most often; no row needs to be read for it.
        if is_connected && drafted.iter().all(only_live) {
            return Ok(None);
        }
        let reads = self.reads_of(&uid);
        let access = match reads.contents(&run.feed) {
            Ok(access) => access,
            Err(ReadError::Denied(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let place = reads.place(&run.feed)?;
        let head = self.engine.head(&run.feed)?;
        let standing =
            Standing { feed: &run.feed, uid: &uid, user_feed: reads.user_feed(&run.feed)?, place, head };
        if state.kind == FeedKind::Open && !standing.counts() {
            return Ok(None);
        }
        let is_muted = place.muted_until_ms > now_ms;
        let mut items = Vec::new();
        for (at, one) in drafted.iter().enumerate() {
            let may_see = one.about >= access.scope.first && one.author.as_ref() != Some(&uid);
            let concerns = match &one.item.what {
                // What counts as unread, and messages of the system.
                What::Message { entry, .. } => !is_connected && !is_muted && entry.ordinal > standing.start(),
                What::Notified { .. } => !is_connected && !is_muted,
                // Also for those who are connected now: it may have been pushed before they were.
                What::Withdrawn { .. } => true,
                What::Read { feed, upto } => self.may_have_told(&uid, feed, *upto)?,
            };
            if may_see && concerns {
                items.push(at);
            }
        }
        if items.is_empty() {
            return Ok(None);
        }
        let unread = reads.unread()?;
        let last_seq = place.received_seq.max(place.read_seq).max(access.scope.first.prev());
        Ok(Some(To {
            uid,
            badge: unread.total,
            badge_unmuted: unread.total_unmuted,
            last_seq,
            items: Some(items),
        }))
    }

    fn may_have_told(&self, uid: &Uid, feed: &FeedId, upto: SeqId) -> Result<bool, ReadError> {
        let state = EngineReader(&**self.engine).row(&RowKey::Feed(feed.clone()))?;
        let Some(state) = state.and_then(RowValue::into_feed) else { return Ok(false) };
        let told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(told.may_have(uid, feed, upto, state.created_ms))
    }

    fn reads_of(&self, uid: &Uid) -> Reads {
        let scopes = Scopes { user: true, ..Scopes::default() };
        Reads {
            engine: self.engine.clone(),
            principal: Arc::new(Principal { uid: uid.clone(), scopes, anonymous: false, via: None }),
            settings: self.settings,
            clock: self.clock.clone(),
        }
    }

    /// Who may be told of a run, by name, and the part that they make up: with `cut` a bounded number of them, else those of
    /// the part as it was cut.
    fn users(
        &self,
        run: &Run,
        state: &FeedState,
        part: &Part,
        cut: bool,
    ) -> Result<(Vec<Uid>, Part), ReadError> {
        let max = self.limits.members_max.max(1);
        // One more tells whether there are more.
        let limit = if cut { max + 1 } else { usize::MAX };
        let (after, upto) = (part.after.as_ref(), part.upto.as_ref());
        let mut users = match state.kind {
            FeedKind::Personal => run.feed.personal_uid().into_iter().collect(),
            FeedKind::Direct | FeedKind::Group => self.members(run, after, upto, limit)?,
            FeedKind::Open => self.visitors(&run.feed, after, upto, limit)?,
        };
        let mut part = part.clone();
        if cut {
            part.more = users.len() > max;
            users.truncate(max);
            part.upto = users.last().cloned();
        }
        Ok((users, part))
    }

    /// Members who were there at the end of the run; for those who came later nothing in it counts.
    fn members(
        &self,
        run: &Run,
        after: Option<&Uid>,
        upto: Option<&Uid>,
        limit: usize,
    ) -> Result<Vec<Uid>, ReadError> {
        let range = RowRange::Members(run.feed.clone());
        let mut after = after.map(|uid| RowKey::Member(run.feed.clone(), uid.clone()));
        let mut users = Vec::new();
        loop {
            let rows = self.engine.rows(&range, Direction::Forward, after.as_ref(), USERS_PAGE)?;
            let is_last = rows.len() < USERS_PAGE;
            after = rows.last().map(|(key, _)| key.clone());
            for row in rows {
                let (RowKey::Member(_, uid), RowValue::Member(member)) = row else { continue };
                if users.len() == limit || upto.is_some_and(|upto| uid > *upto) {
                    return Ok(users);
                }
                if member.joined_seq <= run.last {
                    users.push(uid);
                }
            }
            if is_last {
                return Ok(users);
            }
        }
    }

    /// Users who set a mark in an open feed or have sent there (or were mentioned: that alone does not count, as
    /// [`Sources::tell`] finds).
    fn visitors(
        &self,
        feed: &FeedId,
        after: Option<&Uid>,
        upto: Option<&Uid>,
        limit: usize,
    ) -> Result<Vec<Uid>, ReadError> {
        let (receipts, counts) = (RowRange::Receipts(feed.clone()), RowRange::AllUserCounts(feed.clone()));
        let mut at = after.cloned();
        let mut users = Vec::new();
        while users.len() < limit {
            let marked = at.clone().map(|uid| RowKey::Receipt(feed.clone(), uid));
            let marked = self.engine.rows(&receipts, Direction::Forward, marked.as_ref(), 1)?.pop();
            let sent = at.map(|uid| RowKey::UserCounts(feed.clone(), uid, u64::MAX));
            let sent = self.engine.rows(&counts, Direction::Forward, sent.as_ref(), 1)?.pop();
            let uid = |row: Option<(RowKey, RowValue)>| match row {
                Some((RowKey::Receipt(_, uid) | RowKey::UserCounts(_, uid, _), _)) => Some(uid),
                _ => None,
            };
            let Some(next) = uid(marked).into_iter().chain(uid(sent)).min() else { break };
            if upto.is_some_and(|upto| next > *upto) {
                break;
            }
            if next.is_anonymous() {
                // However many there are, they are told of nothing: on to the first name behind them.
                at = Some(next.max(behind_anonymous()));
                continue;
            }
            at = Some(next.clone());
            users.push(next);
        }
        Ok(users)
    }

    /// Leaves a payload out that the endpoint does not want or that would make the call too large.
    fn weigh(&self, item: &mut Item, bytes: &mut usize, max: usize) {
        let (What::Message { entry, left_out } | What::Notified { entry, left_out }) = &mut item.what else {
            return;
        };
        let size = entry.payload.size();
        if size > 0 && (!self.endpoint.payload || *bytes + size > max) {
            entry.hide();
            *left_out = true;
        } else {
            *bytes += size;
        }
    }
}
