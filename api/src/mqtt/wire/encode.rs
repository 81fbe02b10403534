//! Packets onto the end of a write buffer.
//!
//! Nothing here fails: texts and ids are checked by their types. Properties are written in MQTT 5 only. That a packet is
//! no larger than the peer accepts is the caller's to check, and so is that its body fits in
//! [`super::REMAINING_BYTES_MAX`].

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::decode::kind;
use super::packet::hidden;
use super::{
    Ack, Connect, FIELD_BYTES_MAX, Level, Packet, PacketId, Publish, Qos, REMAINING_BYTES_MAX, Subscribe,
    SubscribeOptions, Text, Unsubscribe, reason,
};

/// Any packet.
pub fn packet(level: Level, packet: &Packet, out: &mut BytesMut) {
    match packet {
        Packet::Connect(connect) => self::connect(level, connect, out),
        Packet::Connack(p) => connack(level, p.session_present, p.reason, p.properties.bytes(), out),
        Packet::Publish(p) => publish(level, p, out),
        Packet::Puback(p) => ack(level, kind::PUBACK << 4, p, out),
        Packet::Pubrec(p) => ack(level, kind::PUBREC << 4, p, out),
        Packet::Pubrel(p) => ack(level, kind::PUBREL << 4 | 2, p, out),
        Packet::Pubcomp(p) => ack(level, kind::PUBCOMP << 4, p, out),
        Packet::Subscribe(p) => subscribe(level, p, out),
        Packet::Suback(p) => suback(level, p.packet_id, p.properties.bytes(), &p.reasons, out),
        Packet::Unsubscribe(p) => unsubscribe(level, p, out),
        Packet::Unsuback(p) => unsuback(level, p.packet_id, p.properties.bytes(), &p.reasons, out),
        Packet::Pingreq => out.extend_from_slice(&[kind::PINGREQ << 4, 0]),
        Packet::Pingresp => pingresp(out),
        Packet::Disconnect(p) => disconnect(level, p.reason, p.properties.bytes(), out),
        Packet::Auth(p) => auth(p.reason, p.properties.bytes(), out),
    }
}

/// CONNACK; `reason` as the level spells it.
pub fn connack(level: Level, session_present: bool, reason: u8, properties: &[u8], out: &mut BytesMut) {
    head(kind::CONNACK << 4, 2 + block_len(level, properties), out);
    // 3.1 has no such flag.
    out.put_u8(u8::from(session_present && level != Level::V31));
    out.put_u8(reason);
    block(level, properties, out);
}

/// PUBACK.
pub fn puback(level: Level, packet_id: PacketId, reason: u8, properties: &[u8], out: &mut BytesMut) {
    ack_of(level, kind::PUBACK << 4, packet_id, reason, properties, out);
}

/// PUBREC.
pub fn pubrec(level: Level, packet_id: PacketId, reason: u8, properties: &[u8], out: &mut BytesMut) {
    ack_of(level, kind::PUBREC << 4, packet_id, reason, properties, out);
}

/// PUBREL.
pub fn pubrel(level: Level, packet_id: PacketId, reason: u8, properties: &[u8], out: &mut BytesMut) {
    ack_of(level, kind::PUBREL << 4 | 2, packet_id, reason, properties, out);
}

/// PUBCOMP.
pub fn pubcomp(level: Level, packet_id: PacketId, reason: u8, properties: &[u8], out: &mut BytesMut) {
    ack_of(level, kind::PUBCOMP << 4, packet_id, reason, properties, out);
}

/// SUBACK; one reason for each filter, in order.
pub fn suback(level: Level, packet_id: PacketId, properties: &[u8], reasons: &[u8], out: &mut BytesMut) {
    head(kind::SUBACK << 4, 2 + block_len(level, properties) + reasons.len(), out);
    out.put_u16(packet_id.get());
    block(level, properties, out);
    out.extend_from_slice(reasons);
}

/// UNSUBACK; one reason for each filter, in order, written in MQTT 5 only.
pub fn unsuback(level: Level, packet_id: PacketId, properties: &[u8], reasons: &[u8], out: &mut BytesMut) {
    let reasons = if level == Level::V5 { reasons } else { &[] };
    head(kind::UNSUBACK << 4, 2 + block_len(level, properties) + reasons.len(), out);
    out.put_u16(packet_id.get());
    block(level, properties, out);
    out.extend_from_slice(reasons);
}

/// PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[kind::PINGRESP << 4, 0]);
}

/// DISCONNECT. A server sends none before MQTT 5.
pub fn disconnect(level: Level, reason: u8, properties: &[u8], out: &mut BytesMut) {
    head(kind::DISCONNECT << 4, tail_len(level, reason, properties), out);
    tail(level, reason, properties, out);
}

