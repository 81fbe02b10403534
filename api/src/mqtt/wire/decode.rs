//! Packets off the front of a read buffer.

use bytes::{Buf, Bytes, BytesMut};

use super::property::Block;
use super::reader::{NOT_MINIMAL, Reader, TOO_LONG, Variable, variable};
use super::{
    Ack, Auth, Connack, Connect, Disconnect, Fault, Level, Packet, PacketId, Properties, Publish, Qos, Role,
    Suback, Subscribe, SubscribeOptions, Text, Unsuback, Unsubscribe, Will, WireError, malformed,
    protocol_error, reason, topic,
};

/// How far a read buffer is asked to grow at once, whatever length a packet announces.
const RESERVED_BYTES_MAX: usize = 4096;

/// The kinds of packets: the upper half of the first byte.
pub(super) mod kind {
    pub(in super::super) const CONNECT: u8 = 1;
    pub(in super::super) const CONNACK: u8 = 2;
    pub(in super::super) const PUBLISH: u8 = 3;
    pub(in super::super) const PUBACK: u8 = 4;
    pub(in super::super) const PUBREC: u8 = 5;
    pub(in super::super) const PUBREL: u8 = 6;
    pub(in super::super) const PUBCOMP: u8 = 7;
    pub(in super::super) const SUBSCRIBE: u8 = 8;
    pub(in super::super) const SUBACK: u8 = 9;
    pub(in super::super) const UNSUBSCRIBE: u8 = 10;
    pub(in super::super) const UNSUBACK: u8 = 11;
    pub(in super::super) const PINGREQ: u8 = 12;
    pub(in super::super) const PINGRESP: u8 = 13;
    pub(in super::super) const DISCONNECT: u8 = 14;
    pub(in super::super) const AUTH: u8 = 15;
}

/// The names of the protocol: 3.1, and since.
const NAME_V31: &[u8] = b"MQIsdp";
const NAME: &[u8] = b"MQTT";

/// Takes packets off the front of the bytes of one connection.
#[derive(Debug, Clone)]
pub struct Decoder {
    role: Role,
    /// Known once a CONNECT was read or it was set.
    level: Option<Level>,
    packet_bytes_max: usize,
}

impl Decoder {
    /// A decoder at the start of a connection. A server's learns its level from CONNECT; a client's is told by
    /// [`Self::set_level`], and speaks 3.1.1 until then. `packet_bytes_max` counts the fixed header.
    pub fn new(role: Role, packet_bytes_max: usize) -> Self {
        Self { role, level: None, packet_bytes_max }
    }

    /// The version of the connection, once it is known.
    pub fn level(&self) -> Option<Level> {
        self.level
    }

    /// Sets the version of the connection. To a server's decoder this stands for a CONNECT.
    pub fn set_level(&mut self, level: Level) {
        self.level = Some(level);
    }

    /// Changes the most bytes of a packet, fixed header included.
    pub fn set_packet_bytes_max(&mut self, bytes: usize) {
        self.packet_bytes_max = bytes;
    }

