//! Two codecs of others as oracles: rmqtt-codec and that of rumqttc.
//!
//! A packet that both accept is the same to both: the oracle decodes the bytes and encodes what it found, and we decode
//! that and compare. Where only one side accepts, the difference is listed here with the rule that says who is right.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::generate::{self, Random, bytes, damage};
use super::given::{PACKET_BYTES_MAX, decode, decoder};
use super::samples::LEVELS;
use crate::mqtt::wire::property::{Scan, Value, id};
use crate::mqtt::wire::{
    Ack, Auth, Connack, Connect, Decoder, Disconnect, Level, Packet, Properties, PropertyWriter, Publish,
    Role, Suback, Subscribe, Unsuback, Unsubscribe, Will,
};

const BYTES_MAX: u32 = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Oracle {
    Rmqtt,
    Rumqttc,
}

/// What an oracle made of bytes.
#[derive(Debug)]
enum Found {
    /// One packet, encoded by the oracle, and how many bytes it did not use.
    Packet(Vec<u8>, usize),
    More,
    Refused(String),
    /// A packet that it decodes and cannot encode.
    Unwritten,
    Panicked,
}

fn ask(oracle: Oracle, level: Level, sent: &[u8]) -> Found {
    catch_unwind(AssertUnwindSafe(|| match (oracle, level) {
        (Oracle::Rmqtt, Level::V5) => rmqtt_v5(sent),
        (Oracle::Rmqtt, _) => rmqtt_v3(sent),
        (Oracle::Rumqttc, Level::V5) => rumqttc_v5(sent),
        (Oracle::Rumqttc, _) => rumqttc_v4(sent),
    }))
    .unwrap_or(Found::Panicked)
}

fn rmqtt_v3(sent: &[u8]) -> Found {
    let mut buffer = BytesMut::from(sent);
    let mut codec = rmqtt_codec::v3::Codec::new(BYTES_MAX);
    match codec.decode(&mut buffer) {
        Ok(None) => Found::More,
        Err(error) => Found::Refused(format!("{error:?}")),
        Ok(Some((packet, _))) => {
            let mut out = BytesMut::new();
            match codec.encode(packet, &mut out) {
                Ok(()) => Found::Packet(level_3(out.to_vec()), buffer.len()),
                Err(_) => Found::Unwritten,
            }
        }
    }
}

/// rmqtt-codec writes level 4 behind the name of 3.1.
fn level_3(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[0] == 0x10
        && let Some(at) = bytes.windows(8).position(|part| part == b"\0\x06MQIsdp")
        && at < 6
    {
        bytes[at + 8] = 3;
    }
    bytes
}

fn rmqtt_v5(sent: &[u8]) -> Found {
    let mut buffer = BytesMut::from(sent);
    let mut codec = rmqtt_codec::v5::Codec::new(BYTES_MAX, BYTES_MAX);
    match codec.decode(&mut buffer) {
        Ok(None) => Found::More,
        Err(error) => Found::Refused(format!("{error:?}")),
        Ok(Some((packet, _))) => {
            let mut out = BytesMut::new();
            match codec.encode(packet, &mut out) {
                Ok(()) => Found::Packet(out.to_vec(), buffer.len()),
                Err(_) => Found::Unwritten,
            }
        }
    }
}

fn rumqttc_v4(sent: &[u8]) -> Found {
    use rumqttc::mqttbytes::Error;
    let mut buffer = BytesMut::from(sent);
    match rumqttc::mqttbytes::v4::Packet::read(&mut buffer, BYTES_MAX as usize) {
        Err(Error::InsufficientBytes(_)) => Found::More,
        Err(error) => Found::Refused(format!("{error:?}")),
        Ok(packet) => {
            let mut out = BytesMut::new();
            match packet.write(&mut out, BYTES_MAX as usize) {
                Ok(_) => Found::Packet(out.to_vec(), buffer.len()),
                Err(_) => Found::Unwritten,
            }
        }
    }
}