/// AUTH.
pub fn auth(reason: u8, properties: &[u8], out: &mut BytesMut) {
    if reason == reason::SUCCESS && properties.is_empty() {
        head(kind::AUTH << 4, 0, out);
        return;
    }
    head(kind::AUTH << 4, 1 + block_len(Level::V5, properties), out);
    out.put_u8(reason);
    block(Level::V5, properties, out);
}

/// PUBLISH to one receiver.
pub fn publish(level: Level, packet: &Publish, out: &mut BytesMut) {
    let Publish { dup, qos, retain, topic, packet_id, properties, payload } = packet;
    let body = publish_len(level, *qos, topic.bytes(), properties.bytes(), payload);
    head(publish_first(*qos, *retain) | u8::from(*dup) << 3, body, out);
    put_publish(
        level,
        *qos,
        topic.bytes(),
        packet_id.map_or(0, PacketId::get),
        properties.bytes(),
        payload,
        out,
    );
}

/// How many bytes [`publish`] appends.
pub fn publish_bytes(level: Level, packet: &Publish) -> usize {
    let Publish { qos, topic, properties, payload, .. } = packet;
    let body = publish_len(level, *qos, topic.bytes(), properties.bytes(), payload);
    1 + variable_len(body) + body
}

/// A PUBLISH frame made once for all subscribers of one version, QoS and options.
#[derive(Clone)]
pub struct SharedPublish {
    frame: Bytes,
    /// Where the packet id stands; nowhere with QoS 0.
    packet_id_at: Option<usize>,
}

impl SharedPublish {
    /// A frame without DUP and without its packet id. `properties` is a block of MQTT 5, not written before. A topic is cut
    /// at 65,535 bytes.
    pub fn new(
        level: Level,
        qos: Qos,
        retain: bool,
        topic: &str,
        properties: &[u8],
        payload: &Bytes,
    ) -> Self {
        let topic = topic.as_bytes();
        let topic = topic.get(..FIELD_BYTES_MAX).unwrap_or(topic);
        let body = publish_len(level, qos, topic, properties, payload);
        let mut frame = BytesMut::with_capacity(5 + body);
        head(publish_first(qos, retain), body, &mut frame);
        let packet_id_at = (qos != Qos::AtMostOnce).then_some(frame.len() + 2 + topic.len());
        put_publish(level, qos, topic, 0, properties, payload, &mut frame);
        Self { frame: frame.freeze(), packet_id_at }
    }

    /// The bytes of the packet, fixed header included.
    #[allow(clippy::len_without_is_empty)] // a packet is never empty
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Whether a packet id is needed.
    pub fn needs_packet_id(&self) -> bool {
        self.packet_id_at.is_some()
    }

    /// Appends the frame: one copy, then DUP and the packet id. With QoS 0 both are ignored: MQTT5, 3.1.1
    /// [MQTT-3.3.1-2], [MQTT-2.2.1-2]. With QoS 1 and 2 there must be an id.
    pub fn write(&self, dup: bool, packet_id: Option<PacketId>, out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let Some(at) = self.packet_id_at else { return };
        if dup && let Some(first) = out.get_mut(start) {
            *first |= 1 << 3;
        }
        debug_assert!(packet_id.is_some(), "a packet id with QoS 1 and 2");
        let id = packet_id.map_or(0, PacketId::get).to_be_bytes();
        if let Some(place) = out.get_mut(start + at..start + at + 2) {
            place.copy_from_slice(&id);
        }
    }
}

// INVARIANT I-8: without the payload.
impl fmt::Debug for SharedPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPublish").field("frame", &hidden(self.frame.len())).finish_non_exhaustive()
    }
}

fn publish_first(qos: Qos, retain: bool) -> u8 {
    kind::PUBLISH << 4 | (qos as u8) << 1 | u8::from(retain)
}

fn publish_len(level: Level, qos: Qos, topic: &[u8], properties: &[u8], payload: &[u8]) -> usize {
    let id = if qos == Qos::AtMostOnce { 0 } else { 2 };
    2 + topic.len() + id + block_len(level, properties) + payload.len()
}

fn put_publish(
    level: Level,
    qos: Qos,
    topic: &[u8],
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
    out: &mut BytesMut,
) {
    field(topic, out);
    if qos != Qos::AtMostOnce {
        out.put_u16(packet_id);
    }
    block(level, properties, out);
    out.extend_from_slice(payload);
}