    /// Takes one packet off the front of `buffer`, as slices of it. `Ok(None)`: more bytes are needed; `buffer` then has
    /// room for what is missing, at most 4 KiB beyond what arrived (a buffer that grows may double). An error is found as
    /// soon as the bytes that show it are there, and ends the connection.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, WireError> {
        self.packet(buffer).map_err(|failure| match failure {
            Failure::Fault(Fault { reason, problem }) => WireError { reason, problem, level: self.level },
            Failure::Unsupported(error) => error,
        })
    }

    fn packet(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, Failure> {
        let Some((&first, behind)) = buffer.split_first() else { return Ok(None) };
        self.check_first(first)?;
        let (remaining, length_bytes, minimal) = match variable(behind) {
            Variable::Value { value, bytes, minimal } => (value, bytes, minimal),
            Variable::Short => return Ok(None),
            Variable::TooLong => return Err(TOO_LONG.into()),
        };
        // In 3.1 and 3.1.1 nothing forbids a length of more bytes than needed.
        if !minimal && self.level == Some(Level::V5) {
            return Err(NOT_MINIMAL.into());
        }
        let header = 1 + length_bytes;
        let total = header.saturating_add(remaining);
        if total > self.packet_bytes_max {
            if self.level.is_none() && first >> 4 == kind::CONNECT {
                // So that a CONNECT that is too large gets an answer in its own version.
                self.level = sniff(behind.get(length_bytes..).unwrap_or_default());
            }
            return Err(Failure::Fault(Fault {
                reason: reason::PACKET_TOO_LARGE,
                problem: "a packet of more bytes than accepted (MQTT5 [MQTT-3.2.2-15])",
            }));
        }
        if let Some(missing) = total.checked_sub(buffer.len()).filter(|missing| *missing > 0) {
            buffer.reserve(missing.min(RESERVED_BYTES_MAX));
            return Ok(None);
        }
        let mut body = buffer.split_to(total).freeze();
        body.advance(header);
        let flags = first & 0x0F;
        let reader = Reader::new(body);
        if first >> 4 == kind::CONNECT {
            return self.connect(flags, minimal, reader).map(Some);
        }
        let level = self.level.unwrap_or(Level::V311);
        Ok(Some(self.body(level, first >> 4, flags, reader)?))
    }

    /// All that the first byte shows, before the rest is waited for.
    fn check_first(&self, first: u8) -> Result<(), Fault> {
        let (kind, flags) = (first >> 4, first & 0x0F);
        let level = match (self.role, self.level) {
            (Role::Server, None) if kind == kind::CONNECT => return Ok(()),
            (Role::Server, None) => {
                return Err(protocol_error("the first packet is no CONNECT (MQTT5, 3.1.1 [MQTT-3.1.0-1])"));
            }
            (Role::Server, Some(_)) if kind == kind::CONNECT => {
                return Err(protocol_error("a second CONNECT (MQTT5, 3.1.1 [MQTT-3.1.0-2])"));
            }
            (_, level) => level.unwrap_or(Level::V311),
        };
        if kind == 0 || (kind == kind::AUTH && level != Level::V5) {
            return Err(malformed("a reserved kind of packet (MQTT5 §2.1.2, 3.1.1 §2.2.1)"));
        }
        let allowed = match kind {
            kind::CONNECT | kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PINGREQ => self.role == Role::Server,
            kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => self.role == Role::Client,
            kind::DISCONNECT => self.role == Role::Server || level == Level::V5,
            _ => true,
        };
        if !allowed {
            return Err(protocol_error("a packet in the wrong direction (MQTT5 §2.1.2, 3.1.1 §2.2.1)"));
        }
        check_flags(level, kind, flags)
    }

    fn body(&self, level: Level, kind: u8, flags: u8, mut reader: Reader) -> Result<Packet, Fault> {
        let r = &mut reader;
        let packet = match kind {
            kind::PUBLISH => return self.publish(level, flags, reader).map(Packet::Publish),
            kind::PUBACK => Packet::Puback(self.ack(level, r, reason::of_puback)?),
            kind::PUBREC => Packet::Pubrec(self.ack(level, r, reason::of_puback)?),
            kind::PUBREL => Packet::Pubrel(self.ack(level, r, reason::of_pubrel)?),
            kind::PUBCOMP => Packet::Pubcomp(self.ack(level, r, reason::of_pubrel)?),
            kind::SUBSCRIBE => Packet::Subscribe(self.subscribe(level, r)?),
            kind::UNSUBSCRIBE => Packet::Unsubscribe(self.unsubscribe(level, r)?),
            kind::CONNACK => Packet::Connack(self.connack(level, r)?),
            kind::SUBACK => {
                let packet_id = r.packet_id()?;
                let properties = self.properties(level, r, Block::Ack)?;
                let reasons = reasons(r, |code| reason::of_suback(level, code))?;
                if reasons.is_empty() {
                    return Err(protocol_error(
                        "a SUBACK without a code (MQTT5 [MQTT-3.8.4-6], 3.1.1 [MQTT-3.8.4-5])",
                    ));
                }
                Packet::Suback(Suback { packet_id, properties, reasons })
            }
            kind::UNSUBACK => self.unsuback(level, r)?,
            kind::PINGREQ => Packet::Pingreq,
            kind::PINGRESP => Packet::Pingresp,
            kind::DISCONNECT => Packet::Disconnect(self.disconnect(level, r)?),
            _ => Packet::Auth(self.auth(r)?),
        };
        reader.end()?;
        Ok(packet)
    }

    fn properties(&self, level: Level, reader: &mut Reader, block: Block) -> Result<Properties, Fault> {
        if level != Level::V5 {
            return Ok(Properties::default());
        }
        Properties::checked(reader.property_block()?, block, self.role)
    }

    fn connect(&mut self, flags: u8, minimal: bool, mut reader: Reader) -> Result<Packet, Failure> {
        let name = reader.binary()?;
        let number = reader.u8()?;
        let level = match (&*name, number) {
            (NAME_V31, 3) => Level::V31,
            (NAME, 4) => Level::V311,
            (NAME, 5) => Level::V5,
            (name, number) => return Err(unsupported(name, number)),
        };
        self.level = Some(level);
        if level == Level::V5 && !minimal {
            return Err(NOT_MINIMAL.into());
        }
        check_flags(level, kind::CONNECT, flags)?;
        let connect = self.connect_of(level, &mut reader)?;
        reader.end()?;
        Ok(Packet::Connect(Box::new(connect)))
    }

    /// CONNECT behind its level: MQTT5 §3.1.2.3, 3.1.1 §3.1.2.3.
    fn connect_of(&self, level: Level, reader: &mut Reader) -> Result<Connect, Fault> {
        let flags = reader.u8()?;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let strict = level != Level::V31;
        if strict && has(0) {
            return Err(malformed("the reserved flag of CONNECT is set (MQTT5, 3.1.1 [MQTT-3.1.2-3])"));
        }
        let will_qos = Qos::from_bits((flags >> 3) & 3);
        if strict && !has(2) && flags & 0b0011_1000 != 0 {
            return Err(malformed(
                "will QoS or retain without a will (MQTT5 [MQTT-3.1.2-11] [MQTT-3.1.2-13], 3.1.1 [MQTT-3.1.2-13] [MQTT-3.1.2-15])",
            ));
        }
        if level == Level::V311 && has(6) && !has(7) {
            return Err(malformed("a password without a user name (3.1.1 [MQTT-3.1.2-22])"));
        }
        let keep_alive_s = reader.u16()?;
        let properties = self.properties(level, reader, Block::Connect)?;
        let client_id = reader.text()?;
        let will = if has(2) {
            let qos =
                will_qos.ok_or(malformed("will QoS 3 (MQTT5 [MQTT-3.1.2-12], 3.1.1 [MQTT-3.1.2-14])"))?;
            let properties = self.properties(level, reader, Block::Will)?;
            let topic = reader.text()?;
            check_name(level, &topic)?;
            Some(Will { qos, retain: has(5), topic, payload: reader.binary()?, properties })
        } else {
            None
        };
        // 3.1: the remaining length takes precedence over the flags, a name and a password may be missing.
        let there = |flag: bool, reader: &Reader| flag && (strict || !reader.is_empty());
        let username = if there(has(7), reader) { Some(reader.text()?) } else { None };
        let password = if there(has(6), reader) { Some(reader.binary()?) } else { None };
        Ok(Connect {
            level,
            clean_start: has(1),
            keep_alive_s,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    fn connack(&self, level: Level, reader: &mut Reader) -> Result<Connack, Fault> {
        let flags = reader.u8()?;
        if level != Level::V31 && flags > 1 {
            return Err(malformed(
                "a reserved flag of CONNACK is set (MQTT5 [MQTT-3.2.2-1], 3.1.1 §3.2.2.1)",
            ));
        }
        let reason = reader.u8()?;
        if !reason::of_connack(level, reason) {
            return Err(protocol_error(
                "a reason that CONNACK does not know (MQTT5 [MQTT-3.2.2-8], 3.1.1 §3.2.2.3)",
            ));
        }
        // 3.1 has no such flag; the byte is not used.
        let session_present = level != Level::V31 && flags == 1;
        if session_present && reason != reason::SUCCESS {
            return Err(protocol_error(
                "session present in a refusal (MQTT5 [MQTT-3.2.2-6], 3.1.1 [MQTT-3.2.2-4])",
            ));
        }
        let properties = self.properties(level, reader, Block::Connack)?;
        Ok(Connack { session_present, reason, properties })
    }

    fn publish(&self, level: Level, flags: u8, mut reader: Reader) -> Result<Publish, Fault> {
        // INVARIANT: the first byte was checked, so the QoS is not 3.
        let qos = Qos::from_bits((flags >> 1) & 3).ok_or(QOS_3)?;
        let topic = reader.text()?;
        let packet_id = if qos == Qos::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let properties = self.properties(level, &mut reader, Block::Publish)?;
        if level == Level::V5 && topic.bytes().is_empty() {
            if properties.topic_alias().is_none() {
                return Err(protocol_error("no topic and no topic alias (MQTT5 §3.3.2.1)"));
            }
        } else {
            check_name(level, &topic)?;
        }
        let (dup, retain) = (flags & 8 != 0, flags & 1 != 0);
        Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: reader.rest() })
    }

    /// PUBACK, PUBREC, PUBREL, PUBCOMP. In MQTT 5 a reason of 0 and empty properties may be left out: §3.4.2.1.
    fn ack(&self, level: Level, reader: &mut Reader, known: fn(u8) -> bool) -> Result<Ack, Fault> {
        let packet_id = reader.packet_id()?;
        let (reason, properties) = self.reason_and_properties(level, reader, Block::Ack)?;
        if !known(reason) {
            return Err(protocol_error(
                "a reason that this packet does not know (MQTT5 [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1])",
            ));
        }
        Ok(Ack { packet_id, reason, properties })
    }

    /// A reason and properties that end a packet, and may be left out in MQTT 5.
    fn reason_and_properties(
        &self,
        level: Level,
        reader: &mut Reader,
        block: Block,
    ) -> Result<(u8, Properties), Fault> {
        let none = Properties::default();
        if level != Level::V5 || reader.is_empty() {
            return Ok((reason::SUCCESS, none));
        }
        let reason = reader.u8()?;
        if reader.is_empty() {
            return Ok((reason, none));
        }
        Ok((reason, self.properties(level, reader, block)?))
    }

    fn subscribe(&self, level: Level, reader: &mut Reader) -> Result<Subscribe, Fault> {
        let packet_id = reader.packet_id()?;
        let properties = self.properties(level, reader, Block::Subscribe)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.text()?;
            let shared = check_filter(level, &filter)?;
            let options = options(level, reader.u8()?)?;
            if shared && options.no_local {
                return Err(protocol_error("no local on a shared subscription (MQTT5 [MQTT-3.8.3-4])"));
            }
            filters.push((filter, options));
        }
        if filters.is_empty() {
            return Err(protocol_error(
                "SUBSCRIBE without a filter (MQTT5 [MQTT-3.8.3-2], 3.1.1 [MQTT-3.8.3-3])",
            ));
        }
        Ok(Subscribe { packet_id, properties, filters })
    }

    fn unsubscribe(&self, level: Level, reader: &mut Reader) -> Result<Unsubscribe, Fault> {
        let packet_id = reader.packet_id()?;
        let properties = self.properties(level, reader, Block::Unsubscribe)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.text()?;
            check_filter(level, &filter)?;
            filters.push(filter);
        }
        if filters.is_empty() {
            return Err(protocol_error(
                "UNSUBSCRIBE without a filter (MQTT5 [MQTT-3.10.3-2], 3.1.1 [MQTT-3.10.3-2])",
            ));
        }
        Ok(Unsubscribe { packet_id, properties, filters })
    }

    fn unsuback(&self, level: Level, reader: &mut Reader) -> Result<Packet, Fault> {
        let packet_id: PacketId = reader.packet_id()?;
        let properties = self.properties(level, reader, Block::Ack)?;
        // 3.1 and 3.1.1 end here.
        let reasons = if level == Level::V5 { reasons(reader, reason::of_unsuback)? } else { Vec::new() };
        if level == Level::V5 && reasons.is_empty() {
            return Err(protocol_error("an UNSUBACK without a code (MQTT5 [MQTT-3.11.3-1])"));
        }
        Ok(Packet::Unsuback(Unsuback { packet_id, properties, reasons }))
    }

    fn disconnect(&self, level: Level, reader: &mut Reader) -> Result<Disconnect, Fault> {
        let (reason, properties) = self.reason_and_properties(level, reader, Block::Disconnect)?;
        if !reason::of_disconnect(self.role, reason) {
            return Err(protocol_error("a reason that DISCONNECT does not know (MQTT5 [MQTT-3.14.2-1])"));
        }
        Ok(Disconnect { reason, properties })
    }

    fn auth(&self, reader: &mut Reader) -> Result<Auth, Fault> {
        if reader.is_empty() {
            // MQTT5 §3.15.2.1: success without properties has no bytes at all.
            return self.auth_of(reason::SUCCESS, Properties::default());
        }
        let reason = reader.u8()?;
        let properties = self.properties(Level::V5, reader, Block::Auth)?;
        self.auth_of(reason, properties)
    }

    fn auth_of(&self, reason: u8, properties: Properties) -> Result<Auth, Fault> {
        if !reason::of_auth(self.role, reason) {
            return Err(protocol_error("a reason that AUTH does not know (MQTT5 [MQTT-3.15.2-1])"));
        }
        Ok(Auth { reason, properties })
    }
}

