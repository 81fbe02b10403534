//! The properties of MQTT 5 (§2.2.2.2): which there are, what they hold, where they may stand.

use std::fmt;

use super::packet::hidden;
use super::reader::Slice;
use super::{Fault, Role, malformed, protocol_error, reason, topic};

/// Identifiers.
pub(super) mod id {
    pub(in crate::mqtt::wire) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(in crate::mqtt::wire) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in crate::mqtt::wire) const CONTENT_TYPE: u8 = 0x03;
    pub(in crate::mqtt::wire) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in crate::mqtt::wire) const CORRELATION_DATA: u8 = 0x09;
    pub(in crate::mqtt::wire) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(in crate::mqtt::wire) const SESSION_EXPIRY: u8 = 0x11;
    pub(in crate::mqtt::wire) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(in crate::mqtt::wire) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in crate::mqtt::wire) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in crate::mqtt::wire) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in crate::mqtt::wire) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in crate::mqtt::wire) const WILL_DELAY: u8 = 0x18;
    pub(in crate::mqtt::wire) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in crate::mqtt::wire) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in crate::mqtt::wire) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in crate::mqtt::wire) const REASON_STRING: u8 = 0x1F;
    pub(in crate::mqtt::wire) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in crate::mqtt::wire) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in crate::mqtt::wire) const TOPIC_ALIAS: u8 = 0x23;
    pub(in crate::mqtt::wire) const MAXIMUM_QOS: u8 = 0x24;
    pub(in crate::mqtt::wire) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in crate::mqtt::wire) const USER: u8 = 0x26;
    pub(in crate::mqtt::wire) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in crate::mqtt::wire) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(in crate::mqtt::wire) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub(in crate::mqtt::wire) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// Where a block of properties stands; one bit each. PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK allow the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Block {
    Connect = 1,
    Will = 2,
    Connack = 4,
    Publish = 8,
    Ack = 16,
    Subscribe = 32,
    Unsubscribe = 64,
    Disconnect = 128,
    Auth = 256,
}

/// What a property holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

// INVARIANT I-8: texts and data belong to people, and may be credentials.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(number) => number.fmt(f),
            Self::Two(number) => number.fmt(f),
            Self::Four(number) | Self::Variable(number) => number.fmt(f),
            Self::Text(text) => hidden(text.len()).fmt(f),
            Self::Binary(data) => hidden(data.len()).fmt(f),
            Self::Pair(name, value) => hidden(name.len() + value.len()).fmt(f),
        }
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Byte,
    Two,
    Four,
    Variable,
    Text,
    Binary,
    Pair,
}

/// The table of §2.2.2.2: the shape, and the blocks it may stand in.
fn row(id: u8) -> Option<(Shape, u16)> {
    const CONNECT: u16 = Block::Connect as u16;
    const WILL: u16 = Block::Will as u16;
    const CONNACK: u16 = Block::Connack as u16;
    const PUBLISH: u16 = Block::Publish as u16;
    const ACK: u16 = Block::Ack as u16;
    const SUBSCRIBE: u16 = Block::Subscribe as u16;
    const DISCONNECT: u16 = Block::Disconnect as u16;
    const AUTH: u16 = Block::Auth as u16;
    const ALL: u16 = u16::MAX;
    Some(match id {
        id::PAYLOAD_FORMAT_INDICATOR => (Shape::Byte, PUBLISH | WILL),
        id::MESSAGE_EXPIRY => (Shape::Four, PUBLISH | WILL),
        id::CONTENT_TYPE => (Shape::Text, PUBLISH | WILL),
        id::RESPONSE_TOPIC => (Shape::Text, PUBLISH | WILL),
        id::CORRELATION_DATA => (Shape::Binary, PUBLISH | WILL),
        id::SUBSCRIPTION_IDENTIFIER => (Shape::Variable, PUBLISH | SUBSCRIBE),
        id::SESSION_EXPIRY => (Shape::Four, CONNECT | CONNACK | DISCONNECT),
        id::ASSIGNED_CLIENT_IDENTIFIER => (Shape::Text, CONNACK),
        id::SERVER_KEEP_ALIVE => (Shape::Two, CONNACK),
        id::AUTHENTICATION_METHOD => (Shape::Text, CONNECT | CONNACK | AUTH),
        id::AUTHENTICATION_DATA => (Shape::Binary, CONNECT | CONNACK | AUTH),
        id::REQUEST_PROBLEM_INFORMATION => (Shape::Byte, CONNECT),
        id::WILL_DELAY => (Shape::Four, WILL),
        id::REQUEST_RESPONSE_INFORMATION => (Shape::Byte, CONNECT),
        id::RESPONSE_INFORMATION => (Shape::Text, CONNACK),
        id::SERVER_REFERENCE => (Shape::Text, CONNACK | DISCONNECT),
        id::REASON_STRING => (Shape::Text, CONNACK | ACK | DISCONNECT | AUTH),
        id::RECEIVE_MAXIMUM => (Shape::Two, CONNECT | CONNACK),
        id::TOPIC_ALIAS_MAXIMUM => (Shape::Two, CONNECT | CONNACK),
        id::TOPIC_ALIAS => (Shape::Two, PUBLISH),
        id::MAXIMUM_QOS => (Shape::Byte, CONNACK),
        id::RETAIN_AVAILABLE => (Shape::Byte, CONNACK),
        id::USER => (Shape::Pair, ALL),
        id::MAXIMUM_PACKET_SIZE => (Shape::Four, CONNECT | CONNACK),
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => (Shape::Byte, CONNACK),
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => (Shape::Byte, CONNACK),
        id::SHARED_SUBSCRIPTION_AVAILABLE => (Shape::Byte, CONNACK),
        _ => return None,
    })
}