fn connect(level: Level, packet: &Connect, out: &mut BytesMut) {
    let Connect { level: _, clean_start, keep_alive_s, client_id, will, username, password, properties } =
        packet;
    let (name, number): (&[u8], u8) = match level {
        Level::V31 => (b"MQIsdp", 3),
        Level::V311 => (b"MQTT", 4),
        Level::V5 => (b"MQTT", 5),
    };
    let mut flags = u8::from(*clean_start) << 1;
    let mut body = BytesMut::new();
    field(client_id.bytes(), &mut body);
    if let Some(will) = will {
        flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
        block(level, will.properties.bytes(), &mut body);
        field(will.topic.bytes(), &mut body);
        field(&will.payload, &mut body);
    }
    if let Some(password) = password {
        flags |= 1 << 6;
        // 3.1 and 3.1.1 know no password without a user name: 3.1.1 [MQTT-3.1.2-22].
        if username.is_none() && level != Level::V5 {
            flags |= 1 << 7;
            field(&[], &mut body);
        }
        if let Some(username) = username {
            flags |= 1 << 7;
            field(username.bytes(), &mut body);
        }
        field(password, &mut body);
    } else if let Some(username) = username {
        flags |= 1 << 7;
        field(username.bytes(), &mut body);
    }
    head(kind::CONNECT << 4, 2 + name.len() + 4 + block_len(level, properties.bytes()) + body.len(), out);
    field(name, out);
    out.put_u8(number);
    out.put_u8(flags);
    out.put_u16(*keep_alive_s);
    block(level, properties.bytes(), out);
    out.extend_from_slice(&body);
}

fn ack(level: Level, first: u8, packet: &Ack, out: &mut BytesMut) {
    ack_of(level, first, packet.packet_id, packet.reason, packet.properties.bytes(), out);
}

fn ack_of(level: Level, first: u8, packet_id: PacketId, reason: u8, properties: &[u8], out: &mut BytesMut) {
    head(first, 2 + tail_len(level, reason, properties), out);
    out.put_u16(packet_id.get());
    tail(level, reason, properties, out);
}

fn subscribe(level: Level, packet: &Subscribe, out: &mut BytesMut) {
    let filters: usize = packet.filters.iter().map(|(filter, _)| 3 + filter.bytes().len()).sum();
    head(kind::SUBSCRIBE << 4 | 2, 2 + block_len(level, packet.properties.bytes()) + filters, out);
    out.put_u16(packet.packet_id.get());
    block(level, packet.properties.bytes(), out);
    for (filter, options) in &packet.filters {
        field(filter.bytes(), out);
        out.put_u8(options_byte(level, *options));
    }
}

fn options_byte(level: Level, options: SubscribeOptions) -> u8 {
    let SubscribeOptions { qos, no_local, retain_as_published, retain_handling } = options;
    if level != Level::V5 {
        return qos as u8;
    }
    qos as u8 | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3 | (retain_handling & 3) << 4
}

fn unsubscribe(level: Level, packet: &Unsubscribe, out: &mut BytesMut) {
    let filters: usize = packet.filters.iter().map(|filter: &Text| 2 + filter.bytes().len()).sum();
    head(kind::UNSUBSCRIBE << 4 | 2, 2 + block_len(level, packet.properties.bytes()) + filters, out);
    out.put_u16(packet.packet_id.get());
    block(level, packet.properties.bytes(), out);
    for filter in &packet.filters {
        field(filter.bytes(), out);
    }
}

/// A fixed header.
fn head(first: u8, remaining: usize, out: &mut BytesMut) {
    debug_assert!(remaining <= REMAINING_BYTES_MAX, "a packet that has no length");
    out.reserve(5 + remaining);
    out.put_u8(first);
    put_variable(out, remaining);
}

/// A variable byte integer in as few bytes as it needs: MQTT5 [MQTT-1.5.5-1].
pub(super) fn put_variable(out: &mut BytesMut, value: usize) {
    let mut rest = value.min(REMAINING_BYTES_MAX);
    loop {
        let low = (rest & 0x7F) as u8;
        rest >>= 7;
        if rest == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

fn variable_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Bytes behind their length.
fn field(bytes: &[u8], out: &mut BytesMut) {
    // Texts fit by their type; a password or the payload of a will is cut.
    let bytes = bytes.get(..FIELD_BYTES_MAX).unwrap_or(bytes);
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(bytes);
}

fn block_len(level: Level, properties: &[u8]) -> usize {
    if level == Level::V5 { variable_len(properties.len()) + properties.len() } else { 0 }
}

/// Properties behind their length, in MQTT 5.
fn block(level: Level, properties: &[u8], out: &mut BytesMut) {
    if level == Level::V5 {
        put_variable(out, properties.len());
        out.extend_from_slice(properties);
    }
}

fn tail_len(level: Level, reason: u8, properties: &[u8]) -> usize {
    match (level, reason, properties) {
        (Level::V31 | Level::V311, _, _) | (Level::V5, reason::SUCCESS, []) => 0,
        (Level::V5, _, []) => 1,
        (Level::V5, _, properties) => 1 + block_len(level, properties),
    }
}

/// A reason and properties, as far as they say something: MQTT5 §3.4.2.1, §3.14.2.1.
fn tail(level: Level, reason: u8, properties: &[u8], out: &mut BytesMut) {
    if tail_len(level, reason, properties) > 0 {
        out.put_u8(reason);
        if !properties.is_empty() {
            block(level, properties, out);
        }
    }
}
