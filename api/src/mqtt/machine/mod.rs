//! One MQTT connection without IO: bytes, answers, deliveries and the time go in; bytes, effects and a deadline come out.
//!
//! `driver.rs` feeds it. Whatever waits for the disk is either in the ring of pending acknowledgements (`inbound.rs`) or
//! held behind rows that are to be written first ([`Machine::take_rows`]).

mod connect;
mod deliver;
pub(crate) mod fuzz;
mod inbound;
pub(crate) mod message;
mod subscribe;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use feedlog_core::command::Command;
use feedlog_core::ids::{FeedId, SeqId};
use feedlog_service::ShelfWrite;

use super::config::MqttConfig;
use super::opening::session_row;
use super::outbound::FlowState;
use super::session::Session;
use super::stored::{self, SessionKey, StoredWill};
use super::wire::{
    Connect, Decoder, Disconnect, Level, Packet, PacketId, PropertyWriter, Qos, Role, Subscribe, Text,
    Unsubscribe, WireError, encode, reason,
};

pub(crate) use connect::{Accepted, ConnectRefusal};
pub(crate) use deliver::{Outgoing, Retained};
pub(crate) use inbound::{Called, Verdict};
pub(crate) use subscribe::{Granted, Sought, Unsubscribed, target};

/// How long a time-out is put off while nothing is read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Rows of the shelf to be written, `None` = removed.
pub(crate) type Rows = Vec<(Vec<u8>, Option<Bytes>)>;

/// What the driver is to do, in this order; nothing more is taken in before it is done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Authenticate, take over, load the session; then [`Machine::opened`].
    Open(Box<Connect>),
    /// Hand over; the answer goes to [`Machine::answered`], in order. When it cannot be handed over, that is the answer,
    /// given to [`Machine::not_handed_over`].
    Submit(Box<(Command, Vec<ShelfWrite>)>),
    /// A request to the methods of mqant; then [`Machine::called`] with this number, whenever it is done.
    Im(u64, Text, Bytes, Vec<ShelfWrite>),
    /// A protobuf message; then [`Machine::called`].
    Protobuf(u64, Text, Bytes, Vec<ShelfWrite>),
    /// Check and follow; then [`Machine::subscribed`].
    Subscribe(Box<Subscribe>, Vec<Sought>),
    /// Follow no more; then [`Machine::unsubscribed`].
    Unsubscribe(Box<Unsubscribe>),
    /// Look up retained messages; then [`Machine::retained`].
    Retained(Retained),
    /// Read the entries of the window again; each goes to [`Machine::resend`].
    Resend,
    /// Take places in the groups of shared subscriptions again.
    Rejoin,
    /// From now on mqant's pushes go to this connection.
    FollowMine,
}

/// How the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// For the log.
    pub(crate) why: &'static str,
    /// Whether the will is published.
    pub(crate) will: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// CONNECT has not come.
    Waiting,
    /// CONNECT came, the driver opens the session.
    Opening,
    /// CONNACK was sent.
    Open,
}

/// See the module.
pub(crate) struct Machine {
    config: Arc<MqttConfig>,
    decoder: Decoder,
    level: Level,
    phase: Phase,
    out: BytesMut,
    /// Bytes that may leave when `rows` are durable.
    held: BytesMut,
    rows: Rows,
    effects: VecDeque<Effect>,
    ending: Option<Ending>,
    deadline: Option<Instant>,
    keep_alive: Option<Duration>,
    /// The wall clock, for messages that expire.
    now_ms: u64,
    /// PUBACKs of protobuf messages carry the server's id.
    long_acks: bool,
    // Kept apart, so that a connection that does nothing is small.
    open: Option<Box<Open>>,
}

/// What an accepted connection needs besides.
struct Open {
    session: Session,
    will: Option<StoredWill>,
    pending: VecDeque<inbound::Pending>,
    pending_bytes: usize,
    /// Of these, those of QoS 1 and of QoS 2.
    pending_once: usize,
    pending_twice: usize,
    /// QoS 2 messages of earlier connections that were not released yet: no part of this one's quota.
    earlier: usize,
    /// Of these, requests to mqant's methods and protobuf messages.
    pending_calls: usize,
    next_call: u64,
    /// Topics by the client's alias (`[MQTT-3.3.2-8]`: of this connection only).
    aliases_in: HashMap<u16, Text>,
    /// Our aliases by topic, and how many the client takes.
    aliases_out: HashMap<Arc<str>, u16>,
    alias_out_max: u16,
    /// What the client takes at a time, ours or its own limit.
    window: u16,
    packet_bytes_max: Option<usize>,
    problem_information: bool,
    /// What was on its way when the last connection ended, and was not sent again yet.
    unsent: VecDeque<PacketId>,
    backlog: VecDeque<deliver::Waiting>,
    retained: VecDeque<Retained>,
    /// What was handed on while retained messages are looked for: it is not sent once more as a retained one.
    handed: HashSet<(FeedId, SeqId)>,
    /// Marks to move: received up to here.
    received: BTreeMap<FeedId, SeqId>,
    /// Something moved that the stored session does not know.
    moved: bool,
    /// The session was persistent when it was opened.
    was_persistent: bool,
    properties: PropertyWriter,
}

