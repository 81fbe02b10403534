//! Reads: each authorized on the durable rows of the moment, then answered from durable rows and entries alone.
//!
//! Everything here blocks; [`crate::Gate`] runs it on threads made for that.

use std::sync::Arc;

use feedlog_core::command::Principal;
use feedlog_core::entry::{Entry, Head};
use feedlog_core::event::FeedKind;
use feedlog_core::feed::Settings;
use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};
use feedlog_core::limits::PAGE_ENTRIES_MAX;
use feedlog_core::policy::{Denied, ReadScope, may_read};
use feedlog_core::read::{self, Reader, Shown, Standing};
use feedlog_core::rows::{
    Counts, Fate, FeedState, Member, Place, Receipt, RowKey, RowValue, RowsError, UserCounts, UserFeed,
};
use feedlog_storage::{Direction, Engine, EngineError, RowRange};

use crate::clock::Clock;
use crate::error::ReadError;
use crate::views::*;

/// An engine as the core reads it.
pub(crate) struct EngineReader<'a>(pub(crate) &'a dyn Engine);

/// Rows that one scan fetches at once.
const SCAN_MAX: usize = 1000;

fn failed(error: EngineError) -> RowsError {
    RowsError(Box::new(error))
}

impl Reader for EngineReader<'_> {
    fn row(&self, key: &RowKey) -> Result<Option<RowValue>, RowsError> {
        self.0.row(key).map_err(failed)
    }

    fn head(&self, feed: &FeedId) -> Result<Head, RowsError> {
        self.0.head(feed).map_err(failed)
    }

    fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<Option<Entry>, RowsError> {
        if seq == SeqId::ZERO {
            return Ok(None);
        }
        let mut entries = self.0.read(feed, seq, seq, Direction::Forward, 1, 0).map_err(failed)?;
        Ok(entries.pop())
    }

    fn entries(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        backward: bool,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, RowsError> {
        self.0.read(feed, from, to, direction(backward), entries_max, bytes_max).map_err(failed)
    }

    fn counts(
        &self,
        feed: &FeedId,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Counts)>, RowsError> {
        // One block is the usual case, and a point read is much cheaper than a scan.
        if from == to {
            let row = self.row(&RowKey::Counts(feed.clone(), from))?.and_then(RowValue::into_counts);
            return Ok(row.map(|row| (from, *row)).into_iter().collect());
        }
        let range = RowRange::Counts(feed.clone(), from, to);
        let rows = self.0.rows(&range, Direction::Forward, None, limit).map_err(failed)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::Counts(_, block), RowValue::Counts(counts)) => Some((block, *counts)),
                _ => None,
            })
            .collect())
    }

    fn user_counts(
        &self,
        feed: &FeedId,
        uid: &Uid,
        from: u64,
        to: u64,
        backward: bool,
        limit: usize,
    ) -> Result<Vec<(u64, UserCounts)>, RowsError> {
        if from == to {
            let key = RowKey::UserCounts(feed.clone(), uid.clone(), from);
            let row = self.row(&key)?.and_then(RowValue::into_user_counts);
            return Ok(row.map(|row| (from, *row)).into_iter().collect());
        }
        let range = RowRange::UserCounts(feed.clone(), uid.clone(), from, to);
        let rows = self.0.rows(&range, direction(backward), None, limit).map_err(failed)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::UserCounts(_, _, block), RowValue::UserCounts(counts)) => Some((block, *counts)),
                _ => None,
            })
            .collect())
    }

    fn fates(
        &self,
        feed: &FeedId,
        from: SeqId,
        to: SeqId,
        limit: usize,
    ) -> Result<Vec<(SeqId, Fate)>, RowsError> {
        let range = RowRange::Fates(feed.clone(), from, to);
        let rows = self.0.rows(&range, Direction::Forward, None, limit).map_err(failed)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::Fate(_, seq), RowValue::Fate(fate)) => Some((seq, *fate)),
                _ => None,
            })
            .collect())
    }
}

fn direction(backward: bool) -> Direction {
    if backward { Direction::Backward } else { Direction::Forward }
}

