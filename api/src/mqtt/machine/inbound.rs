//! PUBLISH from the client, the ring of its acknowledgements, and the QoS 2 exchange of that direction.

use feedlog_core::command::{Action, Command, Draft};
use feedlog_core::ids::{FeedId, Ordinal, SeqId};
use feedlog_service::{Receipt, ShelfValue, ShelfWrite, SubmitError};

use bytes::Bytes;
use serde_json::json;

use super::super::FRONT_END;
use super::super::carried::Carried;
use super::super::config::MqttConfig;
use super::super::feeds;
use super::super::session::Inbound;
use super::super::space::{self, Target};
use super::super::wire::{Ack, Level, PacketId, Publish, Qos, Text, encode, reason, topic};
use super::{Effect, Machine, Open, message};
use crate::errors::{ApiError, Kind};

/// Requests to mqant's methods and protobuf messages of one client that are under way.
const CALLS_MAX: usize = 20;
/// What a message that waits takes besides its payload, roughly: so that empty ones are bounded too.
const PENDING_BYTES: usize = 512;

/// A PUBLISH whose acknowledgement has not left.
pub(super) struct Pending {
    id: Option<PacketId>,
    qos: Qos,
    bytes: usize,
    respond: Option<(String, Bytes)>,
    is_call: bool,
    state: State,
}

enum State {
    /// Its answer comes from the ring of the store.
    Submitted,
    /// Its answer comes by number.
    Called(u64),
    Settled(Settled),
}

enum Settled {
    Stored(Stored),
    Failed(Kind),
    Replied(Called),
}

/// What a receipt says. INVARIANT I-2: made from a [`Receipt`] and nothing else.
struct Stored {
    feed: FeedId,
    seq: SeqId,
    ordinal: Ordinal,
}

impl From<&Receipt> for Stored {
    fn from(receipt: &Receipt) -> Self {
        let done = receipt.done();
        Self { feed: done.feed.clone(), seq: done.seq, ordinal: done.ordinal }
    }
}

/// What became of a request to mqant's methods or of a protobuf message.
#[derive(Debug)]
pub(crate) struct Called {
    /// Sent at QoS 0 before the acknowledgement.
    pub(crate) replies: Vec<(Text, Bytes)>,
    /// What the acknowledgement says.
    pub(crate) verdict: Verdict,
    /// The server's id of a protobuf message.
    pub(crate) message_id: Option<u64>,
}

impl Called {
    /// Refused, or not known.
    pub(crate) fn failed(kind: Kind) -> Self {
        Self { replies: Vec::new(), verdict: Verdict::Fail(kind), message_id: None }
    }
}

/// See [`Called`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done, or refused with an error in the reply.
    Acknowledge,
    /// The reason in MQTT 5, a close before it.
    Fail(Kind),
}

impl Open {
    pub(super) fn has_room(&self, level: Level, config: &MqttConfig) -> bool {
        // A client of MQTT 5 keeps to its quota by itself, or is told (`publish`).
        let waiting = self.pending_once + self.pending_twice;
        let in_window = level == Level::V5 || waiting < usize::from(config.receive_maximum);
        // Requests are futures of their own, so fewer of them may be under way.
        let in_calls = self.pending_calls < usize::from(config.receive_maximum).min(CALLS_MAX);
        in_window && in_calls && self.pending_bytes < config.pending_bytes_max
    }

    /// Whether this much more may be told in an acknowledgement or a DISCONNECT: `[MQTT-3.1.2-29]`, MQTT5 §3.4.2.2.
    pub(super) fn tells(&self, packet_bytes: usize) -> bool {
        self.problem_information && self.packet_bytes_max.is_none_or(|max| packet_bytes <= max)
    }

    /// QoS 1 and 2 messages of this connection that the client has not been told the end of (MQTT5 §4.9: quotas begin anew
    /// with each connection, or ids that a client lost would count for ever).
    fn quota_used(&self) -> usize {
        self.pending_once + self.session.inbound.len().saturating_sub(self.earlier)
    }

