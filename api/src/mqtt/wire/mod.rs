//! The bytes of MQTT 3.1, 3.1.1 and 5.0: a strict decoder that copies nothing, and encoders.
//!
//! A [`Decoder`] takes packets off the front of a read buffer; texts, properties and payloads are slices of it. It
//! learns the level of a connection from its CONNECT. Whatever the version forbids is a [`WireError`], with the reason
//! an answer would carry, and ends the connection. What only the state of a session can tell (a topic alias above the
//! maximum, an unknown packet id) is left to the caller.
//!
//! No byte a peer sends makes this module panic or reserve more memory than it sent: indexing, `unwrap` and `expect`
//! are denied here, and the decoder is fuzzed.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod checks;
mod decode;
pub mod encode;
#[doc(hidden)]
pub mod fuzz;
mod packet;
mod properties;
mod property;
mod reader;
pub mod reason;
#[cfg(test)]
mod tests;
mod text;
pub mod topic;
mod writer;

use std::fmt;

pub use decode::Decoder;
pub use packet::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, Publish, Suback, Subscribe, SubscribeOptions, Unsuback,
    Unsubscribe, Will,
};
pub use properties::Properties;
pub use text::Text;
pub use writer::PropertyWriter;

/// The id of a packet that is answered. Zero is no id: MQTT5 [MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1].
pub type PacketId = std::num::NonZeroU16;

/// The most bytes that can follow a fixed header: four bytes of seven bits.
pub const REMAINING_BYTES_MAX: usize = 268_435_455;

/// The most bytes of a text or of binary data: their length has two bytes.
pub const FIELD_BYTES_MAX: usize = u16::MAX as usize;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5.0: `MQTT`, level 5.
    V5,
}

/// How often a message arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level of service of two bits; 3 is none.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Whose side a decoder is on. Some packets and properties may travel in one direction only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Decodes what clients send.
    Server,
    /// Decodes what servers send.
    Client,
}

/// Bytes that the version of the connection forbids. The connection is over: MQTT5 [MQTT-4.13.1-1], 3.1.1 [MQTT-4.8.0-1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireError {
    /// The MQTT 5 reason code that says so, see [`reason`].
    pub reason: u8,
    /// What is wrong, with the rule's number where it has one. Repeats no input.
    pub problem: &'static str,
    /// The version whose form an answer takes; `None` when the peer spoke none that is known, and is told nothing.
    /// With [`reason::UNSUPPORTED_PROTOCOL_VERSION`] this is the nearest version: 3.1 and 3.1.1 answer CONNACK 0x01,
    /// 5.0 answers 0x84 (3.1.1 [MQTT-3.1.2-2]).
    pub level: Option<Level>,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.problem, self.reason)
    }
}

impl std::error::Error for WireError {}

/// A [`WireError`] before it is known whom it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    reason: u8,
    problem: &'static str,
}

/// Bytes that are no packet.
const fn malformed(problem: &'static str) -> Fault {
    Fault { reason: reason::MALFORMED_PACKET, problem }
}

/// A packet that may not be sent, or not like this.
const fn protocol_error(problem: &'static str) -> Fault {
    Fault { reason: reason::PROTOCOL_ERROR, problem }
}
