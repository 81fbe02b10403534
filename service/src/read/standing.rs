//! Where people stand: marks, unread, unreplied, conversations, receipts.

use feedlog_core::entry::Head;
use feedlog_core::event::FeedKind;
use feedlog_core::ids::{FeedId, SeqId, TimeMs, Uid};
use feedlog_core::read::{self, Reader, Shown, Standing};
use feedlog_core::rows::{Place, Receipt, RowKey, RowValue, UserFeed};
use feedlog_storage::RowRange;

use super::{Access, Reads, Scan, cursor_uid, limited, paged};
use crate::error::ReadError;
use crate::views::*;

impl Reads {
    pub(crate) fn place(&self, feed: &FeedId) -> Result<Place, ReadError> {
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

    pub(crate) fn user_feed(&self, feed: &FeedId) -> Result<Option<UserFeed>, ReadError> {
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
