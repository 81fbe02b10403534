//! One loop for every protocol over WebSocket: reading, writing, pings, bounds, the drain. What frames mean is said by a
//! [`Talk`].

mod framing;
mod inbox;
mod upgrade;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use feedlog_core::command::{Action, Command};
use feedlog_service::views::Delivery;
use feedlog_service::{Answers, Attachment, Gate, Receipt, ShelfWrite, SubmitError};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, timeout};

use crate::driver::{Io, exchange, finish};
pub(crate) use framing::Frame;
pub use framing::fuzz;
use framing::{Framing, Got};
pub(crate) use inbox::Inbox;
pub(crate) use upgrade::{has_token, is_asked, upgrade};

/// Deliveries, and things told, that are taken before anything is sent.
const ROUND_MAX: usize = 256;
/// What was written when a connection ends may take so long to leave.
const FLUSH_WAIT: Duration = Duration::from_secs(2);
/// So long the peer may take to end its side afterwards, so that what was sent is not lost with a reset.
const LINGER_WAIT: Duration = Duration::from_secs(1);

/// Close codes that we send (RFC 6455 §7.4.1, and its registry).
pub(crate) mod close {
    /// The server is closing, or the peer is not heard of.
    pub(crate) const GOING_AWAY: u16 = 1001;
    /// The peer sends a kind of data that means nothing here.
    pub(crate) const UNSUPPORTED: u16 = 1003;
    /// The peer does what it may not.
    pub(crate) const POLICY: u16 = 1008;
    /// Something failed here; come again.
    pub(crate) const TRY_AGAIN: u16 = 1013;
}

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Largest message of the peer, in bytes.
    pub(crate) message_bytes_max: usize,
    /// Submitted commands that are not answered; then nothing more is read.
    pub(crate) pending_max: usize,
    /// Payload bytes of those; a single larger one still passes.
    pub(crate) pending_bytes_max: usize,
    /// Bytes that wait to leave, beyond which nothing more is taken for the peer.
    pub(crate) out_bytes_max: usize,
    /// Between pings.
    pub(crate) keep_alive: Duration,
    /// Without a byte from the peer.
    pub(crate) idle: Duration,
    /// Without the peer taking a byte of what waits for it.
    pub(crate) stalled: Duration,
    /// For what was submitted when the server drains.
    pub(crate) drain: Duration,
}

/// A protocol over WebSocket. Everything is called from one task, one thing after the other.
pub(crate) trait Talk: Sized + Send + 'static {
    /// What others in this process tell the connection.
    type Told: Send + 'static;
    /// What a work of the connection's own gives back.
    type Done: Send + 'static;

    /// The connection is open.
    fn opened(&mut self, line: &mut Line<Self>) -> impl Future<Output = ()> + Send;

    /// A message of the peer, in order.
    fn frame(&mut self, line: &mut Line<Self>, frame: Frame) -> impl Future<Output = ()> + Send;

    /// What became of the oldest submitted command: on `Ok` it is durable.
    fn answered(&mut self, line: &mut Line<Self>, outcome: Result<Receipt, SubmitError>);

    /// Something of what the attachment follows.
    fn delivered(&mut self, line: &mut Line<Self>, delivery: Delivery) -> impl Future<Output = ()> + Send;

    /// Something that was put into the inbox.
    fn told(&mut self, line: &mut Line<Self>, told: Self::Told) -> impl Future<Output = ()> + Send;

    /// A work is done.
    fn done(&mut self, line: &mut Line<Self>, done: Self::Done) -> impl Future<Output = ()> + Send;

    /// Whether the next message may come; when not, it waits and so do those behind it.
    fn wants_frames(&self) -> bool {
        true
    }

    /// When `tick` is to be called; asked after everything else.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// The time that was asked for has come.
    fn tick(&mut self, _line: &mut Line<Self>) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Called with every ping: whether the credential is still good.
    fn recheck(&mut self, _line: &mut Line<Self>) {}

    /// The connection ended.
    fn ended(self, _line: Line<Self>) -> impl Future<Output = ()> + Send {
        async {}
    }
}

type Work<D> = Pin<Box<dyn Future<Output = D> + Send>>;