impl From<RowsError> for ReadError {
    fn from(error: RowsError) -> Self {
        match error.0.downcast_ref::<EngineError>() {
            Some(error) => error.clone().into(),
            None => {
                tracing::error!(%error, "a read failed");
                Self::Damaged
            }
        }
    }
}

impl From<EngineError> for ReadError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Damaged(_) => {
                tracing::error!(%error, "damaged data was not served");
                Self::Damaged
            }
            EngineError::Closed => Self::Unavailable("closing"),
            EngineError::NoSpace => Self::Unavailable("free space is below the reserve"),
            EngineError::Poisoned => Self::Unavailable("an earlier sync failed"),
            error => {
                tracing::error!(%error, "a read failed");
                Self::Unavailable("the engine does not answer")
            }
        }
    }
}

/// The reads of one principal, blocking. [`crate::Gate`] has the same, asynchronous.
#[derive(Clone)]
pub struct Reads {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
}

/// A feed as the principal may see it now.
pub(crate) struct Access {
    pub(crate) state: Arc<FeedState>,
    pub(crate) member: Option<Member>,
    pub(crate) scope: ReadScope,
}

fn limited(limit: usize) -> Result<usize, ReadError> {
    if (1..=PAGE_ENTRIES_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ReadError::BadField { field: "limit", problem: "is not between 1 and 1000" })
}

fn cursor_uid(cursor: Option<&str>) -> Result<Option<Uid>, ReadError> {
    cursor
        .map(|text| {
            Uid::parse(text)
                .map_err(|_| ReadError::BadField { field: "cursor", problem: "is not one of ours" })
        })
        .transpose()
}

/// Cuts a page that was read one row too long, and says where the next one begins.
fn paged<T>(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Paged<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = if more { rows.last().map(cursor) } else { None };
    Paged { rows, next }
}

