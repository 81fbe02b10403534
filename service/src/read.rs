//! Reads: each authorized on the durable rows of the moment, then answered from durable rows and entries alone.
//!
//! Everything here blocks; [`crate::Gate`] runs it on threads made for that.

mod engine;
mod standing;

use std::sync::Arc;

use feedlog_core::command::Principal;
use feedlog_core::event::{FeedKind, Scope};
use feedlog_core::feed::Settings;
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId, Uid};
use feedlog_core::limits::PAGE_ENTRIES_MAX;
use feedlog_core::policy::{Denied, ReadScope, may_read};
use feedlog_core::read::{self, Reader, Shown};
use feedlog_core::rows::{DedupScope, FeedState, Member, RowKey, RowValue};
use feedlog_storage::{Direction, Engine, RowRange};

use crate::clock::Clock;
use crate::error::ReadError;
use crate::views::*;
pub(crate) use engine::{EngineReader, Scan};

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

    /// Whether the feed does not exist and could become one that the principal may read: an open feed, or its own
    /// personal one.
    pub(crate) fn may_come(&self, feed: &FeedId) -> Result<bool, ReadError> {
        let principal = &self.principal;
        let acts = principal.scopes.user || principal.scopes.send_as;
        let fits = match feed.is_reserved() {
            true => acts && !principal.anonymous && feed.is_personal_of(&principal.uid),
            false if principal.anonymous => self.settings.anonymous_open_feeds,
            false => acts,
        };
        Ok(fits && self.reader().row(&RowKey::Feed(feed.clone()))?.is_none())
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

    /// The message that used an id; in [`Scope::Sender`] it is the caller's own. `NotFound` when there is none, or it is
    /// gone for this reader.
    pub fn message_of(&self, feed: &FeedId, scope: &Scope, id: &ClientMsgId) -> Result<View, ReadError> {
        self.contents(feed)?;
        let scope = DedupScope::of(scope, &self.principal.uid);
        let row = self.reader().row(&RowKey::Dedup(feed.clone(), scope, id.clone()))?;
        self.entry(feed, row.and_then(RowValue::into_seq).ok_or(ReadError::NotFound)?)
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
}
