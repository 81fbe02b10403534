//! What must hold whatever a client sends and whenever answers, deliveries and the time come. The target in `fuzz/` and the
//! test that replays its corpus call this.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use feedlog_core::command::{Action, Command, CreateFeed, Principal, Scopes};
use feedlog_core::entry::{Entry, Payload};
use feedlog_core::event::{Event, FeedKind, Message, MessageKind, Scope};
use feedlog_core::ids::{FeedId, Ordinal, SeqId, Uid};
use feedlog_service::views::View;
use feedlog_service::{Receipt, Store, StoreConfig, SubmitError};

use super::super::carried::{Carried, Origin};
use super::super::config::MqttConfig;
use super::super::session::Session;
use super::super::stored::SessionKey;
use super::super::wire::{
    Connect, Decoder, Level, Packet, PacketId, PropertyWriter, Qos, Role, Text, encode, reason,
};
use super::{Accepted, Called, Effect, Granted, Machine, Outgoing, Sought, Unsubscribed};

/// Small bounds, so that fuzzing reaches them.
fn config() -> MqttConfig {
    MqttConfig {
        free_topics: true,
        packet_bytes_max: 4096,
        connect_bytes_max: 2048,
        receive_maximum: 3,
        in_flight_max: 3,
        subscriptions_max: 4,
        topic_alias_max: 2,
        topic_levels_max: 4,
        out_bytes_max: 1024,
        ..MqttConfig::default()
    }
}

/// A receipt as only the store makes one (I-2).
static RECEIPT: LazyLock<Receipt> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::in_memory(StoreConfig { shards: 1, ..StoreConfig::default() }).expect("a store");
        let scopes = Scopes { user: true, ..Scopes::default() };
        let uid = Uid::parse("u").expect("a uid");
        let gate = store.gate(Principal { uid, scopes, anonymous: false, via: None });
        let create = CreateFeed::new(FeedKind::Open);
        let feed = FeedId::parse("a").expect("a feed");
        gate.submit(Command { feed, action: Action::CreateFeed(create) }).await.expect("durable")
    })
});

/// One machine and the world that it thinks it is in.
struct Bench {
    machine: Machine,
    input: BytesMut,
    /// What the server sent, and whether all of it can be read.
    sent: BytesMut,
    reader: Decoder,
    persistent: bool,
    submitted: usize,
    calls: VecDeque<u64>,
    /// Answers that allow an acknowledgement.
    answered: usize,
    acknowledged: usize,
    received: HashSet<PacketId>,
    seq: u64,
    now: Instant,
}

/// Plays the bytes as a connection's life. The first byte says how it begins.
///
/// # Panics
/// When something that must hold does not.
pub fn play(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else { return };
    let now = Instant::now();
    let mut bench = Bench {
        machine: Machine::new(Arc::new(config()), now),
        input: BytesMut::new(),
        sent: BytesMut::new(),
        reader: Decoder::new(Role::Client, usize::MAX),
        persistent: first & 4 != 0,
        submitted: 0,
        calls: VecDeque::new(),
        answered: 0,
        acknowledged: 0,
        received: HashSet::new(),
        seq: 0,
        now,
    };
    if let Some(level) = [None, Some(Level::V31), Some(Level::V311), Some(Level::V5)][usize::from(first & 3)]
    {
        bench.connect(level, first);
    }
    while let Some((&what, after)) = rest.split_first() {
        rest = after;
        rest = bench.step(what, rest);
        bench.check();
    }
}

impl Bench {
    fn connect(&mut self, level: Level, first: u8) {
        let mut properties = PropertyWriter::new();
        if level == Level::V5 {
            properties.session_expiry_s(u32::from(self.persistent) * 60);
            if first & 8 != 0 {
                properties.receive_maximum(1).maximum_packet_size(64).topic_alias_maximum(1);
            }
            if first & 16 != 0 {
                properties.request_problem_information(false);
            }
        }
        let connect = Connect {
            level,
            clean_start: !self.persistent,
            keep_alive_s: 10,
            client_id: Text::new("c").expect("a text"),
            will: None,
            username: None,
            password: None,
            properties: properties.finish(),
        };
        encode::packet(level, &Packet::Connect(Box::new(connect)), &mut self.input);
        self.settle();
    }

