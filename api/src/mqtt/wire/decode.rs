//! Packets off the front of a read buffer.

use bytes::{Buf, BytesMut};

use super::checks::{
    NAME, NAME_V31, QOS_3, Sniffed, check_filter, check_flags, check_name, options, reasons, sniff,
    unsupported,
};
use super::property::Block;
use super::reader::{NOT_MINIMAL, Reader, TOO_LONG, Variable, variable};
use super::{
    Ack, Auth, Connack, Connect, Disconnect, Fault, Level, Packet, PacketId, Properties, Publish, Qos, Role,
    Suback, Subscribe, Unsuback, Unsubscribe, Will, WireError, malformed, protocol_error, reason,
};

/// How far a read buffer is asked to grow at once, whatever length a packet announces.
const RESERVED_BYTES_MAX: usize = 4096;

/// The kinds of packets: the upper half of the first byte.
pub(super) mod kind {
    pub(in crate::mqtt::wire) const CONNECT: u8 = 1;
    pub(in crate::mqtt::wire) const CONNACK: u8 = 2;
    pub(in crate::mqtt::wire) const PUBLISH: u8 = 3;
    pub(in crate::mqtt::wire) const PUBACK: u8 = 4;
    pub(in crate::mqtt::wire) const PUBREC: u8 = 5;
    pub(in crate::mqtt::wire) const PUBREL: u8 = 6;
    pub(in crate::mqtt::wire) const PUBCOMP: u8 = 7;
    pub(in crate::mqtt::wire) const SUBSCRIBE: u8 = 8;
    pub(in crate::mqtt::wire) const SUBACK: u8 = 9;
    pub(in crate::mqtt::wire) const UNSUBSCRIBE: u8 = 10;
    pub(in crate::mqtt::wire) const UNSUBACK: u8 = 11;
    pub(in crate::mqtt::wire) const PINGREQ: u8 = 12;
    pub(in crate::mqtt::wire) const PINGRESP: u8 = 13;
    pub(in crate::mqtt::wire) const DISCONNECT: u8 = 14;
    pub(in crate::mqtt::wire) const AUTH: u8 = 15;
}

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
    /// room for some of them, at most 4 KiB beyond what arrived or as much again as arrived. What a fixed header shows
    /// to be wrong is an error before the rest arrives. An error ends the connection.
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
                // So that it gets an answer in its own version, whichever way its first bytes arrive.
                let begun = behind.get(length_bytes..).unwrap_or_default();
                match sniff(begun) {
                    Sniffed::Level(level) => self.level = Some(level),
                    Sniffed::Short if begun.len() < remaining => return Ok(None),
                    Sniffed::Short | Sniffed::Other => {}
                }
            }
            return Err(Failure::Fault(Fault {
                reason: reason::PACKET_TOO_LARGE,
                problem: "a packet of more bytes than accepted (MQTT5 [MQTT-3.2.2-15])",
            }));
        }
        if let Some(missing) = total.checked_sub(buffer.len()).filter(|missing| *missing > 0) {
            // Only once it is full, so that many small reads do not add up.
            if buffer.capacity() == buffer.len() {
                buffer.reserve(missing.min(RESERVED_BYTES_MAX));
            }
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
            (name, number) => return Err(Failure::Unsupported(unsupported(name, number))),
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
        if level != Level::V5 && has(6) && !has(7) {
            return Err(malformed("a password without a user name (3.1.1 [MQTT-3.1.2-22], 3.1 §3.1)"));
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
        // §3.15.2.1 allows a success without properties, written out or not.
        let bare = reason == reason::SUCCESS && properties.is_empty();
        if !bare && properties.authentication_method().is_none() {
            return Err(protocol_error("AUTH without an authentication method (MQTT5 §3.15.2.2.2)"));
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
