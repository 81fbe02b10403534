//! One connection at work: the machine, and all that it asks for.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use feedlog_core::command::{Action, Command};
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_core::policy::Denied;
use feedlog_service::views::Delivery;
use feedlog_service::{Answers, Attachment, Gate, SubmitError};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::acl::Access;
use super::broker::{Asked, Broker, Handle};
use super::machine::{Called, Effect, Machine};
use super::shared::Seat;
use super::wire::{Level, reason};
use crate::driver::{Io, exchange};

/// A connection for which nothing is due is looked at now and then all the same.
const IDLE_LOOK: Duration = Duration::from_secs(3600);
/// Changes of unread counts within this time are told at once.
const UNREAD_WAIT: Duration = Duration::from_millis(100);
/// Shared messages beyond which those that were acknowledged are sorted out.
const SHARED_LOOK: usize = 128;
/// Deliveries and answers that are taken before anything is sent.
const ROUND_MAX: usize = 256;
/// What was written when the connection ends may take so long to leave.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Where a connection came from.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    /// The peer.
    pub(crate) address: IpAddr,
    /// The common name of its certificate, where one was asked for and is good.
    pub(crate) certified: Option<Arc<str>>,
    /// It came to the path of protobuf clients, or to the one whose acknowledgements are longer.
    pub(crate) protobuf: bool,
}

/// A request whose answer comes later, by number; 0 = nobody waits for it.
pub(super) type Work = Pin<Box<dyn Future<Output = (u64, Option<Called>)> + Send>>;

/// See the module.
pub(crate) struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) handle: Arc<Handle>,
    pub(super) origins: Origins,
    pub(super) machine: Machine,
    pub(super) answers: Answers,
    pub(super) works: FuturesUnordered<Work>,
    // Only once they are needed, so that a connection that does nothing is small.
    pub(super) user: Option<Box<User>>,
    pub(super) attachment: Option<Box<Attachment>>,
    /// Places in the groups of shared subscriptions.
    pub(super) seats: Vec<Arc<Seat>>,
    /// What came through them and was not acknowledged when last looked at.
    pub(super) shared: Vec<(FeedId, SeqId, Arc<Seat>)>,
    /// The server closes.
    pub(super) drained: bool,
    due: Due,
}

/// Who a connection belongs to.
pub(super) struct User {
    pub(super) gate: Gate,
    /// What was presented, to be looked at again; `None` when it was a certificate or nothing.
    pub(super) credential: Option<Arc<str>>,
}

/// When what happens now and then is due.
struct Due {
    checkpoint: Option<Instant>,
    recheck: Option<Instant>,
    stalled: Option<Instant>,
    unread: Option<Instant>,
}

/// The time that all deadlines count in: tokio's, so that tests can move it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What came first.
enum Event {
    Io(Io),
    Answer,
    Delivery(Option<Delivery>),
    Work(Option<(u64, Option<Called>)>),
    Asked,
    Time,
    Drain,
}

impl Connection {
    pub(crate) fn new(broker: Arc<Broker>, origins: Origins) -> Self {
        let mut machine = Machine::new(broker.config.clone(), now());
        if origins.protobuf {
            machine.set_long_acks();
        }
        Self {
            machine,
            handle: broker.handle(),
            answers: Answers::new(),
            works: FuturesUnordered::new(),
            user: None,
            attachment: None,
            seats: Vec::new(),
            shared: Vec::new(),
            drained: false,
            due: Due { checkpoint: None, recheck: None, stalled: None, unread: None },
            origins,
            broker,
        }
    }