/// What ends a decoder.
enum Failure {
    Fault(Fault),
    /// Of a version that is not spoken here.
    Unsupported(WireError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

const QOS_3: Fault = malformed("QoS 3 (MQTT5, 3.1.1 [MQTT-3.3.1-4])");

/// The flags of a fixed header: MQTT5 [MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]. 3.1 does not use most of them.
fn check_flags(level: Level, kind: u8, flags: u8) -> Result<(), Fault> {
    if kind == kind::PUBLISH {
        if flags & 0b0110 == 0b0110 {
            return Err(QOS_3);
        }
        if level != Level::V31 && flags & 0b1110 == 0b1000 {
            return Err(malformed("DUP with QoS 0 (MQTT5, 3.1.1 [MQTT-3.3.1-2])"));
        }
        return Ok(());
    }
    let with_qos = matches!(kind, kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE);
    let right = match level {
        // 3.1 §2.1: these three are QoS 1 and may be sent again with DUP; other packets do not use the flags.
        Level::V31 => !with_qos || flags & 0b0110 == 0b0010,
        Level::V311 | Level::V5 => flags == if with_qos { 0b0010 } else { 0 },
    };
    if right {
        return Ok(());
    }
    Err(malformed(
        "flags of a fixed header (MQTT5 [MQTT-2.1.3-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.6.1-1], 3.1.1 [MQTT-2.2.2-2])",
    ))
}

/// A CONNECT of a level that is not ours; who names another protocol gets no answer.
fn unsupported(name: &[u8], number: u8) -> Failure {
    // The highest bit marks a bridge (mosquitto); its answer is in the form of the rest.
    let level = match (name, number & 0x7F) {
        (NAME_V31, _) => Some(Level::V31),
        (NAME, ..=4) => Some(Level::V311),
        (NAME, _) => Some(Level::V5),
        _ => None,
    };
    Failure::Unsupported(WireError {
        reason: reason::UNSUPPORTED_PROTOCOL_VERSION,
        problem: "a protocol name or level that is not spoken here (MQTT5, 3.1.1 [MQTT-3.1.2-1] [MQTT-3.1.2-2])",
        level,
    })
}

/// The level of a CONNECT whose body begins like this.
fn sniff(body: &[u8]) -> Option<Level> {
    match body {
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, ..] => Some(Level::V31),
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Some(Level::V311),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Some(Level::V5),
        _ => None,
    }
}

/// The most characters of a topic in 3.1 (§3.3, topic name).
const V31_TOPIC_CHARS_MAX: usize = 32_767;

fn too_long_for_v31(level: Level, topic: &Text) -> bool {
    level == Level::V31
        && topic.bytes().len() > V31_TOPIC_CHARS_MAX
        && topic.chars().count() > V31_TOPIC_CHARS_MAX
}

fn check_name(level: Level, name: &Text) -> Result<(), Fault> {
    if topic::is_name(name) && !too_long_for_v31(level, name) {
        return Ok(());
    }
    Err(Fault {
        reason: reason::TOPIC_NAME_INVALID,
        problem: "a topic name that is empty or has a wildcard (MQTT5, 3.1.1 [MQTT-3.3.2-2] [MQTT-4.7.3-1])",
    })
}

/// Whether a filter is that of a shared subscription. Before MQTT 5 `$share` means nothing to the protocol.
fn check_filter(level: Level, filter: &Text) -> Result<bool, Fault> {
    if !topic::is_filter(filter) || too_long_for_v31(level, filter) {
        return Err(Fault {
            reason: reason::TOPIC_FILTER_INVALID,
            problem: "no topic filter (MQTT5 [MQTT-4.7.1-1] [MQTT-4.7.1-2], 3.1.1 [MQTT-4.7.1-2] [MQTT-4.7.1-3], [MQTT-4.7.3-1])",
        });
    }
    if level != Level::V5 {
        return Ok(false);
    }
    match topic::shared(filter) {
        Ok(shared) => Ok(shared.is_some()),
        Err(topic::BadShare) => Err(Fault {
            reason: reason::TOPIC_FILTER_INVALID,
            problem: "no shared subscription (MQTT5 [MQTT-4.8.2-1] [MQTT-4.8.2-2])",
        }),
    }
}

fn options(level: Level, byte: u8) -> Result<SubscribeOptions, Fault> {
    const RESERVED: Fault =
        malformed("reserved bits of subscription options (MQTT5 [MQTT-3.8.3-5], 3.1.1 [MQTT-3.8.3-4])");
    let reserved = match level {
        Level::V31 => 0, // 3.1 §3.8 does not use the upper bits.
        Level::V311 => 0b1111_1100,
        Level::V5 => 0b1100_0000,
    };
    if byte & reserved != 0 {
        return Err(RESERVED);
    }
    let qos = Qos::from_bits(byte & 3)
        .ok_or(protocol_error("a subscription with QoS 3 (MQTT5 §3.8.3.1, 3.1.1 [MQTT-3.8.3-4])"))?;
    if level != Level::V5 {
        return Ok(SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: 0 });
    }
    let retain_handling = (byte >> 4) & 3;
    if retain_handling == 3 {
        return Err(protocol_error("retain handling 3 (MQTT5 §3.8.3.1)"));
    }
    Ok(SubscribeOptions { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
}

fn reasons(reader: &mut Reader, known: impl Fn(u8) -> bool) -> Result<Vec<u8>, Fault> {
    let codes: Bytes = reader.take_rest();
    if codes.iter().all(|code| known(*code)) {
        return Ok(codes.to_vec());
    }
    Err(protocol_error(
        "a reason that this packet does not know (MQTT5 [MQTT-3.9.3-2] [MQTT-3.11.3-2], 3.1.1 [MQTT-3.9.3-2])",
    ))
}