    fn count(&mut self, pending: &Pending, more: bool) {
        let change =
            |count: &mut usize, by: usize| *count = if more { *count + by } else { count.saturating_sub(by) };
        change(&mut self.pending_bytes, pending.bytes);
        change(&mut self.pending_calls, usize::from(pending.is_call));
        match pending.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => change(&mut self.pending_once, 1),
            Qos::ExactlyOnce => change(&mut self.pending_twice, 1),
        }
    }
}

impl Machine {
    pub(super) fn publish(&mut self, mut publish: Publish) {
        let Some(open) = &mut self.open else { return };
        if self.level == Level::V5
            && let Err((reason, why)) = resolve_alias(open, &mut publish, self.config.topic_alias_max)
        {
            return self.disconnect(reason, why, true);
        }
        if let (Qos::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
            match open.session.inbound.get(&id) {
                // [MQTT-4.3.3-2], MQTT5 [MQTT-4.3.3-10]: until PUBREL the same id is the same message.
                Some(Inbound::Stored(_) | Inbound::Earlier(_)) => {
                    return encode::pubrec(self.level, id, reason::SUCCESS, &[], &mut self.out);
                }
                // Its PUBREC is on the way.
                Some(Inbound::Waiting) => return,
                None => {}
            }
        }
        if self.level == Level::V5
            && publish.qos != Qos::AtMostOnce
            && open.quota_used() >= usize::from(self.config.receive_maximum)
        {
            // MQTT5 [MQTT-3.3.4-8].
            return self.disconnect(
                reason::RECEIVE_MAXIMUM_EXCEEDED,
                "more messages than the receive maximum",
                true,
            );
        }
        if let (Qos::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) {
            open.session.inbound.insert(id, Inbound::Waiting);
        }
        let limited = !open.problem_information || open.packet_bytes_max.is_some();
        let respond = publish.properties.response_topic().filter(|_| limited).map(|topic| {
            (
                topic.to_owned(),
                publish.properties.correlation_data().map(Bytes::copy_from_slice).unwrap_or_default(),
            )
        });
        let mut pending = Pending {
            id: publish.packet_id,
            qos: publish.qos,
            bytes: publish.payload.len() + PENDING_BYTES,
            respond,
            is_call: false,
            state: State::Submitted,
        };
        match self.route(publish) {
            Ok(Routed::Submit(work)) => self.effects.push_back(Effect::Submit(work)),
            Ok(Routed::Call(number, effect)) => {
                pending.state = State::Called(number);
                pending.is_call = true;
                self.effects.push_back(effect);
            }
            Err(kind) => pending.state = State::Settled(Settled::Failed(kind)),
        }
        let settled = matches!(pending.state, State::Settled(_));
        if let Some(open) = &mut self.open {
            open.count(&pending, true);
            open.pending.push_back(pending);
        }
        if settled {
            self.acknowledge();
        }
    }

    fn route(&mut self, publish: Publish) -> Result<Routed, Kind> {
        let Some(open) = &mut self.open else { return Err(Kind::Internal) };
        if publish.topic.split('/').count() > self.config.topic_levels_max {
            return Err(Kind::NotFound);
        }
        let call = |open: &mut Open| {
            open.next_call += 1;
            open.next_call
        };
        match space::target(&publish.topic) {
            Target::Im => {
                let number = call(open);
                let rows = self.received_row(&publish).into_iter().collect();
                Ok(Routed::Call(number, Effect::Im(number, publish.topic, publish.payload, rows)))
            }
            Target::Protobuf => {
                let number = call(open);
                let rows = self.received_row(&publish).into_iter().collect();
                Ok(Routed::Call(number, Effect::Protobuf(number, publish.topic, publish.payload, rows)))
            }
            Target::Reserved => Err(Kind::Forbidden),
            Target::Invalid => Err(Kind::NotFound),
            Target::Free(_) if !self.config.free_topics => Err(Kind::Forbidden),
            Target::Free(feed) => {
                let draft = message::free(&publish)?;
                Ok(Routed::Submit(self.submission(feed, draft, &publish)))
            }
            Target::Feed(feed) => {
                let draft =
                    feeds::draft(&publish, self.config.payload_bytes_max).map_err(|error| error.kind)?;
                Ok(Routed::Submit(self.submission(feed, draft, &publish)))
            }
        }
    }