/// A connection, as its protocol sees it.
pub(crate) struct Line<T: Talk> {
    framing: Framing,
    /// What the peer follows.
    pub(crate) attachment: Option<Box<Attachment>>,
    answers: Answers,
    /// Payload bytes of what is submitted and not answered.
    pending: VecDeque<usize>,
    pending_bytes: usize,
    // Only once there is one, so that a connection that does nothing is small.
    works: Option<FuturesUnordered<Work<T::Done>>>,
    inbox: Arc<Inbox<T::Told>>,
    ending: bool,
}

impl<T: Talk> Line<T> {
    fn new(message_bytes_max: usize) -> Self {
        Self {
            framing: Framing::new(message_bytes_max),
            attachment: None,
            answers: Answers::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            works: None,
            inbox: Arc::new(Inbox::new()),
            ending: false,
        }
    }

    /// Sends a text frame. INVARIANT: the bytes are UTF-8.
    pub(crate) fn text(&mut self, text: &[u8]) {
        self.framing.text(text);
    }

    /// Sends a binary frame.
    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.framing.binary(bytes);
    }

    /// Closes; what was sent before still leaves, nothing after it does.
    pub(crate) fn close(&mut self, code: u16, why: &'static str) {
        self.framing.close(code, why);
        self.ending = true;
    }

    /// Hands a command over; its outcome comes to [`Talk::answered`]. On `Err` it was not handed over and none comes.
    pub(crate) async fn submit(
        &mut self,
        gate: &Gate,
        command: Command,
        rows: Vec<ShelfWrite>,
    ) -> Result<(), SubmitError> {
        let bytes = match &command.action {
            Action::SendMessage(draft) => draft.payload.len(),
            Action::Broadcast { payload, .. } => payload.len(),
            _ => 0,
        };
        gate.submit_into(command, rows, &self.answers).await?;
        self.pending.push_back(bytes);
        self.pending_bytes += bytes;
        Ok(())
    }

    /// Bytes that wait to leave.
    pub(crate) fn waiting(&mut self) -> usize {
        self.framing.out().len()
    }

    /// Commands whose outcome is still to come.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Has something done beside the connection; what it gives comes to [`Talk::done`]. Dropped with the connection.
    pub(crate) fn work(&mut self, work: impl Future<Output = T::Done> + Send + 'static) {
        self.works.get_or_insert_default().push(Box::pin(work));
    }

    /// Works that are not done.
    pub(crate) fn works(&self) -> usize {
        self.works.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// The way for others to tell this connection something.
    pub(crate) fn inbox(&self) -> Arc<Inbox<T::Told>> {
        self.inbox.clone()
    }

    fn pop_answer(&mut self) -> Option<Result<Receipt, SubmitError>> {
        let outcome = self.answers.pop()?;
        self.pending_bytes -= self.pending.pop_front().unwrap_or(0);
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
        Some(outcome)
    }

    fn takes(&mut self, bounds: &Bounds) -> bool {
        self.framing.out().len() < bounds.out_bytes_max
    }

    fn reads(&mut self, bounds: &Bounds) -> bool {
        self.takes(bounds)
            && self.pending.len() < bounds.pending_max
            && (self.pending_bytes == 0 || self.pending_bytes < bounds.pending_bytes_max)
    }
}

/// What came first.
enum Event<D> {
    Io(Io),
    Answer,
    Delivery(Option<Delivery>),
    Work(D),
    Told,
    Time,
    Drain,
}

/// Serves a connection until it ends.
///
/// Not an `async fn`: that would hold what it is given beside the session that is made of it, for as long as the connection
/// is open.
pub(crate) fn run<S, T>(
    mut stream: S,
    talk: T,
    bounds: Bounds,
    draining: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Talk,
{
    let mut session = Session::new(talk, bounds, draining);
    async move {
        let mut input = BytesMut::new();
        session.serve(&mut stream, &mut input).await;
        drop(input);
        session.line.inbox.close();
        let rest = session.line.framing.out();
        let left = timeout(FLUSH_WAIT, finish(&mut stream, rest)).await;
        if matches!(left, Ok(Ok(()))) {
            let _ = timeout(LINGER_WAIT, linger(&mut stream)).await;
        }
        let Session { talk, line, .. } = session;
        Box::pin(talk.ended(line)).await;
    }
}

/// Reads what still comes, and forgets it: a socket that is closed with bytes unread resets, and the peer may then never
/// see why it was closed.
async fn linger<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut heap = vec![0_u8; 4096];
    while matches!(stream.read(&mut heap).await, Ok(count) if count > 0) {}
}