    /// One thing that happens; what is left of the bytes.
    fn step<'a>(&mut self, what: u8, rest: &'a [u8]) -> &'a [u8] {
        let argument = rest.first().copied().unwrap_or(0);
        match what % 8 {
            0..=2 => {
                let after = rest.get(1..).unwrap_or_default();
                let (bytes, after) = after.split_at(usize::from(argument).min(after.len()));
                self.input.extend_from_slice(bytes);
                self.settle();
                return after;
            }
            3 if self.submitted > 0 => {
                self.submitted -= 1;
                self.answered += 1;
                self.machine.answered(&Ok(RECEIPT.clone()));
            }
            4 if self.submitted > 0 => {
                self.submitted -= 1;
                self.machine.answered(&Err(SubmitError::Unknown));
            }
            4 => {
                if let Some(number) = self.calls.pop_front() {
                    self.answered += 1;
                    let verdict = super::Verdict::Acknowledge;
                    self.machine.called(number, Called { replies: Vec::new(), verdict, message_id: Some(7) });
                }
            }
            5 | 6 => self.deliver(argument),
            7 if argument < 32 => {
                self.now += Duration::from_secs(16);
                if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
                    self.machine.late();
                }
            }
            7 if argument < 40 => self.machine.close(reason::SERVER_SHUTTING_DOWN, "closing", false),
            7 => {
                let place = self.machine.place(self.seq, (argument & 1 == 0).then_some(1));
                assert!(place.is_none() || self.persistent, "only what stays is stored");
                self.machine.placed(self.seq);
            }
            _ => {}
        }
        self.settle();
        rest
    }

    fn deliver(&mut self, argument: u8) {
        if !self.machine.wants_delivery() {
            return;
        }
        self.seq += 1;
        let qos = Qos::from_bits(argument & 3).unwrap_or(Qos::ExactlyOnce);
        let origin = Origin::of("", if argument & 4 == 0 { "c" } else { "other" });
        let carried = Carried { qos, retain: argument & 8 != 0, origin, properties: Bytes::new() };
        let message = Message {
            kind: MessageKind::Custom,
            content_type: "text/plain".into(),
            client_msg_id: None,
            scope: Scope::Sender,
            reply_to: None,
            mentions: Vec::new(),
            to_reply: None,
            seen_seq: SeqId::ZERO,
            sent_ms: None,
            expires_ms: (argument & 16 != 0).then_some(5_000),
            auto: false,
            carried: Payload::Bytes(carried.encode()),
        };
        let feed = if argument & 32 == 0 { "a" } else { "a/b" };
        let entry = Entry {
            feed: FeedId::parse(feed).expect("a feed"),
            seq: SeqId(self.seq),
            ordinal: Ordinal(self.seq),
            time_ms: 0,
            sender: Uid::parse("u").expect("a uid"),
            event: Event::MessageSent(message),
            payload: Payload::Bytes(Bytes::from(vec![b'x'; usize::from(argument)])),
        };
        let view = Arc::new(View { entry, prev_seq: SeqId(self.seq - 1), fate: None });
        let free = argument & 64 == 0;
        self.machine.deliver(Outgoing { view, free, commit_no: self.seq, pushes: Vec::new() });
    }

    /// Does what a driver does until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.machine.set_now_ms(1_000);
            if let Some(effect) = self.machine.next_effect() {
                self.perform(effect);
                continue;
            }
            if let Some(rows) = self.machine.take_rows() {
                assert!(self.persistent, "only a session that stays writes rows");
                assert!(!rows.is_empty());
                self.machine.rows_written();
                continue;
            }
            self.machine.seek_retained();
            let before = self.input.len();
            self.machine.take(&mut self.input, self.now);
            if before == self.input.len() {
                break;
            }
        }
        let out = std::mem::take(self.machine.out());
        self.sent.extend_from_slice(&out);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Open(connect) => {
                let key = SessionKey { user: None, client_id: connect.client_id.to_string() };
                let mut session = Session::new(key, u32::from(self.persistent) * 60);
                session.impush = false;
                let accepted =
                    Accepted { session, present: false, assigned: connect.client_id.is_empty(), will: None };
                self.machine.opened(&connect, accepted, self.now);
            }
            Effect::Submit(_) => self.submitted += 1,
            Effect::Im(number, ..) | Effect::Protobuf(number, ..) => self.calls.push_back(number),
            Effect::Subscribe(subscribe, sought) => {
                let granted = sought
                    .into_iter()
                    .map(|one| match one {
                        Sought::Wanted(subscription, seeks) => Granted::Followed(subscription, seeks != 0),
                        Sought::Refused(reason) => Granted::Refused(reason),
                    })
                    .collect();
                self.machine.subscribed(&subscribe, granted);
            }
            Effect::Unsubscribe(unsubscribe) => {
                let ended = vec![Unsubscribed::Unknown; unsubscribe.filters.len()];
                self.machine.unsubscribed(&unsubscribe, &ended);
            }
            Effect::Retained(mut search) => {
                search.finished = true;
                self.machine.retained(search);
            }
            Effect::Resend | Effect::Rejoin | Effect::FollowMine => {}
        }
    }

    /// What was sent is MQTT of the connection's version, and nothing was acknowledged without an answer.
    fn check(&mut self) {
        self.reader.set_level(self.machine.level());
        loop {
            match self.reader.decode(&mut self.sent) {
                Ok(Some(Packet::Puback(ack))) if ack.reason < 0x80 => self.acknowledged += 1,
                Ok(Some(Packet::Pubrec(ack))) if ack.reason < 0x80 => {
                    let _ = self.received.insert(ack.packet_id);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("the server sent what it may not: {error}"),
            }
        }
        // A QoS 2 message that comes again before PUBREL gets its PUBREC again, which needs no answer of its own.
        assert!(self.acknowledged <= self.answered, "INVARIANT I-2");
        assert!(self.received.is_empty() || self.answered > 0, "INVARIANT I-2");
        let open = self.machine.session().map_or(0, |session| session.outbound.open_count());
        assert!(open <= 3, "the window is {open}");
        assert!(self.sent.len() < 1 << 20);
    }
}