    /// The command, and the rows that are written in the same batch: the retained message of the topic, and the packet
    /// id of a QoS 2 message until PUBREL, so that a replay after a crash finds it (DESIGN P3).
    fn submission(
        &self,
        feed: FeedId,
        mut draft: Draft,
        publish: &Publish,
    ) -> Box<(Command, Vec<ShelfWrite>)> {
        let mut rows = Vec::new();
        if let Some(expires_ms) = message::expires_ms(publish, self.now_ms) {
            draft.expires_ms = Some(expires_ms);
        }
        if let Some(open) = &self.open {
            let session = &open.session;
            draft.carried = Carried {
                qos: publish.qos,
                retain: publish.retain,
                origin: session.origin,
                properties: publish.properties.forwardable(),
            }
            .encode();
        }
        rows.extend(self.received_row(publish));
        rows.extend(message::retained_row(publish));
        Box::new((Command { feed, action: Action::SendMessage(Box::new(draft)) }, rows))
    }

    /// The packet id of a QoS 2 message until PUBREL.
    fn received_row(&self, publish: &Publish) -> Option<ShelfWrite> {
        let session =
            self.open.as_ref().map(|open| &open.session).filter(|session| session.is_persistent())?;
        let id = publish.packet_id.filter(|_| publish.qos == Qos::ExactlyOnce)?;
        let (key, value) = (session.key.received_id(id), ShelfValue::Place(Bytes::new()));
        Some(ShelfWrite { front_end: FRONT_END, key, value })
    }

    /// The answer to the oldest command that was handed over and has none.
    pub(crate) fn answered(&mut self, answer: &Result<Receipt, SubmitError>) {
        let settled = match answer {
            Ok(receipt) => Settled::Stored(Stored::from(receipt)),
            Err(error) => Settled::Failed(ApiError::from(error.clone()).kind),
        };
        self.settle(settled, |state| matches!(state, State::Submitted));
    }

    /// The newest command could not be handed over.
    pub(crate) fn not_handed_over(&mut self, error: SubmitError) {
        let failed = Settled::Failed(ApiError::from(error).kind);
        let newest = self.open.as_mut().and_then(|open| {
            open.pending.iter_mut().rev().find(|pending| matches!(pending.state, State::Submitted))
        });
        if let Some(pending) = newest {
            pending.state = State::Settled(failed);
        }
        self.acknowledge();
    }

    /// The answer to a request by number.
    pub(crate) fn called(&mut self, number: u64, called: Called) {
        self.settle(Settled::Replied(called), |state| matches!(state, State::Called(of) if *of == number));
    }

    fn settle(&mut self, settled: Settled, is_meant: impl Fn(&State) -> bool) {
        let meant = self
            .open
            .as_mut()
            .and_then(|open| open.pending.iter_mut().find(|pending| is_meant(&pending.state)));
        if let Some(pending) = meant {
            pending.state = State::Settled(settled);
        }
        self.acknowledge();
    }

    /// Acknowledges from the front of the ring what has its answer (`[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`).
    pub(crate) fn acknowledge(&mut self) {
        let room = self.config.out_bytes_max.saturating_mul(4);
        while self.ending.is_none()
            && self.out.len() <= room
            && let Some(open) = &mut self.open
            && let Some(pending) =
                open.pending.pop_front_if(|pending| matches!(pending.state, State::Settled(_)))
        {
            open.count(&pending, false);
            let State::Settled(settled) = pending.state else { continue };
            match settled {
                Settled::Stored(stored) => self.stored(pending.id, pending.qos, &stored, pending.respond),
                Settled::Failed(kind) => self.failed(pending.id, pending.qos, kind),
                Settled::Replied(called) => self.replied(pending.id, pending.qos, called),
            }
        }
    }

