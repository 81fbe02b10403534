//! The store as one principal may use it: the only thing that front ends hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use feedlog_core::command::{Command, Principal};
use feedlog_core::event::Scope;
use feedlog_core::ids::{ClientMsgId, FeedId, SeqId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::answers::Answers;
use crate::append::Receipt;
use crate::clock::Moment;
use crate::error::{ReadError, SubmitError};
use crate::mailbox::{Asked, Mailbox, Reply};
use crate::metrics;
use crate::read::Reads;
use crate::shelf::ShelfWrite;
use crate::subscribe::{AttachLimits, Attachment, Hub, Waiter};
use crate::views::*;
use crate::{Blocking, Store};

/// The store as one principal may use it. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub(crate) store: Store,
    pub(crate) principal: Arc<Principal>,
}

/// Longest time that a read may wait for something new.
pub const WAIT_MS_MAX: u64 = 60_000;

impl Gate {
    /// Whose gate it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The same reads, blocking: for threads of one's own.
    pub fn reads(&self) -> Reads {
        Reads {
            engine: self.store.0.engine.clone(),
            principal: self.principal.clone(),
            settings: self.store.0.settings,
            clock: self.store.0.clock.clone(),
        }
    }

    /// Authorizes, decides, appends and waits for the sync. **On `Ok` it is durable.**
    pub async fn submit(&self, command: Command) -> Result<Receipt, SubmitError> {
        self.submit_with(command, Vec::new()).await
    }

    /// As [`Gate::submit`], with rows of the front end that are written in the same batch as the entries of the command:
    /// both or neither. A command that appends nothing (refused, or done before) writes no rows.
    pub async fn submit_with(&self, command: Command, rows: Vec<ShelfWrite>) -> Result<Receipt, SubmitError> {
        // Only a shard that died drops a command unanswered.
        self.hand_over(command, rows).await?.await.unwrap_or(Err(SubmitError::Unknown))
    }

    /// As [`Gate::submit_with`], but returns once the command is handed over; its answer comes through `answers`, in
    /// order. On `Err` nothing was handed over and no answer comes. Dropped before it returns: likewise.
    pub async fn submit_into(
        &self,
        command: Command,
        rows: Vec<ShelfWrite>,
        answers: &Answers,
    ) -> Result<(), SubmitError> {
        let (mailbox, permit) = self.room(&command, &rows).await?;
        let reply = Reply::queued(answers.ticket(), permit);
        mailbox.hand_over(Asked { principal: self.principal.clone(), command, rows, reply })
    }

    /// Many commands, in order; an answer for each. All are handed over before the first is waited for.
    pub async fn submit_all(&self, commands: Vec<Command>) -> Vec<Result<Receipt, SubmitError>> {
        Self::submit_each(commands.into_iter().map(|command| (self.clone(), command)).collect()).await
    }

    /// As [`Gate::submit_all`], each command through its own gate: a service hands in messages of many users.
    pub async fn submit_each(commands: Vec<(Self, Command)>) -> Vec<Result<Receipt, SubmitError>> {
        let mut waiting = Vec::with_capacity(commands.len());
        for (gate, command) in commands {
            waiting.push(gate.hand_over(command, Vec::new()).await);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(match answer {
                Ok(answer) => answer.await.unwrap_or(Err(SubmitError::Unknown)),
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn hand_over(
        &self,
        command: Command,
        rows: Vec<ShelfWrite>,
    ) -> Result<oneshot::Receiver<Result<Receipt, SubmitError>>, SubmitError> {
        let (mailbox, permit) = self.room(&command, &rows).await?;
        let (reply, answer) = Reply::one(Some(permit));
        mailbox.hand_over(Asked { principal: self.principal.clone(), command, rows, reply })?;
        Ok(answer)
    }

    /// The mailbox of the command's feed, and room in it.
    async fn room(
        &self,
        command: &Command,
        rows: &[ShelfWrite],
    ) -> Result<(&Mailbox, OwnedSemaphorePermit), SubmitError> {
        let inner = &*self.store.0;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(SubmitError::Unavailable("closing"));
        }
        if inner.appender.health().poisoned.load(Ordering::Relaxed) {
            return Err(SubmitError::Unavailable("an earlier sync failed"));
        }
        let mailbox = inner.shard(&command.feed);
        let permit = mailbox.room(command, rows, inner.submit_wait, &inner.counters).await?;
        Ok((mailbox, permit))
    }

    async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Reads) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let reads = self.reads();
        let began = Moment::now();
        let answer = self.store.0.blocking.run(move || read(&reads)).await;
        ::metrics::histogram!(metrics::READ_SECONDS, "what" => what).record(began.elapsed().as_secs_f64());
        answer
    }

    /// A page of history; with `wait_ms` > 0 and nothing after the place asked for, waits that long for something.
    pub async fn history(
        &self,
        feed: &FeedId,
        query: HistoryQuery,
        limit: usize,
        wait_ms: u64,
    ) -> Result<Page, ReadError> {
        let page = self.history_now(feed, query, limit).await?;
        if wait_ms == 0 || !matches!(query, HistoryQuery::After(_)) || !is_empty(&page) {
            return Ok(page);
        }
        let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
        let began = Moment::now();
        let waiter = Waiter::new(self.store.0.hub.clone(), feed.clone(), &self.principal.uid);
        loop {
            // Read again after registering: nothing that came in between is missed.
            let page = self.history_now(feed, query, limit).await?;
            if !is_empty(&page) {
                return Ok(page);
            }
            match tokio::time::timeout(began.left(wait), waiter.rung()).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Ok(page),
            }
        }
    }