impl Reads {
    fn reader(&self) -> EngineReader<'_> {
        EngineReader(&*self.engine)
    }

    /// What the principal may have of a feed, by the durable rows of this moment.
    pub(crate) fn access(&self, feed: &FeedId) -> Result<Access, ReadError> {
        let state = self.reader().row(&RowKey::Feed(feed.clone()))?.and_then(RowValue::into_feed);
        let member = match &state {
            Some(state) if matches!(state.kind, FeedKind::Group | FeedKind::Direct) => self
                .reader()
                .row(&RowKey::Member(feed.clone(), self.principal.uid.clone()))?
                .and_then(RowValue::into_member),
            _ => None,
        };
        let scope = may_read(&self.principal, feed, state.as_deref(), member.as_ref(), &self.settings)?;
        // A feed that does not exist has nothing to read, also for those who may know that.
        let state = state.ok_or(Denied::FeedNotFound)?;
        Ok(Access { state, member, scope })
    }

    /// As [`Reads::access`], refused when only title and join mode may be known.
    pub(crate) fn contents(&self, feed: &FeedId) -> Result<Access, ReadError> {
        let access = self.access(feed)?;
        access.scope.contents()?;
        Ok(access)
    }

    /// A page of history.
    pub fn history(&self, feed: &FeedId, query: HistoryQuery, limit: usize) -> Result<Page, ReadError> {
        let limit = limited(limit)?;
        let access = self.contents(feed)?;
        Ok(read::history(&self.reader(), feed, access.scope, query, limit, self.clock.now_ms())?)
    }

    /// One entry. `NotFound` when there is none, or it is gone for this reader.
    pub fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<View, ReadError> {
        let access = self.contents(feed)?;
        if seq < access.scope.first {
            return Err(ReadError::NotFound);
        }
        let entry = self.reader().entry(feed, seq)?.ok_or(ReadError::NotFound)?;
        match read::show(&self.reader(), entry, access.scope, None, self.clock.now_ms())? {
            Shown::View(view) => Ok(*view),
            Shown::Gone(_) => Err(ReadError::NotFound),
        }
    }

    /// One feed.
    pub fn feed(&self, feed: &FeedId) -> Result<FeedInfo, ReadError> {
        let access = self.access(feed)?;
        self.info(feed, &access)
    }

    fn info(&self, feed: &FeedId, access: &Access) -> Result<FeedInfo, ReadError> {
        let state = &access.state;
        let whole = access.scope.contents;
        Ok(FeedInfo {
            feed: feed.clone(),
            kind: state.kind,
            title: state.title.clone(),
            join: state.join,
            history: state.history,
            meta: if whole { state.meta.clone() } else { None },
            role: access.member.map(|member| member.role),
            head: if whole { self.engine.head(feed)?.seq } else { SeqId::ZERO },
            member_count: if whole { state.member_count } else { 0 },
            created_ms: if whole { state.created_ms } else { 0 },
            pair: if whole { state.pair.clone() } else { None },
        })
    }

    /// All feeds by name; administrators only.
    pub fn all_feeds(&self, cursor: Option<&str>, limit: usize) -> Result<Paged<FeedInfo>, ReadError> {
        let limit = limited(limit)?;
        if !self.principal.scopes.admin {
            return Err(Denied::Forbidden.into());
        }
        let after = cursor
            .map(|text| {
                FeedId::parse(text)
                    .map_err(|_| ReadError::BadField { field: "cursor", problem: "is not one of ours" })
            })
            .transpose()?;
        let mut rows = Vec::new();
        for feed in self.engine.feeds(after.as_ref(), limit + 1)? {
            let Some(state) = self.reader().row(&RowKey::Feed(feed.clone()))?.and_then(RowValue::into_feed)
            else {
                continue;
            };
            let scope = ReadScope { first: SeqId(1), contents: true, manages: true };
            rows.push(self.info(&feed, &Access { state, member: None, scope })?);
        }
        Ok(paged(rows, limit, |info| info.feed.as_str().to_owned()))
    }

    /// Members by uid.
    pub fn members(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<MemberInfo>, ReadError> {
        let limit = limited(limit)?;
        self.contents(feed)?;
        let after = cursor_uid(cursor)?.map(|uid| RowKey::Member(feed.clone(), uid));
        let rows = self.engine.rows(
            &RowRange::Members(feed.clone()),
            Direction::Forward,
            after.as_ref(),
            limit + 1,
        )?;
        let rows = rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::Member(_, uid), RowValue::Member(member)) => Some(MemberInfo {
                    uid,
                    role: member.role,
                    joined_seq: member.joined_seq,
                    joined_ms: member.joined_ms,
                }),
                _ => None,
            })
            .collect();
        Ok(paged(rows, limit, |member| member.uid.as_str().to_owned()))
    }

    /// Pending requests by uid; owner and admins.
    pub fn requests(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<RequestInfo>, ReadError> {
        let limit = limited(limit)?;
        if !self.access(feed)?.scope.manages {
            return Err(Denied::Forbidden.into());
        }
        let after = cursor_uid(cursor)?.map(|uid| RowKey::Request(feed.clone(), uid));
        let rows = self.engine.rows(
            &RowRange::Requests(feed.clone()),
            Direction::Forward,
            after.as_ref(),
            limit + 1,
        )?;
        let rows = rows
            .into_iter()
            .filter_map(|row| match row {
                (RowKey::Request(_, uid), RowValue::Request(request)) => Some(RequestInfo {
                    uid,
                    seq: request.seq,
                    time_ms: request.time_ms,
                    reason: request.reason,
                }),
                _ => None,
            })
            .collect();
        Ok(paged(rows, limit, |request| request.uid.as_str().to_owned()))
    }

    fn place(&self, feed: &FeedId) -> Result<Place, ReadError> {
        let key = RowKey::Place(self.principal.uid.clone(), feed.clone());
        Ok(self.reader().row(&key)?.and_then(RowValue::into_place).unwrap_or_default())
    }

    /// The caller's marks.
    pub fn marks(&self, feed: &FeedId) -> Result<Marks, ReadError> {
        self.contents(feed)?;
        let place = self.place(feed)?;
        Ok(Marks { read_seq: place.read_seq, received_seq: place.received_seq })
    }

    /// Calls `each` for every feed that counts for the caller, by name: those the caller belongs to, and open feeds
    /// where the caller has a mark.
    pub(crate) fn each_feed(
        &self,
        mut each: impl FnMut(FeedId, Option<UserFeed>, Place) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let uid = &self.principal.uid;
        let mut feeds = Scan::new(&*self.engine, RowRange::UserFeeds(uid.clone()));
        let mut places = Scan::new(&*self.engine, RowRange::Places(uid.clone()));
        let (mut feed, mut place) = (feeds.next()?, places.next()?);
        loop {
            let feed_name = feed.as_ref().and_then(|(key, _)| name_of(key));
            let place_name = place.as_ref().and_then(|(key, _)| name_of(key));
            let order = match (feed_name, place_name) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(feed), Some(place)) => feed.cmp(place),
            };
            let mut user_feed = None;
            let mut marks = None;
            let mut name = None;
            if order.is_le()
                && let Some((RowKey::UserFeed(_, feed_id), RowValue::UserFeed(row))) = feed.take()
            {
                user_feed = Some(row);
                name = Some(feed_id);
                feed = feeds.next()?;
            }
            if order.is_ge()
                && let Some((RowKey::Place(_, feed_id), RowValue::Place(row))) = place.take()
            {
                marks = Some(row);
                name = Some(feed_id);
                place = places.next()?;
            }
            let Some(name) = name else { return Err(ReadError::Damaged) };
            // A place outlives the membership; it alone counts in open feeds only.
            if user_feed.is_none() && !self.is_open(&name)? {
                continue;
            }
            each(name, user_feed, marks.unwrap_or_default())?;
        }
    }

    fn is_open(&self, feed: &FeedId) -> Result<bool, ReadError> {
        if feed.is_reserved() {
            return Ok(false);
        }
        let state = self.reader().row(&RowKey::Feed(feed.clone()))?.and_then(RowValue::into_feed);
        Ok(state.is_some_and(|state| state.kind == FeedKind::Open))
    }

    /// Unread over all feeds of the caller.
    pub fn unread(&self) -> Result<UnreadTotal, ReadError> {
        let now_ms = self.clock.now_ms();
        let mut total = UnreadTotal { total: 0, total_unmuted: 0, mentions: 0, feeds: Vec::new() };
        self.each_feed(|feed, user_feed, place| {
            let head = self.engine.head(&feed)?;
            let standing = Standing { feed: &feed, uid: &self.principal.uid, user_feed, place, head };
            if !standing.counts() {
                return Ok(());
            }
            let count = read::unread(&self.reader(), &standing)?;
            let muted = place.muted_until_ms > now_ms;
            total.total += count.unread;
            total.mentions += count.mentions;
            if !muted {
                total.total_unmuted += count.unread;
            }
            if count.unread > 0 {
                total.feeds.push(Unread {
                    read_seq: place.read_seq,
                    unread: count.unread,
                    mentions: count.mentions,
                    muted,
                    feed,
                });
            }
            Ok(())
        })?;
        Ok(total)
    }

    /// Unread of one feed with its reasons.
    pub fn unread_of(&self, feed: &FeedId) -> Result<ExplainedUnread, ReadError> {
        self.contents(feed)?;
        let place = self.place(feed)?;
        let standing = Standing {
            feed,
            uid: &self.principal.uid,
            user_feed: self.user_feed(feed)?,
            place,
            head: self.engine.head(feed)?,
        };
        let muted = place.muted_until_ms > self.clock.now_ms();
        Ok(read::explain(&self.reader(), &standing, muted)?)
    }

    fn user_feed(&self, feed: &FeedId) -> Result<Option<UserFeed>, ReadError> {
        let key = RowKey::UserFeed(self.principal.uid.clone(), feed.clone());
        Ok(self.reader().row(&key)?.and_then(RowValue::into_user_feed))
    }

    /// Who waits for the caller, longest first.
    pub fn unreplied(&self, limit: usize) -> Result<Vec<Unreplied>, ReadError> {
        let limit = limited(limit)?;
        let mut rows = Vec::new();
        self.each_feed(|feed, user_feed, place| {
            if let Some(owed) = self.owed(&feed, user_feed, place)? {
                rows.push(Unreplied {
                    feed,
                    seq: owed.seq,
                    from: owed.from,
                    waiting_since_ms: owed.waiting_since_ms,
                    count: owed.count,
                });
            }
            Ok(())
        })?;
        rows.sort_by(|a, b| (a.waiting_since_ms, &a.feed).cmp(&(b.waiting_since_ms, &b.feed)));
        rows.truncate(limit);
        Ok(rows)
    }

    fn owed(
        &self,
        feed: &FeedId,
        user_feed: Option<UserFeed>,
        place: Place,
    ) -> Result<Option<read::Owed>, ReadError> {
        // Only direct feeds and groups ask.
        if !user_feed.is_some_and(|row| matches!(row.kind, FeedKind::Direct | FeedKind::Group)) {
            return Ok(None);
        }
        let head = self.engine.head(feed)?;
        let standing = Standing { feed, uid: &self.principal.uid, user_feed, place, head };
        Ok(read::unreplied(&self.reader(), &standing)?)
    }

    /// The caller's conversation list, most recent first, pinned before others.
    pub fn conversations(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<Conversation>, ReadError> {
        let limit = limited(limit)?;
        let after = cursor.map(Activity::parse).transpose()?;
        let mut feeds = Vec::new();
        self.each_feed(|feed, user_feed, place| {
            let head = self.engine.head(&feed)?;
            let activity = Activity { pinned: place.pinned, active_ms: head.time_ms, feed };
            if after.as_ref().is_none_or(|after| activity.key() > after.key()) {
                feeds.push((activity, user_feed, place, head));
            }
            Ok(())
        })?;
        feeds.sort_by(|a, b| a.0.key().cmp(&b.0.key()));
        let more = feeds.len() > limit;
        feeds.truncate(limit);
        let next = if more { feeds.last().map(|(activity, ..)| activity.text()) } else { None };
        let mut rows = Vec::with_capacity(feeds.len());
        for (activity, user_feed, place, head) in feeds {
            // The list was read before this row: whoever was removed meanwhile does not see it any more.
            let access = match self.contents(&activity.feed) {
                Ok(access) => access,
                Err(ReadError::Denied(_)) => continue,
                Err(error) => return Err(error),
            };
            rows.push(self.conversation(&activity.feed, &access, user_feed, place, head)?);
        }
        Ok(Paged { rows, next })
    }

    fn conversation(
        &self,
        feed: &FeedId,
        access: &Access,
        user_feed: Option<UserFeed>,
        place: Place,
        head: Head,
    ) -> Result<Conversation, ReadError> {
        let standing = Standing { feed, uid: &self.principal.uid, user_feed, place, head };
        let count = read::unread(&self.reader(), &standing)?;
        Ok(Conversation {
            info: self.info(feed, access)?,
            read_seq: place.read_seq,
            unread: count.unread,
            mentions: count.mentions,
            unreplied: self.owed(feed, user_feed, place)?.map_or(0, |owed| owed.count),
            pinned: place.pinned,
            muted_until_ms: place.muted_until_ms,
            last: self.newest_message(feed, access, head)?,
            active_ms: head.time_ms,
        })
    }

    fn newest_message(&self, feed: &FeedId, access: &Access, head: Head) -> Result<Option<View>, ReadError> {
        let now_ms = self.clock.now_ms();
        // Most often the head itself is the newest message.
        if let Some(entry) = self.reader().entry(feed, head.seq)?
            && entry.event.is_message()
            && entry.seq >= access.scope.first
            && let Shown::View(view) = read::show(&self.reader(), entry, access.scope, None, now_ms)?
        {
            return Ok(Some(*view));
        }
        for back in [1, 64] {
            let query = HistoryQuery::Position(-back);
            let page = read::history(
                &self.reader(),
                feed,
                access.scope,
                query,
                back.unsigned_abs() as usize,
                now_ms,
            )?;
            let newest = page.entries.into_iter().rev().find(|view| view.entry.event.is_message());
            if newest.is_some() {
                return Ok(newest);
            }
        }
        Ok(None)
    }

    /// Who has received and read a message.
    pub fn receipts(
        &self,
        feed: &FeedId,
        seq: SeqId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Receipts, ReadError> {
        let limit = limited(limit)?;
        let access = self.contents(feed)?;
        let after = cursor_uid(cursor)?;
        let message = self
            .reader()
            .entry(feed, seq)?
            .filter(|entry| entry.event.is_message() && entry.seq >= access.scope.first)
            .ok_or(ReadError::NotFound)?;
        let mut answer = Receipts { delivered: 0, read: 0, members: Vec::new(), next: None };
        let mut rows = Vec::new();
        self.each_receipt(feed, access.state.kind, |uid, receipt| {
            if uid == message.sender {
                return;
            }
            let received = (receipt.received_seq >= seq).then_some(receipt.received_ms);
            let read = (receipt.read_seq >= seq).then_some(receipt.read_ms);
            answer.delivered += u64::from(received.is_some() || read.is_some());
            answer.read += u64::from(read.is_some());
            if rows.len() <= limit && after.as_ref().is_none_or(|after| uid > *after) {
                // What was read was received, at the latest then.
                rows.push(ReceiptRow { uid, received_ms: received.or(read), read_ms: read });
            }
        })?;
        let page = paged(rows, limit, |row| row.uid.as_str().to_owned());
        answer.members = page.rows;
        answer.next = page.next;
        Ok(answer)
    }

    /// Calls `each` with every user who could have received messages of the feed, by uid.
    fn each_receipt(
        &self,
        feed: &FeedId,
        kind: FeedKind,
        mut each: impl FnMut(Uid, Receipt),
    ) -> Result<(), ReadError> {
        let mut receipts = Scan::new(&*self.engine, RowRange::Receipts(feed.clone()));
        if !matches!(kind, FeedKind::Direct | FeedKind::Group) {
            while let Some(row) = receipts.next()? {
                if let (RowKey::Receipt(_, uid), RowValue::Receipt(receipt)) = row {
                    each(uid, receipt);
                }
            }
            return Ok(());
        }
        let mut members = Scan::new(&*self.engine, RowRange::Members(feed.clone()));
        let mut receipt = receipts.next()?;
        while let Some(row) = members.next()? {
            let (RowKey::Member(_, uid), RowValue::Member(_)) = row else { continue };
            let mut found = Receipt::default();
            while let Some((RowKey::Receipt(_, of), RowValue::Receipt(value))) = &receipt {
                if *of > uid {
                    break;
                }
                if *of == uid {
                    found = *value;
                }
                receipt = receipts.next()?;
            }
            each(uid, found);
        }
        Ok(())
    }
}

fn name_of(key: &RowKey) -> Option<&FeedId> {
    match key {
        RowKey::UserFeed(_, feed) | RowKey::Place(_, feed) => Some(feed),
        _ => None,
    }
}

/// All rows of a range, fetched in pages.
pub(crate) struct Scan<'a> {
    engine: &'a dyn Engine,
    range: RowRange,
    page: std::vec::IntoIter<(RowKey, RowValue)>,
    after: Option<RowKey>,
    ended: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(engine: &'a dyn Engine, range: RowRange) -> Self {
        Self { engine, range, page: Vec::new().into_iter(), after: None, ended: false }
    }

    pub(crate) fn next(&mut self) -> Result<Option<(RowKey, RowValue)>, EngineError> {
        if self.page.as_slice().is_empty() && !self.ended {
            let page = self.engine.rows(&self.range, Direction::Forward, self.after.as_ref(), SCAN_MAX)?;
            self.ended = page.len() < SCAN_MAX;
            self.after = page.last().map(|(key, _)| key.clone());
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }
}

/// The place of a conversation in the list: pinned first, then the most recent.
struct Activity {
    pinned: bool,
    active_ms: TimeMs,
    feed: FeedId,
}

impl Activity {
    fn key(&self) -> (bool, std::cmp::Reverse<TimeMs>, &FeedId) {
        (!self.pinned, std::cmp::Reverse(self.active_ms), &self.feed)
    }

    fn text(&self) -> String {
        format!("{}.{}.{}", u8::from(self.pinned), self.active_ms, self.feed)
    }

    fn parse(text: &str) -> Result<Self, ReadError> {
        let bad = ReadError::BadField { field: "cursor", problem: "is not one of ours" };
        let mut parts = text.splitn(3, '.');
        let (Some(pinned), Some(active_ms), Some(feed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad);
        };
        match (pinned, active_ms.parse(), FeedId::parse(feed)) {
            ("0" | "1", Ok(active_ms), Ok(feed)) => Ok(Self { pinned: pinned == "1", active_ms, feed }),
            _ => Err(bad),
        }
    }
}
