//! Properties to be sent.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::encode::put_variable;
use super::property::{Scan, id};
use super::text::is_text;
use super::{FIELD_BYTES_MAX, Properties};

/// Builds a block of properties, in the order of the calls. A text that MQTT does not allow, and anything longer than
/// 65,535 bytes, is left out. Which property may stand in which packet, and how often, is the caller's to know.
#[derive(Clone, Default)]
pub struct PropertyWriter {
    block: BytesMut,
}

/// Writers of one value each.
macro_rules! writers {
    ($($(#[$doc:meta])* $name:ident: $put:ident, $id:ident, $type:ty;)*) => {
        $($(#[$doc])*
        pub fn $name(&mut self, value: $type) -> &mut Self {
            self.$put(id::$id, value)
        })*
    };
}

impl PropertyWriter {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// The block so far, without its length.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Empties the block and keeps its memory.
    pub fn clear(&mut self) {
        self.block.clear();
    }

    /// The block as properties of a packet.
    pub fn finish(self) -> Properties {
        Properties::written(self.block.freeze())
    }

    /// Properties as they were read: [`Properties::forwardable`].
    pub fn raw(&mut self, block: &[u8]) -> &mut Self {
        self.block.extend_from_slice(block);
        self
    }

    writers! {
        /// Whether the payload is text (1) or any bytes (0).
        payload_format_indicator: put_u8, PAYLOAD_FORMAT_INDICATOR, u8;
        /// How long the message is worth delivering, in seconds.
        message_expiry_s: put_u32, MESSAGE_EXPIRY, u32;
        /// The media type of the payload.
        content_type: put_text, CONTENT_TYPE, &str;
        /// Where a response is expected.
        response_topic: put_text, RESPONSE_TOPIC, &str;
        /// What a response repeats.
        correlation_data: put_binary, CORRELATION_DATA, &[u8];
        /// How long the session outlives its connection, in seconds.
        session_expiry_s: put_u32, SESSION_EXPIRY, u32;
        /// The client id that the server chose.
        assigned_client_identifier: put_text, ASSIGNED_CLIENT_IDENTIFIER, &str;
        /// The keep alive that the server wants, in seconds.
        server_keep_alive: put_u16, SERVER_KEEP_ALIVE, u16;
        /// The method of enhanced authentication.
        authentication_method: put_text, AUTHENTICATION_METHOD, &str;
        /// The data of enhanced authentication.
        authentication_data: put_binary, AUTHENTICATION_DATA, &[u8];
        /// Whether reason strings and user properties are wanted where they explain a failure.
        request_problem_information: put_flag, REQUEST_PROBLEM_INFORMATION, bool;
        /// How long the will waits, in seconds.
        will_delay_s: put_u32, WILL_DELAY, u32;
        /// Whether response information is wanted.
        request_response_information: put_flag, REQUEST_RESPONSE_INFORMATION, bool;
        /// What response topics may be made from.
        response_information: put_text, RESPONSE_INFORMATION, &str;
        /// Another server.
        server_reference: put_text, SERVER_REFERENCE, &str;
        /// An explanation for people.
        reason_string: put_text, REASON_STRING, &str;
        /// The most QoS 1 and 2 messages that may be unanswered.
        receive_maximum: put_u16, RECEIVE_MAXIMUM, u16;
        /// The highest topic alias that may be used.
        topic_alias_maximum: put_u16, TOPIC_ALIAS_MAXIMUM, u16;
        /// The alias of this topic.
        topic_alias: put_u16, TOPIC_ALIAS, u16;
        /// The highest QoS of the server, 0 or 1; left out it is 2.
        maximum_qos: put_u8, MAXIMUM_QOS, u8;
        /// Whether retained messages are kept.
        retain_available: put_flag, RETAIN_AVAILABLE, bool;
        /// The most bytes of a packet.
        maximum_packet_size: put_u32, MAXIMUM_PACKET_SIZE, u32;
        /// Whether wildcards are known.
        wildcard_subscription_available: put_flag, WILDCARD_SUBSCRIPTION_AVAILABLE, bool;
        /// Whether subscription identifiers are known.
        subscription_identifiers_available: put_flag, SUBSCRIPTION_IDENTIFIERS_AVAILABLE, bool;
        /// Whether shared subscriptions are known.
        shared_subscription_available: put_flag, SHARED_SUBSCRIPTION_AVAILABLE, bool;
    }

    /// A subscription that the message matched, or the one of a SUBSCRIBE.
    pub fn subscription_identifier(&mut self, number: u32) -> &mut Self {
        self.block.put_u8(id::SUBSCRIPTION_IDENTIFIER);
        put_variable(&mut self.block, usize::try_from(number).unwrap_or(usize::MAX));
        self
    }

    /// A user property.
    pub fn user(&mut self, name: &str, value: &str) -> &mut Self {
        if [name, value].iter().all(|text| fits(text.as_bytes()) && is_text(text.as_bytes())) {
            self.block.put_u8(id::USER);
            self.put_field(name.as_bytes());
            self.put_field(value.as_bytes());
        }
        self
    }

    fn put_flag(&mut self, id: u8, value: bool) -> &mut Self {
        self.put_u8(id, u8::from(value))
    }

    fn put_u8(&mut self, id: u8, value: u8) -> &mut Self {
        self.block.put_u8(id);
        self.block.put_u8(value);
        self
    }

    fn put_u16(&mut self, id: u8, value: u16) -> &mut Self {
        self.block.put_u8(id);
        self.block.put_u16(value);
        self
    }

    fn put_u32(&mut self, id: u8, value: u32) -> &mut Self {
        self.block.put_u8(id);
        self.block.put_u32(value);
        self
    }

    fn put_text(&mut self, id: u8, text: &str) -> &mut Self {
        if is_text(text.as_bytes()) { self.put_binary(id, text.as_bytes()) } else { self }
    }

    fn put_binary(&mut self, id: u8, bytes: &[u8]) -> &mut Self {
        if fits(bytes) {
            self.block.put_u8(id);
            self.put_field(bytes);
        }
        self
    }

    fn put_field(&mut self, bytes: &[u8]) {
        // INVARIANT: the callers checked that the length fits.
        self.block.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.block.extend_from_slice(bytes);
    }
}

// INVARIANT I-8: without its texts.
impl fmt::Debug for PropertyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(Scan::new(&self.block)).finish()
    }
}

fn fits(bytes: &[u8]) -> bool {
    bytes.len() <= FIELD_BYTES_MAX
}