/// The properties of a block, in order, as far as it can be read.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    rest: Slice<'a>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { rest: Slice::new(block) }
    }

    /// How many bytes are still to be read.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn property(&mut self) -> Result<(u8, u16, Value<'a>), Fault> {
        const UNKNOWN: Fault = malformed("an unknown property (MQTT5 §2.2.2.2)");
        let rest = &mut self.rest;
        let id = u8::try_from(rest.variable()?).map_err(|_| UNKNOWN)?;
        let (shape, blocks) = row(id).ok_or(UNKNOWN)?;
        let value = match shape {
            Shape::Byte => Value::Byte(rest.u8()?),
            Shape::Two => Value::Two(rest.u16()?),
            Shape::Four => Value::Four(rest.u32()?),
            Shape::Variable => Value::Variable(rest.variable()?),
            Shape::Text => Value::Text(rest.text()?),
            Shape::Binary => Value::Binary(rest.binary()?),
            Shape::Pair => Value::Pair(rest.text()?, rest.text()?),
        };
        Ok((id, blocks, value))
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = (u8, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left() == 0 {
            return None;
        }
        // INVARIANT: blocks are checked when they are decoded and well-formed when they are written.
        self.property().ok().map(|(id, _, value)| (id, value))
    }
}

/// Reads a block once and refuses what may not stand in it.
pub(super) fn check(bytes: &[u8], block: Block, receiver: Role) -> Result<(), Fault> {
    let mut scan = Scan::new(bytes);
    let mut seen = 0_u64;
    while scan.left() > 0 {
        let (id, blocks, value) = scan.property()?;
        if blocks & block as u16 == 0 {
            return Err(malformed("a property in a packet of another kind (MQTT5 §2.2.2.2)"));
        }
        // INVARIANT: the highest identifier is 0x2A.
        let bit = 1_u64.checked_shl(u32::from(id)).unwrap_or(0);
        let may_repeat = id == id::USER || (id == id::SUBSCRIPTION_IDENTIFIER && block == Block::Publish);
        if seen & bit != 0 && !may_repeat {
            return Err(protocol_error(
                "a property more than once (MQTT5 §2.2.2.2 and the property's own section)",
            ));
        }
        seen |= bit;
        check_value(id, value)?;
        check_direction(id, block, receiver)?;
    }
    let has = |id: u8| seen & (1_u64 << id) != 0;
    if has(id::AUTHENTICATION_DATA) && !has(id::AUTHENTICATION_METHOD) {
        return Err(protocol_error("authentication data without a method (MQTT5 §3.1.2.11.10)"));
    }
    Ok(())
}

fn check_value(id: u8, value: Value<'_>) -> Result<(), Fault> {
    match (id, value) {
        // Every property of one byte is a yes or a no, or a QoS of 0 or 1.
        (_, Value::Byte(2..)) => {
            Err(protocol_error("a property of 0 or 1 with another value (MQTT5 §3.1.2.11, §3.2.2.3)"))
        }
        (id::RECEIVE_MAXIMUM, Value::Two(0)) => {
            Err(protocol_error("a receive maximum of 0 (MQTT5 §3.1.2.11.3)"))
        }
        (id::MAXIMUM_PACKET_SIZE, Value::Four(0)) => {
            Err(protocol_error("a maximum packet size of 0 (MQTT5 §3.1.2.11.4)"))
        }
        (id::TOPIC_ALIAS, Value::Two(0)) => Err(Fault {
            reason: reason::TOPIC_ALIAS_INVALID,
            problem: "topic alias 0 (MQTT5 [MQTT-3.3.2-8])",
        }),
        (id::SUBSCRIPTION_IDENTIFIER, Value::Variable(0)) => {
            Err(protocol_error("subscription identifier 0 (MQTT5 §3.8.2.1.2)"))
        }
        (id::RESPONSE_TOPIC, Value::Text(name)) if !topic::is_name(name) => {
            Err(protocol_error("a response topic that is no topic name (MQTT5 [MQTT-3.3.2-14])"))
        }
        _ => Ok(()),
    }
}

fn check_direction(id: u8, block: Block, receiver: Role) -> Result<(), Fault> {
    match (id, block, receiver) {
        (id::SUBSCRIPTION_IDENTIFIER, Block::Publish, Role::Server) => {
            Err(protocol_error("a subscription identifier in a client's PUBLISH (MQTT5 [MQTT-3.3.4-6])"))
        }
        (id::SESSION_EXPIRY, Block::Disconnect, Role::Client) => {
            Err(protocol_error("a session expiry in a server's DISCONNECT (MQTT5 [MQTT-3.14.2-2])"))
        }
        _ => Ok(()),
    }
}
