//! A block of properties, read when asked.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::property::{self, Block, Scan, Value, id};
use super::{Fault, Role};

/// The properties of a packet: the bytes behind their length, a slice of what was read. Decoding checked them for their
/// packet; each accessor scans them, and gives `None` for a property that is not there. Empty before MQTT 5.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(Bytes);

/// Accessors of one value each.
macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $id:ident => $type:ty;)*) => {
        $($(#[$doc])*
        pub fn $name(&self) -> Option<$type> {
            match self.find(id::$id) {
                Some(Value::$kind(value)) => Some(value),
                _ => None,
            }
        })*
    };
}

impl Properties {
    /// Checks a block that stands in a packet.
    pub(super) fn checked(bytes: Bytes, block: Block, receiver: Role) -> Result<Self, Fault> {
        property::check(&bytes, block, receiver)?;
        Ok(Self(bytes))
    }

    /// What [`super::PropertyWriter`] wrote.
    pub(super) fn written(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The block, without its length.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    fn find(&self, wanted: u8) -> Option<Value<'_>> {
        Scan::new(&self.0).find(|(id, _)| *id == wanted).map(|(_, value)| value)
    }

    fn flag(&self, wanted: u8) -> Option<bool> {
        match self.find(wanted) {
            Some(Value::Byte(value)) => Some(value != 0),
            _ => None,
        }
    }

    accessors! {
        /// Whether the payload is text (1) or any bytes (0).
        payload_format_indicator: Byte, PAYLOAD_FORMAT_INDICATOR => u8;
        /// How long a message is worth delivering, in seconds.
        message_expiry_s: Four, MESSAGE_EXPIRY => u32;
        /// The media type of the payload.
        content_type: Text, CONTENT_TYPE => &str;
        /// Where a response is expected.
        response_topic: Text, RESPONSE_TOPIC => &str;
        /// What a response repeats.
        correlation_data: Binary, CORRELATION_DATA => &[u8];
        /// How long a session outlives its connection, in seconds; `u32::MAX` for ever.
        session_expiry_s: Four, SESSION_EXPIRY => u32;
        /// The client id that the server chose.
        assigned_client_identifier: Text, ASSIGNED_CLIENT_IDENTIFIER => &str;
        /// The keep alive that the server wants, in seconds.
        server_keep_alive: Two, SERVER_KEEP_ALIVE => u16;
        /// The method of enhanced authentication.
        authentication_method: Text, AUTHENTICATION_METHOD => &str;
        /// The data of enhanced authentication.
        authentication_data: Binary, AUTHENTICATION_DATA => &[u8];
        /// How long the will waits, in seconds.
        will_delay_s: Four, WILL_DELAY => u32;
        /// What response topics may be made from.
        response_information: Text, RESPONSE_INFORMATION => &str;
        /// Another server.
        server_reference: Text, SERVER_REFERENCE => &str;
        /// An explanation for people.
        reason_string: Text, REASON_STRING => &str;
        /// The most QoS 1 and 2 messages that may be unanswered; never 0.
        receive_maximum: Two, RECEIVE_MAXIMUM => u16;
        /// The highest topic alias that may be used.
        topic_alias_maximum: Two, TOPIC_ALIAS_MAXIMUM => u16;
        /// The alias of this topic; never 0.
        topic_alias: Two, TOPIC_ALIAS => u16;
        /// The highest QoS of the server, 0 or 1.
        maximum_qos: Byte, MAXIMUM_QOS => u8;
        /// The most bytes of a packet; never 0.
        maximum_packet_size: Four, MAXIMUM_PACKET_SIZE => u32;
    }

    /// Whether the client wants response information; not without asking.
    pub fn request_response_information(&self) -> bool {
        self.flag(id::REQUEST_RESPONSE_INFORMATION).unwrap_or(false)
    }

    /// Whether the client wants reason strings and user properties where they explain a failure; `None` means yes.
    pub fn request_problem_information(&self) -> Option<bool> {
        self.flag(id::REQUEST_PROBLEM_INFORMATION)
    }

    /// Whether the server keeps retained messages; `None` means yes.
    pub fn retain_available(&self) -> Option<bool> {
        self.flag(id::RETAIN_AVAILABLE)
    }

    /// Whether the server knows wildcards; `None` means yes.
    pub fn wildcard_subscription_available(&self) -> Option<bool> {
        self.flag(id::WILDCARD_SUBSCRIPTION_AVAILABLE)
    }

    /// Whether the server knows subscription identifiers; `None` means yes.
    pub fn subscription_identifiers_available(&self) -> Option<bool> {
        self.flag(id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE)
    }

    /// Whether the server knows shared subscriptions; `None` means yes.
    pub fn shared_subscription_available(&self) -> Option<bool> {
        self.flag(id::SHARED_SUBSCRIPTION_AVAILABLE)
    }

    /// The subscriptions that a message matched, or the one of a SUBSCRIBE; never 0.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + '_ {
        Scan::new(&self.0).filter_map(|property| match property {
            (id::SUBSCRIPTION_IDENTIFIER, Value::Variable(number)) => Some(number),
            _ => None,
        })
    }

    /// User properties, in order; names may repeat.
    pub fn user(&self) -> impl Iterator<Item = (&str, &str)> + '_ {
        Scan::new(&self.0).filter_map(|property| match property {
            (id::USER, Value::Pair(name, value)) => Some((name, value)),
            _ => None,
        })
    }

    /// What of a PUBLISH or a will goes to subscribers unaltered and in order: payload format indicator, content type,
    /// response topic, correlation data and user properties (MQTT5 [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18],
    /// [MQTT-3.3.2-20]). A slice when these stand side by side, a copy when something between them is left out.
    pub fn forwardable(&self) -> Bytes {
        let block = &self.0;
        let forwarded = || {
            let mut scan = Scan::new(block);
            let mut start = 0;
            std::iter::from_fn(move || {
                let (id, _) = scan.next()?;
                let place = start..block.len().saturating_sub(scan.left());
                start = place.end;
                Some((id, place))
            })
            .filter(|(id, _)| is_forwarded(*id))
            .map(|(_, place)| place)
        };
        let (mut first, mut end, mut bytes) = (None, 0, 0);
        for place in forwarded() {
            first.get_or_insert(place.start);
            bytes += place.len();
            end = place.end;
        }
        let start = first.unwrap_or(0);
        if end - start == bytes {
            return block.slice(start..end);
        }
        let mut joined = BytesMut::with_capacity(bytes);
        forwarded().for_each(|place| joined.extend_from_slice(block.get(place).unwrap_or_default()));
        joined.freeze()
    }
}

fn is_forwarded(id: u8) -> bool {
    matches!(
        id,
        id::PAYLOAD_FORMAT_INDICATOR
            | id::CONTENT_TYPE
            | id::RESPONSE_TOPIC
            | id::CORRELATION_DATA
            | id::USER
    )
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(Scan::new(&self.0)).finish()
    }
}