impl Machine {
    pub(crate) fn new(config: Arc<MqttConfig>, now: Instant) -> Self {
        let deadline = now.checked_add(Duration::from_millis(config.connect_ms_max));
        Self {
            decoder: Decoder::new(Role::Server, config.connect_bytes_max),
            config,
            level: Level::V311,
            phase: Phase::Waiting,
            out: BytesMut::new(),
            held: BytesMut::new(),
            rows: Vec::new(),
            effects: VecDeque::new(),
            ending: None,
            deadline,
            keep_alive: None,
            now_ms: 0,
            long_acks: false,
            open: None,
        }
    }

    /// Takes packets off the front of `buffer` while it may.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut, now: Instant) {
        while self.wants_bytes() {
            match self.decoder.decode(buffer) {
                Ok(Some(packet)) => {
                    if self.phase == Phase::Open {
                        self.heard(now);
                    }
                    self.packet(packet);
                }
                Ok(None) => return,
                Err(error) => return self.fail(error),
            }
        }
    }

    /// From now on PUBACKs of protobuf messages carry the server's id, as only patched clients take it.
    pub(crate) fn set_long_acks(&mut self) {
        self.long_acks = true;
    }

    /// The wall clock.
    pub(crate) fn set_now_ms(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Whether more bytes are wanted: everything that was asked of the driver is done, and the bounds leave room.
    pub(crate) fn wants_bytes(&self) -> bool {
        self.ending.is_none()
            && self.effects.is_empty()
            && self.held.len() + self.out.len() <= self.config.out_bytes_max.saturating_mul(4)
            && self.open.as_ref().is_none_or(|open| open.has_room(self.level, &self.config))
    }

    /// The next thing to be done.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether something is to be done before the next event.
    pub(crate) fn has_work(&self) -> bool {
        self.ending.is_none() && !(self.effects.is_empty() && self.rows.is_empty())
    }

    /// Rows that must be durable before the bytes that follow from them may leave: then [`Machine::rows_written`].
    pub(crate) fn take_rows(&mut self) -> Option<Rows> {
        (!self.rows.is_empty()).then(|| std::mem::take(&mut self.rows))
    }

    /// The rows are durable.
    pub(crate) fn rows_written(&mut self) {
        if self.rows.is_empty() {
            self.out.extend_from_slice(&self.held);
            self.held.clear();
        }
    }

    /// What to send. Empty it.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// When [`Machine::late`] is to be called, unless a packet comes first.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The deadline has passed: no CONNECT in time, or no packet within one and a half times the keep-alive
    /// (`[MQTT-3.1.2-24]`, MQTT5 `[MQTT-3.1.2-22]`).
    pub(crate) fn late(&mut self) {
        match self.phase {
            // While nothing is read, a packet may lie in the socket: the client is judged once it was looked at.
            Phase::Open if !self.wants_bytes() => {
                self.deadline = self.deadline.and_then(|at| at.checked_add(PATIENCE))
            }
            Phase::Open => self.disconnect(reason::KEEP_ALIVE_TIMEOUT, "keep-alive time-out", true),
            Phase::Waiting | Phase::Opening => self.end("no CONNECT in time", false),
        }
    }

    /// How it ends, once it does; what is to be sent still is.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// The session, once there is one.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.open.as_ref().map(|open| &open.session)
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        self.open.as_mut().map(|open| &mut open.session)
    }

    /// The will of an accepted connection.
    pub(crate) fn will(&self) -> Option<&StoredWill> {
        self.open.as_ref().and_then(|open| open.will.as_ref())
    }

    /// The server ends the connection: another one took its session, it is no longer allowed, the server closes.
    pub(crate) fn close(&mut self, reason: u8, why: &'static str, will: bool) {
        match self.phase {
            Phase::Open => self.disconnect(reason, why, will),
            Phase::Waiting | Phase::Opening => self.end(why, false),
        }
    }

    /// The peer is gone.
    pub(crate) fn lost(&mut self, why: &'static str) {
        self.end(why, true);
    }

    /// What could not be made durable is not acknowledged, and the client must not believe that it was.
    pub(crate) fn rows_failed(&mut self) {
        self.held.clear();
        self.disconnect(reason::IMPLEMENTATION_SPECIFIC_ERROR, "the session could not be written", true);
    }

    fn heard(&mut self, now: Instant) {
        self.deadline = self.keep_alive.and_then(|patience| now.checked_add(patience));
    }

    fn packet(&mut self, packet: Packet) {
        match (self.phase, packet) {
            (Phase::Waiting, Packet::Connect(connect)) => self.connect(connect),
            // [MQTT-3.1.0-1]: the first packet is a CONNECT.
            (Phase::Waiting | Phase::Opening, _) => self.end("the first packet was not CONNECT", false),
            // [MQTT-3.1.0-2]: a second one is a protocol error.
            (Phase::Open, Packet::Connect(_)) => self.protocol_error("a second CONNECT"),
            (Phase::Open, Packet::Publish(publish)) => self.publish(publish),
            (Phase::Open, Packet::Puback(ack)) => self.puback(&ack),
            (Phase::Open, Packet::Pubrec(ack)) => self.pubrec(&ack),
            (Phase::Open, Packet::Pubrel(ack)) => self.pubrel(&ack),
            (Phase::Open, Packet::Pubcomp(ack)) => self.pubcomp(&ack),
            (Phase::Open, Packet::Subscribe(subscribe)) => self.subscribe(subscribe),
            (Phase::Open, Packet::Unsubscribe(unsubscribe)) => {
                self.effects.push_back(Effect::Unsubscribe(Box::new(unsubscribe)));
            }
            // [MQTT-3.12.4-1].
            (Phase::Open, Packet::Pingreq) => encode::pingresp(&mut self.out),
            (Phase::Open, Packet::Disconnect(disconnect)) => self.disconnected(&disconnect),
            // MQTT5 §4.12: without an authentication method in CONNECT, AUTH is a protocol error.
            (Phase::Open, Packet::Auth(_)) => self.protocol_error("AUTH without an authentication method"),
            // The decoder of a server takes nothing else.
            (
                Phase::Open,
                Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp,
            ) => self.protocol_error("a packet that only servers send"),
        }
    }

    /// DISCONNECT from the client. MQTT5 §3.14; `[MQTT-3.14.4-3]`: with 0x00 the will is dropped.
    fn disconnected(&mut self, disconnect: &Disconnect) {
        if let Some(expiry_s) = disconnect.properties.session_expiry_s()
            && let Some(open) = &mut self.open
        {
            if open.session.expiry_s == 0 && expiry_s != 0 {
                // MQTT5 §3.14.2.2.2.
                return self.protocol_error("a session expiry at the end of a session that had none");
            }
            open.session.expiry_s = expiry_s.min(self.config.session_expiry_s_max);
        }
        let will = disconnect.reason != reason::SUCCESS;
        self.end("the client disconnected", will);
    }

    fn fail(&mut self, error: WireError) {
        match self.phase {
            Phase::Waiting | Phase::Opening => self.refuse_bytes(error),
            Phase::Open => self.disconnect(error.reason, error.problem, true),
        }
    }

    fn protocol_error(&mut self, why: &'static str) {
        self.disconnect(reason::PROTOCOL_ERROR, why, true);
    }

    /// DISCONNECT where the version has one (`[MQTT-4.13.1-1]`), and the end.
    fn disconnect(&mut self, reason: u8, why: &'static str, will: bool) {
        if self.ending.is_some() {
            return;
        }
        if self.level == Level::V5 {
            let mut properties = PropertyWriter::new();
            // [MQTT-3.1.2-29]; a DISCONNECT of ours is shorter than any Maximum Packet Size that holds a CONNACK.
            if self.open.as_ref().is_some_and(|open| open.tells(why.len() + 16)) {
                properties.reason_string(why);
            }
            encode::disconnect(self.level, reason, properties.block(), &mut self.out);
        }
        self.end(why, will);
    }

    fn end(&mut self, why: &'static str, will: bool) {
        if self.ending.is_none() {
            self.ending = Some(Ending { why, will });
            self.effects.clear();
        }
    }
}