fn rumqttc_v5(sent: &[u8]) -> Found {
    use rumqttc::v5::mqttbytes::{Error, v5::Packet};
    let mut buffer = BytesMut::from(sent);
    match Packet::read(&mut buffer, Some(BYTES_MAX)) {
        Err(Error::InsufficientBytes(_)) => Found::More,
        Err(error) => Found::Refused(format!("{error:?}")),
        Ok(packet) => {
            let mut out = BytesMut::new();
            match packet.write(&mut out, Some(BYTES_MAX)) {
                Ok(_) => Found::Packet(out.to_vec(), buffer.len()),
                Err(_) => Found::Unwritten,
            }
        }
    }
}

/// The same properties in the order of their identifiers, as the oracles write them, without those that say what
/// leaving them out says.
fn sorted(properties: &Properties) -> Properties {
    let mut all: Vec<_> = Scan::new(properties.bytes()).filter(|property| !says_nothing(*property)).collect();
    all.sort_by_key(|(id, _)| *id);
    let mut w = PropertyWriter::new();
    for property in all {
        write(&mut w, property);
    }
    w.finish()
}

fn says_nothing(property: (u8, Value<'_>)) -> bool {
    matches!(
        property,
        (id::SESSION_EXPIRY | id::WILL_DELAY, Value::Four(0))
            | (id::TOPIC_ALIAS_MAXIMUM, Value::Two(0))
            | (id::RECEIVE_MAXIMUM, Value::Two(u16::MAX))
            | (id::REQUEST_PROBLEM_INFORMATION, Value::Byte(1))
            | (id::REQUEST_RESPONSE_INFORMATION | id::PAYLOAD_FORMAT_INDICATOR, Value::Byte(0))
            | (
                id::RETAIN_AVAILABLE
                    | id::WILDCARD_SUBSCRIPTION_AVAILABLE
                    | id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE
                    | id::SHARED_SUBSCRIPTION_AVAILABLE,
                Value::Byte(1)
            )
    )
}

fn write(w: &mut PropertyWriter, (id, value): (u8, Value<'_>)) {
    let mut raw = vec![id];
    match value {
        Value::Byte(value) => raw.push(value),
        Value::Two(value) => raw.extend(value.to_be_bytes()),
        Value::Four(value) => raw.extend(value.to_be_bytes()),
        Value::Variable(value) => {
            w.subscription_identifier(value);
            return;
        }
        Value::Text(text) => raw.extend(super::given::field(text)),
        Value::Binary(bytes) => raw.extend(super::given::field(bytes)),
        Value::Pair(name, value) => {
            raw.extend(super::given::field(name));
            raw.extend(super::given::field(value));
        }
    }
    w.raw(&raw);
}

/// A packet with its properties in order.
fn normal(packet: Packet) -> Packet {
    let ack = |packet: Ack| Ack { properties: sorted(&packet.properties), ..packet };
    match packet {
        Packet::Connect(packet) => Packet::Connect(Box::new(Connect {
            properties: sorted(&packet.properties),
            will: packet.will.map(|will| Will { properties: sorted(&will.properties), ..will }),
            ..*packet
        })),
        Packet::Connack(packet) => {
            Packet::Connack(Connack { properties: sorted(&packet.properties), ..packet })
        }
        Packet::Publish(packet) => {
            Packet::Publish(Publish { properties: sorted(&packet.properties), ..packet })
        }
        Packet::Puback(packet) => Packet::Puback(ack(packet)),
        Packet::Pubrec(packet) => Packet::Pubrec(ack(packet)),
        Packet::Pubrel(packet) => Packet::Pubrel(ack(packet)),
        Packet::Pubcomp(packet) => Packet::Pubcomp(ack(packet)),
        Packet::Subscribe(packet) => {
            Packet::Subscribe(Subscribe { properties: sorted(&packet.properties), ..packet })
        }
        Packet::Suback(packet) => Packet::Suback(Suback { properties: sorted(&packet.properties), ..packet }),
        Packet::Unsubscribe(packet) => {
            Packet::Unsubscribe(Unsubscribe { properties: sorted(&packet.properties), ..packet })
        }
        Packet::Unsuback(packet) => {
            Packet::Unsuback(Unsuback { properties: sorted(&packet.properties), ..packet })
        }
        Packet::Disconnect(packet) => {
            Packet::Disconnect(Disconnect { properties: sorted(&packet.properties), ..packet })
        }
        Packet::Auth(packet) => Packet::Auth(Auth { properties: sorted(&packet.properties), ..packet }),
        Packet::Pingreq | Packet::Pingresp => packet,
    }
}

/// Who reads what, with a decoder that is ready for it.
fn sides() -> Vec<(Oracle, Level, Role)> {
    let mut sides = Vec::new();
    for oracle in [Oracle::Rmqtt, Oracle::Rumqttc] {
        for level in LEVELS {
            if (oracle, level) != (Oracle::Rumqttc, Level::V31) {
                sides.extend([Role::Server, Role::Client].map(|role| (oracle, level, role)));
            }
        }
    }
    sides
}

/// A random packet, in one of five cases a CONNECT, and its decoder.
fn random(r: &mut Random, level: Level, role: Role) -> (Packet, Decoder) {
    if role == Role::Server && r.chance(20) {
        (generate::connect(r, level), Decoder::new(role, PACKET_BYTES_MAX))
    } else {
        (generate::packet(r, level, role), decoder(level, role))
    }
}

/// What the oracles lose between decoding and encoding, and packets that they do not know. `None`: nothing.
fn not_comparable(oracle: Oracle, level: Level, packet: &Packet) -> Option<&'static str> {
    if oracle == Oracle::Rmqtt {
        return None;
    }
    match packet {
        Packet::Connect(connect)
            if connect.username.as_ref().is_some_and(|name| name.is_empty())
                || connect.password.as_ref().is_some_and(|password| password.is_empty()) =>
        {
            Some("an empty user name or password is none to rumqttc")
        }
        Packet::Connect(connect)
            if connect.password.as_ref().is_some_and(|password| std::str::from_utf8(password).is_err()) =>
        {
            Some("rumqttc takes passwords of UTF-8 only; they are any bytes: MQTT5 §3.1.3.6, 3.1.1 §3.1.3.5")
        }
        Packet::Publish(publish) if publish.properties.subscription_identifiers().next().is_some() => {
            Some("rumqttc counts the length of a subscription identifier's own identifier twice")
        }
        Packet::Disconnect(_) if level == Level::V5 => {
            Some("rumqttc waits for bytes that §3.14.2.2.1 lets a DISCONNECT leave out")
        }
        Packet::Auth(_) => Some("rumqttc decodes no AUTH"),
        _ => None,
    }
}

/// What 3.1 does not use, and rmqtt-codec refuses as 3.1.1 would: flags of fixed headers, of CONNECT and of CONNACK; the
/// user name and password that 3.1 may leave out.
const STRICTER_THAN_3_1: [&str; 5] = [
    "UnsupportedPacketType",
    "ConnAckReservedFlagSet",
    "ConnectReservedFlagSet",
    "InvalidConnectFlags",
    "InvalidLength",
];

/// What rmqtt-codec accepts and we refuse: how our problem begins. It names the rule.
const RMQTT_ACCEPTS: &[&str] = &[
    "DUP with QoS 0",
    "a SUBACK without a code",
    "a field ends behind its packet",  // AUTH of a reason alone
    "a packet in the wrong direction", // it has no direction
    "a password without a user name",
    "a reason that AUTH does not know",        // nor here
    "a reason that CONNACK does not know",     // 6
    "a reason that DISCONNECT does not know",  // nor here
    "a reason that this packet does not know", // a 3.1 SUBACK of 0x80
    "a response topic that is no topic name",
    "a text is not UTF-8 without U+0000", // U+0000
    "a topic name that is empty or has a wildcard",
    "a variable byte integer of more bytes than needed",
    "an UNSUBACK without a code",
    "authentication data without a method",
    "bytes behind the last field of a packet",
    "no topic and no topic alias",
    "no topic filter",
    "reserved bits of subscription options",
    "session present in a refusal",
    "the first packet is no CONNECT", // it has no state
    "will QoS or retain without a will",
];

/// What the codec of rumqttc accepts and we refuse.
const RUMQTTC_ACCEPTS: &[&str] = &[
    "DUP with QoS 0",
    "UNSUBSCRIBE without a filter",
    "a field ends behind its packet", // properties may end behind their packet, or reach into the payload
    "a packet in the wrong direction", // it has no direction
    "a password without a user name",
    "a property more than once",
    "a property of 0 or 1 with another value",
    "a reserved flag of CONNACK is set",
    "a response topic that is no topic name",
    "a text is not UTF-8 without U+0000",
    "a topic name that is empty or has a wildcard",
    "a variable byte integer of more bytes than needed",
    "an unknown property", // in what its v4 takes for the client id of a CONNECT of level 5
    "bytes behind the last field of a packet",
    "flags of a fixed header",
    "no topic and no topic alias",
    "no topic filter",
    "packet id 0",
    "reserved bits of subscription options",
    "session present in a refusal",
    "subscription identifier 0",
    "the first packet is no CONNECT", // it has no state
    "the reserved flag of CONNECT is set",
];

/// What one case shows: agreement, or a difference that is not listed.
fn compare(oracle: Oracle, level: Level, mut decoder: Decoder, sent: &[u8]) -> Result<(), String> {
    let mut fresh = decoder.clone();
    let mut buffer = BytesMut::from(sent);
    let ours = decoder.decode(&mut buffer);
    let theirs = ask(oracle, level, sent);
    match (ours, theirs) {
        (Ok(Some(ours)), theirs) if not_comparable(oracle, level, &ours).is_some() => match theirs {
            Found::Panicked => Err("it panics".into()),
            _ => Ok(()),
        },
        (Ok(Some(ours)), Found::Packet(again, left)) => {
            if left != buffer.len() {
                return Err(format!("it leaves {left} bytes, we leave {}", buffer.len()));
            }
            match decode(&mut fresh, &again) {
                Ok(Some(theirs)) if normal(theirs.clone()) == normal(ours.clone()) => Ok(()),
                other => Err(format!("it found {other:?}")),
            }
        }
        (Ok(Some(_)), Found::Refused(theirs))
            if oracle == Oracle::Rmqtt && level == Level::V31 && STRICTER_THAN_3_1.contains(&&*theirs) =>
        {
            Ok(())
        }
        (Err(_), Found::Refused(_) | Found::More | Found::Panicked) | (Ok(None), Found::More) => Ok(()),
        // Our limit is larger here than the oracle's.
        (Ok(None), Found::Refused(theirs)) if theirs.contains("Exceeded") => Ok(()),
        (Err(error), Found::Packet(..) | Found::Unwritten) => {
            let known = if oracle == Oracle::Rmqtt { RMQTT_ACCEPTS } else { RUMQTTC_ACCEPTS };
            let named = error.problem.contains("[MQTT-") || error.problem.contains('§');
            if named && known.iter().any(|problem| error.problem.starts_with(problem)) {
                return Ok(());
            }
            Err(format!("only it accepts, we say {error}"))
        }
        (ours, theirs) => Err(format!("we say {ours:?}, it says {theirs:?}")),
    }
}

fn compare_many(cases: u64, damaged: bool) {
    println!("seeds 0 to {} for every oracle, level and role", cases - 1);
    for (oracle, level, role) in sides() {
        for seed in 0..cases {
            let r = &mut Random::new(seed);
            let (packet, decoder) = random(r, level, role);
            let mut sent = bytes(level, &packet);
            if damaged {
                damage(r, &mut sent);
            }
            if let Err(difference) = compare(oracle, level, decoder, &sent) {
                panic!("{oracle:?} {level:?} to {role:?}, seed {seed}: {difference}\n{sent:02X?}");
            }
        }
    }
}

#[test]
fn w95_the_oracles_agree_on_valid_packets() {
    compare_many(3_000, false);
}

#[test]
fn w96_the_oracles_agree_on_damaged_packets_but_for_what_is_listed() {
    compare_many(5_000, true);
}