    fn stored(&mut self, id: Option<PacketId>, qos: Qos, stored: &Stored, respond: Option<(String, Bytes)>) {
        let Some(open) = &mut self.open else { return };
        if let (Some(id), Qos::ExactlyOnce) = (id, qos) {
            open.session.inbound.insert(id, Inbound::Stored(stored.seq));
        }
        let mut properties = std::mem::take(&mut open.properties);
        properties.clear();
        let mut told = false;
        if self.level == Level::V5 && id.is_some() {
            properties
                .user("feed_id", stored.feed.as_str())
                .user("seq_id", &stored.seq.0.to_string())
                .user("ordinal", &stored.ordinal.0.to_string());
            told = open.tells(properties.block().len() + 8);
            if !told {
                properties.clear();
            }
        }
        if let Some((topic, correlation)) = respond.filter(|_| !told) {
            let body = json!({
                "feed_id": stored.feed.as_str(), "seq_id": stored.seq.0, "ordinal": stored.ordinal.0,
            });
            self.respond(&topic, &correlation, body.to_string().into());
        }
        match (id, qos) {
            (Some(id), Qos::AtLeastOnce) => {
                encode::puback(self.level, id, reason::SUCCESS, properties.block(), &mut self.out);
            }
            (Some(id), Qos::ExactlyOnce) => {
                encode::pubrec(self.level, id, reason::SUCCESS, properties.block(), &mut self.out);
            }
            _ => {}
        }
        if let Some(open) = &mut self.open {
            open.properties = properties;
        }
    }

    /// *Refused*: told in MQTT 5, a close before it (`[MQTT-3.3.5-2]`). *Retry* and *unknown*: 0x83, and a close without
    /// an acknowledgement before MQTT 5, so that the client never takes the message for stored.
    fn failed(&mut self, id: Option<PacketId>, qos: Qos, kind: Kind) {
        metrics::counter!("feedlog_mqtt_publishes_refused_total", "code" => kind.row().code).increment(1);
        if let (Some(id), Qos::ExactlyOnce, Some(open)) = (id, qos, &mut self.open) {
            // MQTT5 [MQTT-4.3.3-9]: the id is free again.
            open.session.inbound.remove(&id);
        }
        if self.level != Level::V5 {
            return self.end("a message could not be stored", true);
        }
        if kind == Kind::UnknownOutcome && qos == Qos::ExactlyOnce {
            // It may be there, and so may its packet id: PUBREC would free an id that is still taken.
            let why = "the outcome of a message is unknown";
            return self.disconnect(reason::IMPLEMENTATION_SPECIFIC_ERROR, why, true);
        }
        let Some(id) = id else { return };
        let why = kind.row().code;
        let mut properties = super::PropertyWriter::new();
        if self.open.as_ref().is_some_and(|open| open.tells(why.len() + 16)) {
            properties.reason_string(why);
        }
        let code = ack_reason(kind);
        match qos {
            Qos::AtLeastOnce => encode::puback(self.level, id, code, properties.block(), &mut self.out),
            _ => encode::pubrec(self.level, id, code, properties.block(), &mut self.out),
        }
    }

    fn replied(&mut self, id: Option<PacketId>, qos: Qos, called: Called) {
        if let Verdict::Fail(kind) = called.verdict {
            return self.failed(id, qos, kind);
        }
        for (topic, payload) in called.replies {
            self.tell(topic, payload);
        }
        let long = called.message_id.filter(|_| self.long_acks && self.level != Level::V5);
        match (id, qos, long) {
            // The form that patched clients of protobuf bodies read: the packet id, then the server's message id.
            (Some(id), Qos::AtLeastOnce, Some(number)) => {
                self.out.extend_from_slice(&[0x40, 10]);
                self.out.extend_from_slice(&id.get().to_be_bytes());
                self.out.extend_from_slice(&number.to_be_bytes());
            }
            (Some(id), Qos::AtLeastOnce, None) => {
                encode::puback(self.level, id, reason::SUCCESS, &[], &mut self.out)
            }
            (Some(id), Qos::ExactlyOnce, _) => {
                if let Some(open) = &mut self.open {
                    open.session.inbound.insert(id, Inbound::Stored(SeqId::ZERO));
                }
                encode::pubrec(self.level, id, reason::SUCCESS, &[], &mut self.out);
            }
            _ => {}
        }
    }

