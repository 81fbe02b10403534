//! The packets.

use std::fmt;

use bytes::Bytes;

use super::{Level, PacketId, Properties, Qos, Text};

/// A packet of any version. Properties are empty before MQTT 5.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the protocol's
pub enum Packet {
    Connect(Box<Connect>),
    Connack(Connack),
    Publish(Publish),
    Puback(Ack),
    Pubrec(Ack),
    Pubrel(Ack),
    Pubcomp(Ack),
    Subscribe(Subscribe),
    Suback(Suback),
    Unsubscribe(Unsubscribe),
    Unsuback(Unsuback),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect),
    Auth(Auth),
}

/// The first packet of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version that the client speaks.
    pub level: Level,
    /// Whether to forget an older session of this client id.
    pub clean_start: bool,
    /// The longest silence of the client, in seconds; 0 for no limit.
    pub keep_alive_s: u16,
    /// May be empty; whether that is allowed depends on the version and on `clean_start`.
    pub client_id: Text,
    /// What is published when the connection is lost.
    pub will: Option<Will>,
    /// The user name.
    pub username: Option<Text>,
    /// The password, any bytes.
    pub password: Option<Bytes>,
    /// Properties of CONNECT.
    pub properties: Properties,
}

/// A message that the server publishes when the connection is lost.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // as in a PUBLISH
pub struct Will {
    pub qos: Qos,
    pub retain: bool,
    pub topic: Text,
    pub payload: Bytes,
    pub properties: Properties,
}

/// The answer to CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack {
    /// Whether the server kept a session. Not in 3.1.
    pub session_present: bool,
    /// As the level spells it: [`super::reason`] in MQTT 5, [`super::reason::v3`] before.
    pub reason: u8,
    /// Properties of CONNACK.
    pub properties: Properties,
}

/// A message.
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// How often it arrives.
    pub qos: Qos,
    /// To the server: whether to keep it for later subscribers; to a client: whether it was kept.
    pub retain: bool,
    /// A topic name; empty only in MQTT 5 with a topic alias.
    pub topic: Text,
    /// With QoS 1 and 2, and only then.
    pub packet_id: Option<PacketId>,
    /// Properties of PUBLISH.
    pub properties: Properties,
    /// The message itself.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The PUBLISH it is about.
    pub packet_id: PacketId,
    /// 0 before MQTT 5.
    pub reason: u8,
    /// A reason string and user properties.
    pub properties: Properties,
}

/// Wishes to follow topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Of the SUBACK to come.
    pub packet_id: PacketId,
    /// Properties of SUBSCRIBE.
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<(Text, SubscribeOptions)>,
}

/// How to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The most that is wanted.
    pub qos: Qos,
    /// Not one's own messages. MQTT 5.
    pub no_local: bool,
    /// With the RETAIN flag as published. MQTT 5.
    pub retain_as_published: bool,
    /// Retained messages: 0 now, 1 now if the subscription is new, 2 not now. MQTT 5.
    pub retain_handling: u8,
}

/// The answer to SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suback {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// A reason string and user properties.
    pub properties: Properties,
    /// One for each filter, in order.
    pub reasons: Vec<u8>,
}

/// Wishes to follow no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Of the UNSUBACK to come.
    pub packet_id: PacketId,
    /// User properties.
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<Text>,
}

/// The answer to UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsuback {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// A reason string and user properties.
    pub properties: Properties,
    /// One for each filter, in order; none before MQTT 5.
    pub reasons: Vec<u8>,
}

/// The last packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// 0 before MQTT 5.
    pub reason: u8,
    /// Properties of DISCONNECT.
    pub properties: Properties,
}

/// A step of enhanced authentication. MQTT 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Success, continue, again.
    pub reason: u8,
    /// Method and data.
    pub properties: Properties,
}

/// Stands for bytes that are not shown.
pub(super) fn hidden(bytes: usize) -> impl fmt::Debug {
    struct Hidden(usize);
    impl fmt::Debug for Hidden {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "<{} bytes>", self.0)
        }
    }
    Hidden(bytes)
}

// INVARIANT I-8: passwords and payloads do not get into logs with a packet that is shown.
impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, clean_start, keep_alive_s, client_id, will, username, password, properties } = self;
        f.debug_struct("Connect")
            .field("level", level)
            .field("clean_start", clean_start)
            .field("keep_alive_s", keep_alive_s)
            .field("client_id", client_id)
            .field("will", will)
            .field("username", username)
            .field("password", &password.as_ref().map(|password| hidden(password.len())))
            .field("properties", properties)
            .finish()
    }
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { qos, retain, topic, payload, properties } = self;
        f.debug_struct("Will")
            .field("qos", qos)
            .field("retain", retain)
            .field("topic", topic)
            .field("payload", &hidden(payload.len()))
            .field("properties", properties)
            .finish()
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dup, qos, retain, topic, packet_id, properties, payload } = self;
        f.debug_struct("Publish")
            .field("dup", dup)
            .field("qos", qos)
            .field("retain", retain)
            .field("topic", topic)
            .field("packet_id", packet_id)
            .field("properties", properties)
            .field("payload", &hidden(payload.len()))
            .finish()
    }
}
