//! Reason codes of MQTT 5 (§2.4), return codes of the older CONNACK, and which packet may carry which.

use super::{Level, Role};

/// Success; in a SUBACK: granted QoS 0; in a DISCONNECT: normal.
pub const SUCCESS: u8 = 0x00;
/// SUBACK: granted QoS 1.
pub const GRANTED_QOS_1: u8 = 0x01;
/// SUBACK: granted QoS 2.
pub const GRANTED_QOS_2: u8 = 0x02;
/// DISCONNECT: and publish the will.
pub const DISCONNECT_WITH_WILL: u8 = 0x04;
/// PUBACK, PUBREC: nobody subscribes.
pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
/// UNSUBACK: there was none.
pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
/// AUTH: go on.
pub const CONTINUE_AUTHENTICATION: u8 = 0x18;
/// AUTH: again.
pub const REAUTHENTICATE: u8 = 0x19;
/// Refused for no other reason; in a 3.1.1 SUBACK the only refusal.
pub const UNSPECIFIED_ERROR: u8 = 0x80;
/// Not a packet of this version.
pub const MALFORMED_PACKET: u8 = 0x81;
/// A packet that may not be sent, or not now.
pub const PROTOCOL_ERROR: u8 = 0x82;
/// Valid, and not accepted by this server.
pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// The level of CONNECT is none of ours.
pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
/// The client id is not accepted.
pub const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
/// Wrong user name or password.
pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
/// May not do this.
pub const NOT_AUTHORIZED: u8 = 0x87;
/// The server is not available.
pub const SERVER_UNAVAILABLE: u8 = 0x88;
/// The server has too much to do.
pub const SERVER_BUSY: u8 = 0x89;
/// This client is banned.
pub const BANNED: u8 = 0x8A;
/// The server ends.
pub const SERVER_SHUTTING_DOWN: u8 = 0x8B;
/// The authentication method is not supported, or not the current one.
pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
/// Nothing came for 1.5 times the keep alive.
pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
/// Another connection uses the same client id.
pub const SESSION_TAKEN_OVER: u8 = 0x8E;
/// A topic filter that is not accepted.
pub const TOPIC_FILTER_INVALID: u8 = 0x8F;
/// A topic name that is not accepted.
pub const TOPIC_NAME_INVALID: u8 = 0x90;
/// The packet id is in use.
pub const PACKET_IDENTIFIER_IN_USE: u8 = 0x91;
/// The packet id is not known.
pub const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;
/// More unanswered messages than the receive maximum.
pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
/// A topic alias of 0 or above the maximum.
pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
/// A packet of more bytes than the maximum.
pub const PACKET_TOO_LARGE: u8 = 0x95;
/// Too many messages per time.
pub const MESSAGE_RATE_TOO_HIGH: u8 = 0x96;
/// A limit is reached.
pub const QUOTA_EXCEEDED: u8 = 0x97;
/// Closed by an administrator.
pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
/// The payload is not of the format it claims.
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
/// No retained messages.
pub const RETAIN_NOT_SUPPORTED: u8 = 0x9A;
/// A QoS above the maximum.
pub const QOS_NOT_SUPPORTED: u8 = 0x9B;
/// Go to another server for now.
pub const USE_ANOTHER_SERVER: u8 = 0x9C;
/// Go to another server for good.
pub const SERVER_MOVED: u8 = 0x9D;
/// No shared subscriptions.
pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0x9E;
/// Too many connections per time.
pub const CONNECTION_RATE_EXCEEDED: u8 = 0x9F;
/// The longest time of a connection is over.
pub const MAXIMUM_CONNECT_TIME: u8 = 0xA0;
/// No subscription identifiers.
pub const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: u8 = 0xA1;
/// No wildcards.
pub const WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0xA2;

/// Return codes of a CONNACK of 3.1 and 3.1.1.
pub mod v3 {
    /// Accepted.
    pub const ACCEPTED: u8 = 0;
    /// The level is none of ours.
    pub const UNACCEPTABLE_PROTOCOL_VERSION: u8 = 1;
    /// The client id is not accepted.
    pub const IDENTIFIER_REJECTED: u8 = 2;
    /// Not available.
    pub const SERVER_UNAVAILABLE: u8 = 3;
    /// Wrong user name or password.
    pub const BAD_USER_NAME_OR_PASSWORD: u8 = 4;
    /// May not connect.
    pub const NOT_AUTHORIZED: u8 = 5;
}

/// PUBACK and PUBREC: MQTT5 [MQTT-3.4.2-1], [MQTT-3.5.2-1].
pub(super) fn of_puback(reason: u8) -> bool {
    matches!(reason, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
}

/// PUBREL and PUBCOMP: MQTT5 [MQTT-3.6.2-1], [MQTT-3.7.2-1].
pub(super) fn of_pubrel(reason: u8) -> bool {
    matches!(reason, 0x00 | 0x92)
}

/// CONNACK: MQTT5 [MQTT-3.2.2-8], 3.1.1 §3.2.2.3.
pub(super) fn of_connack(level: Level, reason: u8) -> bool {
    match level {
        Level::V5 => {
            matches!(reason, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
        }
        Level::V31 | Level::V311 => reason <= v3::NOT_AUTHORIZED,
    }
}

/// SUBACK: MQTT5 [MQTT-3.9.3-2], 3.1.1 [MQTT-3.9.3-2]. 3.1 knows no refusal.
pub(super) fn of_suback(level: Level, reason: u8) -> bool {
    match (level, reason) {
        (_, 0x00..=0x02) | (Level::V311 | Level::V5, 0x80) => true,
        (Level::V5, code) => matches!(code, 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2),
        _ => false,
    }
}

/// UNSUBACK: MQTT5 [MQTT-3.11.3-2].
pub(super) fn of_unsuback(reason: u8) -> bool {
    matches!(reason, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
}

/// DISCONNECT: MQTT5 [MQTT-3.14.2-1] and the table of §3.14.2.1, which says who may send what.
pub(super) fn of_disconnect(receiver: Role, reason: u8) -> bool {
    match reason {
        0x00 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => true,
        0x04 => receiver == Role::Server,
        0x87 | 0x89 | 0x8B | 0x8D..=0x8F | 0x9A..=0xA2 => receiver == Role::Client,
        _ => false,
    }
}

/// AUTH: MQTT5 [MQTT-3.15.2-1] and the table of §3.15.2.1, which says who may send what.
pub(super) fn of_auth(receiver: Role, reason: u8) -> bool {
    match reason {
        SUCCESS => receiver == Role::Client,
        CONTINUE_AUTHENTICATION => true,
        REAUTHENTICATE => receiver == Role::Server,
        _ => false,
    }
}