    async fn history_now(&self, feed: &FeedId, query: HistoryQuery, limit: usize) -> Result<Page, ReadError> {
        let feed = feed.clone();
        self.read("history", move |reads| reads.history(&feed, query, limit)).await
    }

    /// One entry. `NotFound` when there is none, or it is gone for this reader.
    pub async fn entry(&self, feed: &FeedId, seq: SeqId) -> Result<View, ReadError> {
        let feed = feed.clone();
        self.read("entry", move |reads| reads.entry(&feed, seq)).await
    }

    /// The message that used an id; in [`Scope::Sender`] it is the caller's own. `NotFound` when there is none, or it is
    /// gone for this reader.
    pub async fn message_of(&self, feed: &FeedId, scope: Scope, id: ClientMsgId) -> Result<View, ReadError> {
        let feed = feed.clone();
        self.read("message_of", move |reads| reads.message_of(&feed, &scope, &id)).await
    }

    /// Replay, then live, without a hole.
    pub async fn attach(&self, to: AttachTo) -> Result<Attachment, ReadError> {
        let (hub, blocking, limits) = self.attaching()?;
        self.read("attach", move |reads| Attachment::open(hub, Arc::new(reads.clone()), blocking, limits, to))
            .await
    }

    /// An attachment that follows nothing yet: feeds, patterns and the caller's own feeds are added to it. With `resume` it
    /// goes on where another one was.
    pub async fn follow(&self, resume: Option<Resume>) -> Result<Attachment, ReadError> {
        let (hub, blocking, limits) = self.attaching()?;
        Attachment::resume(hub, Arc::new(self.reads()), blocking, limits, resume)
    }

    fn attaching(&self) -> Result<(Arc<Hub>, Blocking, AttachLimits), ReadError> {
        let inner = &*self.store.0;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(ReadError::Unavailable("closing"));
        }
        Ok((inner.hub.clone(), inner.blocking.clone(), inner.attach_limits))
    }

    /// One feed.
    pub async fn feed(&self, feed: &FeedId) -> Result<FeedInfo, ReadError> {
        let feed = feed.clone();
        self.read("feed", move |reads| reads.feed(&feed)).await
    }

    /// The caller's conversation list, most recent first, pinned before others.
    pub async fn conversations(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<Conversation>, ReadError> {
        let cursor = cursor.map(str::to_owned);
        self.read("conversations", move |reads| reads.conversations(cursor.as_deref(), limit)).await
    }

    /// All feeds by name; administrators only.
    pub async fn all_feeds(&self, cursor: Option<&str>, limit: usize) -> Result<Paged<FeedInfo>, ReadError> {
        let cursor = cursor.map(str::to_owned);
        self.read("all_feeds", move |reads| reads.all_feeds(cursor.as_deref(), limit)).await
    }

    /// Members by uid.
    pub async fn members(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<MemberInfo>, ReadError> {
        let (feed, cursor) = (feed.clone(), cursor.map(str::to_owned));
        self.read("members", move |reads| reads.members(&feed, cursor.as_deref(), limit)).await
    }

    /// Pending requests by uid; owner and admins.
    pub async fn requests(
        &self,
        feed: &FeedId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Paged<RequestInfo>, ReadError> {
        let (feed, cursor) = (feed.clone(), cursor.map(str::to_owned));
        self.read("requests", move |reads| reads.requests(&feed, cursor.as_deref(), limit)).await
    }

    /// The caller's marks.
    pub async fn marks(&self, feed: &FeedId) -> Result<Marks, ReadError> {
        let feed = feed.clone();
        self.read("marks", move |reads| reads.marks(&feed)).await
    }

    /// Unread over all feeds of the caller.
    pub async fn unread(&self) -> Result<UnreadTotal, ReadError> {
        self.read("unread", Reads::unread).await
    }

    /// Unread of one feed with its reasons.
    pub async fn unread_of(&self, feed: &FeedId) -> Result<ExplainedUnread, ReadError> {
        let feed = feed.clone();
        self.read("unread_of", move |reads| reads.unread_of(&feed)).await
    }

    /// Who waits for the caller, longest first.
    pub async fn unreplied(&self, limit: usize) -> Result<Vec<Unreplied>, ReadError> {
        self.read("unreplied", move |reads| reads.unreplied(limit)).await
    }

    /// Who has received and read a message.
    pub async fn receipts(
        &self,
        feed: &FeedId,
        seq: SeqId,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Receipts, ReadError> {
        let (feed, cursor) = (feed.clone(), cursor.map(str::to_owned));
        self.read("receipts", move |reads| reads.receipts(&feed, seq, cursor.as_deref(), limit)).await
    }
}

fn is_empty(page: &Page) -> bool {
    page.entries.is_empty() && page.gone.is_empty()
}