    /// Serves until the connection ends, then leaves everything as it should be.
    pub(crate) async fn run<S>(mut self, mut stream: S, mut draining: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut input = BytesMut::new();
        let mut timer =
            Box::pin(tokio::time::sleep(Duration::from_millis(self.broker.config.connect_ms_max)));
        // Waited for all the time: registering for them in each round would cost more than the rest of an idle round.
        let handle = self.handle.clone();
        let mut bell = std::pin::pin!(handle.bell.notified());
        let mut drain = std::pin::pin!(async move {
            // Also when nobody is left who could drain.
            let _ = draining.wait_for(|draining| *draining).await;
        });
        while self.machine.ending().is_none() {
            // A packet that ends the connection leaves nothing to wait for.
            if self.advance(&mut input).await || self.machine.ending().is_some() {
                continue;
            }
            self.set(&mut timer);
            let mut event = tokio::select! {
                event = self.wait(&mut stream, &mut input, &mut timer) => event,
                () = bell.as_mut() => {
                    bell.set(handle.bell.notified());
                    Event::Asked
                }
                () = drain.as_mut() => Event::Drain,
            };
            if matches!(event, Event::Time)
                && self.machine.wants_bytes()
                && let Some(io) = exchange(&mut stream, self.machine.out(), &mut input, true).now_or_never()
            {
                // What lies in the socket came in time, whatever kept us from reading it.
                event = Event::Io(io);
            }
            self.apply(event).await;
        }
        let Some(ending) = self.machine.ending() else { return };
        tracing::debug!(
            front_end = "mqtt",
            connection = self.handle.connection,
            why = ending.why,
            "a connection ended"
        );
        let rest = self.machine.out();
        let flush = tokio::time::timeout(FLUSH_WAIT, crate::driver::finish(&mut stream, rest));
        let _ = flush.await;
        Box::pin(self.end(ending)).await;
    }

    /// Does what the machine asks for; `true` when it may have more to ask.
    async fn advance(&mut self, input: &mut BytesMut) -> bool {
        self.machine.set_now_ms(self.broker.store.now_ms());
        if let Some(effect) = self.machine.next_effect() {
            match effect {
                // The usual one needs no box.
                Effect::Submit(work) => self.submit(*work).await,
                effect => Box::pin(self.perform(effect)).await,
            }
            return true;
        }
        if let Some(rows) = self.machine.take_rows() {
            match Box::pin(self.broker.shelf.put(rows)).await {
                Ok(()) => self.machine.rows_written(),
                Err(error) => {
                    tracing::warn!(front_end = "mqtt", %error, "a session could not be written");
                    self.machine.rows_failed();
                }
            }
            return true;
        }
        self.machine.acknowledge();
        self.machine.seek_retained();
        self.take_shared();
        let before = input.len();
        self.machine.take(input, now());
        // The first retained messages are looked for before SUBACK leaves, or what the client makes others publish when it
        // has it could be among them.
        before != input.len() || self.machine.has_work()
    }

    async fn submit(&mut self, (command, rows): (Command, Vec<feedlog_service::ShelfWrite>)) {
        let Some(user) = &self.user else { return };
        if self.broker.store.auth().check_principal(user.gate.principal()).is_err() {
            return self.machine.not_handed_over(SubmitError::RateLimited { retry_after_ms: 1000 });
        }
        if self.broker.has_acl() && !self.may(&user.gate, &command.feed, Access::Write).await {
            return self.machine.not_handed_over(Denied::Forbidden.into());
        }
        if let Err(error) = user.gate.submit_into(command, rows, &self.answers).await {
            self.machine.not_handed_over(error);
        }
    }