struct Session<T: Talk> {
    talk: T,
    line: Line<T>,
    bounds: Bounds,
    draining: watch::Receiver<bool>,
    heard: Instant,
    ping: Instant,
    stalled: Option<Instant>,
    /// The server drains: what was submitted is answered until then.
    leaves: Option<Instant>,
}

impl<T: Talk> Session<T> {
    fn new(talk: T, bounds: Bounds, draining: watch::Receiver<bool>) -> Self {
        let now = Instant::now();
        let line = Line::new(bounds.message_bytes_max);
        Self {
            talk,
            line,
            bounds,
            draining,
            heard: now,
            ping: now + bounds.keep_alive,
            stalled: None,
            leaves: None,
        }
    }

    async fn serve<S>(&mut self, stream: &mut S, input: &mut BytesMut)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut timer = Box::pin(tokio::time::sleep_until(self.ping));
        let mut draining = self.draining.clone();
        // Waited for all the time: registering anew in each round would cost more than the rest of an idle round.
        let mut drain = std::pin::pin!(async move {
            // Also when nobody is left who could drain.
            let _ = draining.wait_for(|draining| *draining).await;
        });
        let inbox = self.line.inbox();
        let mut bell = std::pin::pin!(inbox.rung());
        Box::pin(self.talk.opened(&mut self.line)).await;
        while !self.line.ending {
            if self.advance(input).await {
                continue;
            }
            self.set(&mut timer);
            let event = tokio::select! {
                event = self.wait(stream, input, &mut timer) => event,
                () = bell.as_mut() => {
                    bell.set(inbox.rung());
                    Event::Told
                }
                () = drain.as_mut(), if self.leaves.is_none() => Event::Drain,
            };
            if !self.apply(event).await {
                return;
            }
        }
    }

    /// Does what can be done without waiting for anything from outside; `true` when there may be more.
    async fn advance(&mut self, input: &mut BytesMut) -> bool {
        while let Some(outcome) = self.line.pop_answer() {
            self.talk.answered(&mut self.line, outcome);
        }
        for _ in 0..ROUND_MAX {
            if self.line.ending || !self.line.takes(&self.bounds) {
                break;
            }
            let Some(told) = self.line.inbox.take() else { break };
            Box::pin(self.talk.told(&mut self.line, told)).await;
        }
        if self.leaves.is_some() {
            if self.line.pending() == 0 && self.line.works() == 0 {
                self.line.close(close::GOING_AWAY, "the server is closing");
            }
            return false;
        }
        if self.line.ending || !self.reads() {
            return false;
        }
        match self.line.framing.next(input) {
            // In boxes, here and below: what is held while nothing happens does not grow with what can happen.
            Ok(Some(Got::Frame(frame))) => Box::pin(self.talk.frame(&mut self.line, frame)).await,
            Ok(Some(Got::Sign)) => {}
            Ok(Some(Got::Close)) => self.line.ending = true,
            Ok(None) => return false,
            Err(fault) => {
                tracing::debug!(front_end = "websocket", why = fault.why, "a connection is failed");
                self.line.close(fault.code, fault.why);
            }
        }
        true
    }

    fn reads(&mut self) -> bool {
        self.leaves.is_none() && self.talk.wants_frames() && self.line.reads(&self.bounds)
    }

    async fn wait<S>(
        &mut self,
        stream: &mut S,
        input: &mut BytesMut,
        timer: &mut Pin<Box<Sleep>>,
    ) -> Event<T::Done>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let reads = self.reads();
        let takes = self.line.takes(&self.bounds);
        let line = &mut self.line;
        line.inbox.set_slow(!takes);
        let attachment = line.attachment.as_deref_mut().filter(|_| takes);
        let listens = attachment.is_some();
        let works = line.works.as_mut().filter(|works| !works.is_empty());
        let is_working = works.is_some();
        let is_pending = !line.pending.is_empty();
        tokio::select! {
            io = exchange(stream, line.framing.out(), input, reads) => Event::Io(io),
            () = line.answers.ready(), if is_pending => Event::Answer,
            delivery = async {
                match attachment {
                    Some(attachment) => attachment.next().await,
                    None => std::future::pending().await,
                }
            }, if listens => Event::Delivery(delivery),
            Some(done) = async {
                match works {
                    Some(works) => works.next().await,
                    None => std::future::pending().await,
                }
            }, if is_working => Event::Work(done),
            () = timer.as_mut() => Event::Time,
        }
    }

    /// `false` when the connection is gone.
    async fn apply(&mut self, event: Event<T::Done>) -> bool {
        match event {
            Event::Io(Io::Read) => self.heard = Instant::now(),
            Event::Io(Io::Wrote) => self.stalled = None,
            Event::Io(Io::Closed) => return false,
            Event::Io(Io::Failed(error)) => {
                tracing::debug!(front_end = "websocket", %error, "a connection failed");
                return false;
            }
            // Both are looked at in every round.
            Event::Answer | Event::Told => {}
            Event::Delivery(delivery) => self.deliveries(delivery).await,
            Event::Work(done) => Box::pin(self.talk.done(&mut self.line, done)).await,
            Event::Time => self.tick().await,
            Event::Drain => self.leaves = Some(Instant::now() + self.bounds.drain),
        }
        true
    }

    /// Hands on a delivery and those that are ready behind it, so that they leave in one write.
    async fn deliveries(&mut self, first: Option<Delivery>) {
        let mut next = first;
        let mut handed_on = 0;
        loop {
            let Some(delivery) = next else {
                // The service is closing, or the log could not be read: the peer comes again and goes on.
                return if *self.draining.borrow() {
                    self.line.close(close::GOING_AWAY, "the server is closing");
                } else {
                    self.line.close(close::TRY_AGAIN, "the log could not be followed");
                };
            };
            self.talk.delivered(&mut self.line, delivery).await;
            handed_on += 1;
            // Before the next one is taken out: one that is taken out and not handed on would be lost.
            if handed_on == ROUND_MAX || self.line.ending || !self.line.takes(&self.bounds) {
                return;
            }
            let Some(attachment) = &mut self.line.attachment else { return };
            match attachment.next().now_or_never() {
                Some(ready) => next = ready,
                None => return,
            }
        }
    }

    fn set(&mut self, timer: &mut Pin<Box<Sleep>>) {
        if self.line.framing.out().is_empty() {
            self.stalled = None;
        } else if self.stalled.is_none() {
            self.stalled = Some(Instant::now() + self.bounds.stalled);
        }
        let due = [Some(self.ping), self.stalled, self.leaves, self.talk.due()];
        let next = due.into_iter().flatten().min().unwrap_or(self.ping);
        // A time that moved away is noticed when the timer comes: setting it for every frame would cost more.
        if next < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(next);
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        if self.leaves.is_some_and(|leaves| leaves <= now) {
            return self.line.close(close::GOING_AWAY, "the server is closing");
        }
        if self.stalled.is_some_and(|stalled| stalled <= now) {
            metrics::counter!("feedlog_http_stalled_readers_total").increment(1);
            tracing::info!(front_end = "websocket", "closed: its reader takes nothing");
            return self.line.close(close::POLICY, "the reader takes nothing");
        }
        if self.ping <= now {
            if now.duration_since(self.heard) >= self.bounds.idle {
                return self.line.close(close::GOING_AWAY, "nothing was heard for too long");
            }
            self.ping = now + self.bounds.keep_alive;
            self.talk.recheck(&mut self.line);
            self.line.framing.ping();
        }
        if self.talk.due().is_some_and(|due| due <= now) {
            Box::pin(self.talk.tick(&mut self.line)).await;
        }
    }
}

#[cfg(test)]
mod tests;