impl Machine {
    /// Whether something moved that the stored session does not know.
    pub(crate) fn has_moved(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.moved && (open.session.is_persistent() || !open.received.is_empty()))
    }

    /// Whether what waits could be sent if the session's place was stored now.
    pub(crate) fn wants_place(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.moved && !open.backlog.is_empty() && open.session.outbound.wants_place(open.window)
        })
    }

    /// The rows that store the session's place: everything committed up to `settled` was delivered to it. `None` when
    /// there is nothing to store. At the end of the connection always.
    pub(crate) fn place(&self, settled: u64, ended_ms: Option<u64>) -> Option<(SessionKey, Rows)> {
        let open = self.open.as_ref()?;
        let session = &open.session;
        if !session.is_persistent() || ended_ms.is_none() && !open.moved {
            return None;
        }
        let mut row = session_row(session, settled, ended_ms);
        // Delivered and not sent: resume before them.
        for (feed, seq) in open.backlog.iter().filter_map(deliver::Waiting::place) {
            let before = seq.prev().0;
            match row.positions.iter_mut().find(|(name, _)| name == feed.as_str()) {
                Some((_, place)) => *place = before.min(*place),
                None => row.positions.push((feed.as_str().to_owned(), before)),
            }
        }
        let mut rows = vec![(session.key.session(), Some(stored::encode(&row)))];
        let done = session
            .outbound
            .flows()
            .filter(|flow| flow.qos == Qos::ExactlyOnce && flow.state == FlowState::Done);
        rows.extend(done.map(|flow| (session.key.sent_id(flow.id), None)));
        Some((session.key.clone(), rows))
    }

    /// Those rows are durable.
    pub(crate) fn placed(&mut self, settled: u64) {
        if let Some(open) = &mut self.open {
            open.moved = false;
            open.session.outbound.forget(Some(settled));
        }
        self.pump();
    }

    /// Whether anything of the session may be stored although it ends with its connection.
    pub(crate) fn was_stored(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.was_persistent)
    }
}