    async fn wait<S>(&mut self, stream: &mut S, input: &mut BytesMut, timer: &mut Pin<Box<Sleep>>) -> Event
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let reads = self.machine.wants_bytes();
        let delivers = self.machine.wants_delivery();
        let answers = self.answers.pending() > 0;
        let attachment = self.attachment.as_deref_mut().filter(|_| delivers);
        let listens = attachment.is_some();
        tokio::select! {
            io = exchange(stream, self.machine.out(), input, reads) => Event::Io(io),
            () = self.answers.ready(), if answers => Event::Answer,
            delivery = async {
                match attachment {
                    Some(attachment) => attachment.next().await,
                    None => std::future::pending().await,
                }
            }, if listens => Event::Delivery(delivery),
            work = self.works.next(), if !self.works.is_empty() => Event::Work(work),
            () = timer.as_mut() => Event::Time,
        }
    }

    async fn apply(&mut self, event: Event) {
        // It may have waited long: what is delivered now must not live as long as it had to then.
        self.machine.set_now_ms(self.broker.store.now_ms());
        match event {
            Event::Io(Io::Read) => {}
            Event::Io(Io::Wrote) => self.due.stalled = None,
            Event::Io(Io::Closed) => self.machine.lost("the connection was closed"),
            Event::Io(Io::Failed(error)) => {
                tracing::debug!(front_end = "mqtt", %error, "a connection failed");
                self.machine.lost("the connection failed");
            }
            Event::Answer => {
                while let Some(answer) = self.answers.pop() {
                    self.machine.answered(&answer);
                }
            }
            Event::Delivery(delivery) => self.deliveries(delivery).await,
            Event::Work(Some((number, Some(called)))) => self.machine.called(number, called),
            Event::Work(_) => {}
            Event::Asked => {
                if self.handle.asked() == Some(Asked::TakenOver) {
                    // MQTT5 [MQTT-3.1.4-3].
                    self.machine.close(
                        reason::SESSION_TAKEN_OVER,
                        "another connection took the session",
                        true,
                    );
                }
            }
            Event::Time => Box::pin(self.tick()).await,
            Event::Drain => {
                self.drained = true;
                self.machine.close(reason::SERVER_SHUTTING_DOWN, "the server is closing", true);
            }
        }
    }

    /// Hands on a delivery and those that are ready behind it, so that they leave in one write.
    async fn deliveries(&mut self, first: Option<Delivery>) {
        let mut next = first;
        let mut handed_on = 0;
        loop {
            let Some(delivery) = next else {
                // The service is closing, or the log could not be read: the client comes again and goes on.
                let why = "the log could not be followed";
                return self.machine.close(reason::SERVER_BUSY, why, true);
            };
            self.deliver(delivery).await;
            handed_on += 1;
            // Before the next one is taken out: one that is taken out and not handed on would be lost.
            if handed_on == ROUND_MAX || !self.machine.wants_delivery() {
                return;
            }
            let Some(attachment) = &mut self.attachment else { return };
            match attachment.next().now_or_never() {
                Some(ready) => next = ready,
                None => return,
            }
        }
    }

    pub(super) async fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Entry(view) => self.deliver_entry(view).await,
            Delivery::Gone(feed, gone) => self.passed(&feed, gone.to),
            Delivery::CaughtUp(heads) => {
                let commit_no = self.broker.store.commit_no();
                for (feed, head) in heads {
                    if let Some(session) = self.machine.session_mut() {
                        session.outbound.caught_up(&feed, commit_no);
                    }
                    self.machine.caught_up(&feed, head.0);
                }
            }
            Delivery::Ended(feed) => self.machine.feed_ended(&feed),
        }
    }

    /// Messages of shared subscriptions that were given to this member.
    fn take_shared(&mut self) {
        for index in 0..self.seats.len() {
            while self.machine.wants_delivery()
                && let Some(seat) = self.seats.get(index)
                && let Some(view) = seat.take()
            {
                if self.shared.len() >= SHARED_LOOK {
                    let session = self.machine.session();
                    self.shared.retain(|(feed, seq, _)| {
                        session.is_some_and(|session| session.outbound.is_open(feed, *seq))
                    });
                }
                self.shared.push((view.entry.feed.clone(), view.entry.seq, seat.clone()));
                let number = seat.number;
                self.machine.deliver_shared(view, number);
            }
        }
    }

    /// A range of which nothing is shown was passed.
    pub(super) fn passed(&mut self, feed: &FeedId, to: SeqId) {
        let commit_no = self.broker.store.commit_no();
        if let Some(session) = self.machine.session_mut() {
            session.handed_on(feed, to, commit_no);
        }
    }

    /// Whether the machine's next time, or one of our own, comes before the timer's.
    fn set(&mut self, timer: &mut Pin<Box<Sleep>>) {
        let config = &self.broker.config;
        let now = now();
        let after = |ms: u64| now.checked_add(Duration::from_millis(ms));
        if self.machine.out().is_empty() {
            self.due.stalled = None;
        } else if self.due.stalled.is_none() {
            self.due.stalled = after(config.stalled_reader_ms_max);
        }
        if self.machine.has_moved() && self.due.checkpoint.is_none() {
            self.due.checkpoint = after(config.checkpoint_ms);
        }
        if self.machine.wants_place() {
            self.due.checkpoint = Some(now);
        }
        let due = [
            self.machine.deadline(),
            self.due.checkpoint,
            self.due.recheck,
            self.due.stalled,
            self.due.unread,
        ];
        // A timer that has elapsed would fire again at once.
        let next = due.into_iter().flatten().min().unwrap_or(now + IDLE_LOOK);
        let next = tokio::time::Instant::from_std(next);
        // A time that moved away is noticed when the timer comes: setting it for every packet would cost more.
        if timer.is_elapsed() || next < timer.deadline() {
            timer.as_mut().reset(next);
        }
    }

    async fn tick(&mut self) {
        let now = now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(self.machine.deadline()) {
            return self.machine.late();
        }
        if is_due(self.due.stalled) {
            metrics::counter!("feedlog_mqtt_stalled_readers_total").increment(1);
            self.machine.out().clear();
            return self.machine.lost("the client takes no bytes");
        }
        if is_due(self.due.checkpoint) {
            self.due.checkpoint = None;
            self.move_marks();
            self.checkpoint(None).await;
        }
        if is_due(self.due.unread) {
            self.due.unread = None;
            self.push_unread().await;
        }
        if is_due(self.due.recheck) {
            self.set_recheck();
            self.recheck();
        }
    }

    /// Where the user stands may have changed: it is told soon, once for many changes.
    pub(super) fn unread_changed(&mut self) {
        if self.due.unread.is_none() {
            self.due.unread = now().checked_add(UNREAD_WAIT);
        }
    }

    pub(super) fn set_recheck(&mut self) {
        self.due.recheck = now().checked_add(Duration::from_millis(self.broker.config.recheck_ms.max(1)));
    }

    /// A credential that was revoked or has ended closes the connection.
    fn recheck(&mut self) {
        let Some(credential) = self.user.as_ref().and_then(|user| user.credential.clone()) else { return };
        let auth = self.broker.store.auth();
        let known = auth.authenticate(feedlog_service::auth::Credential::Token(&credential));
        if matches!(known, Err(feedlog_service::auth::AuthError::Unauthenticated)) {
            self.machine.close(reason::NOT_AUTHORIZED, "the credential is no longer good", false);
        }
    }

    /// What arrived at a client of feed topics and pushes counts as received (DESIGN §3: acknowledgements move marks).
    pub(super) fn move_marks(&mut self) {
        let commands = self.marks();
        let Some(user) = &self.user else { return };
        for command in commands {
            let gate = user.gate.clone();
            self.works.push(Box::pin(async move {
                // A mark that could not be moved is moved by the next acknowledgement.
                let _ = gate.submit(command).await;
                (0, None)
            }));
        }
    }

    /// What moves them.
    pub(super) fn marks(&mut self) -> Vec<Command> {
        let Some(user) = self.user.as_ref().filter(|user| !user.gate.principal().anonymous) else {
            return Vec::new();
        };
        let personal = FeedId::personal(&user.gate.principal().uid);
        let move_to = |(feed, received)| Command {
            feed: personal.clone(),
            action: Action::MoveMarks { feed, read: None, received: Some(received), unread_from: None },
        };
        self.machine.take_received().into_iter().map(move_to).collect()
    }

    pub(super) fn level(&self) -> Level {
        self.machine.level()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Also when it was cut or panicked: then nothing more is written, but others may have the session and its places.
        for seat in self.seats.drain(..) {
            seat.leave(std::iter::empty());
        }
        if let Some(session) = self.machine.session() {
            self.broker.release(&session.key, &self.handle);
        }
    }
}