    /// A message at QoS 0 that nobody subscribed to.
    pub(crate) fn tell(&mut self, topic: Text, payload: Bytes) {
        let length = topic.len() + payload.len() + 16;
        if self.open.as_ref().is_some_and(|open| open.packet_bytes_max.is_some_and(|max| length > max)) {
            // MQTT5 [MQTT-3.1.2-24].
            metrics::counter!("feedlog_mqtt_deliveries_too_large_total").increment(1);
            return;
        }
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: Default::default(),
            payload,
        };
        self.say(&publish);
    }

    /// Where an acknowledgement may not say it, the place of the message goes to the response topic.
    fn respond(&mut self, name: &str, correlation: &[u8], payload: Bytes) {
        let Some(topic) = Text::new(name).filter(|name| topic::is_name(name)) else { return };
        let mut properties = super::PropertyWriter::new();
        if !correlation.is_empty() {
            properties.correlation_data(correlation);
        }
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: properties.finish(),
            payload,
        };
        self.say(&publish);
    }

    /// A PUBLISH of our own at QoS 0, unless the client does not take one of its size (MQTT5 `[MQTT-3.1.2-24]`).
    fn say(&mut self, publish: &Publish) {
        let max = self.open.as_ref().and_then(|open| open.packet_bytes_max);
        if max.is_some_and(|max| encode::publish_bytes(self.level, publish) > max) {
            metrics::counter!("feedlog_mqtt_deliveries_too_large_total").increment(1);
            return;
        }
        encode::publish(self.level, publish, &mut self.out);
    }

    /// PUBREL: the id is free once that is durable; only then PUBCOMP, or a later message with the same id could be taken
    /// for this one after a crash (`[MQTT-4.3.3-2]`).
    pub(super) fn pubrel(&mut self, ack: &Ack) {
        let Some(open) = &mut self.open else { return };
        let id = ack.packet_id;
        match open.session.inbound.get(&id) {
            Some(one @ (Inbound::Stored(_) | Inbound::Earlier(_))) => {
                open.earlier -= usize::from(matches!(one, Inbound::Earlier(_)));
                open.session.inbound.remove(&id);
                if open.session.is_persistent() {
                    self.rows.push((open.session.key.received_id(id), None));
                    encode::pubcomp(self.level, id, reason::SUCCESS, &[], &mut self.held);
                } else {
                    encode::pubcomp(self.level, id, reason::SUCCESS, &[], &mut self.out);
                }
            }
            // Before PUBREC: the client does not know yet whether it is stored.
            Some(Inbound::Waiting) => self.protocol_error("PUBREL before PUBREC"),
            None => {
                // MQTT5 §3.7.2.1; before it there is no code, and an answer is owed all the same.
                encode::pubcomp(self.level, id, reason::PACKET_IDENTIFIER_NOT_FOUND, &[], &mut self.out);
            }
        }
    }
}

enum Routed {
    Submit(Box<(Command, Vec<ShelfWrite>)>),
    Call(u64, Effect),
}

/// MQTT5 §3.3.2.3.4.
fn resolve_alias(open: &mut Open, publish: &mut Publish, max: u16) -> Result<(), (u8, &'static str)> {
    match publish.properties.topic_alias() {
        None if publish.topic.is_empty() => Err((reason::PROTOCOL_ERROR, "neither a topic nor an alias")),
        None => Ok(()),
        // [MQTT-3.3.2-9].
        Some(alias) if alias == 0 || alias > max => Err((reason::TOPIC_ALIAS_INVALID, "no such topic alias")),
        Some(alias) if publish.topic.is_empty() => match open.aliases_in.get(&alias) {
            Some(topic) => {
                publish.topic = topic.clone();
                Ok(())
            }
            None => Err((reason::PROTOCOL_ERROR, "a topic alias that was not set")),
        },
        Some(alias) => {
            open.aliases_in.insert(alias, publish.topic.clone());
            Ok(())
        }
    }
}

/// The reason of a PUBACK or PUBREC, which may carry few of all reasons (MQTT5 §3.4.2.1).
pub(super) fn ack_reason(kind: Kind) -> u8 {
    match kind.row().mqtt5 {
        code @ (0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99) => code,
        reason::PACKET_TOO_LARGE => reason::QUOTA_EXCEEDED,
        _ => reason::IMPLEMENTATION_SPECIFIC_ERROR,
    }
}
