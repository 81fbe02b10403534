//! Checks of single fields, each with the rule it keeps.

use super::decode::kind;
use super::reader::Reader;
use super::{Fault, Level, Qos, SubscribeOptions, Text, WireError, malformed, protocol_error, reason, topic};

/// The names of the protocol: 3.1, and since.
pub(super) const NAME_V31: &[u8] = b"MQIsdp";
pub(super) const NAME: &[u8] = b"MQTT";

pub(super) const QOS_3: Fault = malformed("QoS 3 (MQTT5, 3.1.1 [MQTT-3.3.1-4])");

/// The flags of a fixed header: MQTT5 [MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]. 3.1 does not use most of them.
pub(super) fn check_flags(level: Level, kind: u8, flags: u8) -> Result<(), Fault> {
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
        // 3.1 §2.1: these are QoS 1 and may be sent again with DUP; other packets do not use the flags. Some clients of its
        // time send PUBREL without QoS 1, which changes nothing: it has a packet id always.
        Level::V31 => !with_qos || kind == kind::PUBREL || flags & 0b0110 == 0b0010,
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
pub(super) fn unsupported(name: &[u8], number: u8) -> WireError {
    // The highest bit marks a bridge (mosquitto); its answer is in the form of the rest.
    let level = match (name, number & 0x7F) {
        (NAME_V31, _) => Some(Level::V31),
        (NAME, ..=4) => Some(Level::V311),
        (NAME, _) => Some(Level::V5),
        _ => None,
    };
    WireError {
        reason: reason::UNSUPPORTED_PROTOCOL_VERSION,
        problem: "a protocol name or level that is not spoken here (MQTT5, 3.1.1 [MQTT-3.1.2-1] [MQTT-3.1.2-2])",
        level,
    }
}

/// What the first bytes of a CONNECT's body show.
pub(super) enum Sniffed {
    Level(Level),
    /// More bytes may show a level.
    Short,
    /// No level of ours.
    Other,
}

pub(super) fn sniff(body: &[u8]) -> Sniffed {
    const BEGINNINGS: [(&[u8], Level); 3] =
        [(b"\0\x06MQIsdp\x03", Level::V31), (b"\0\x04MQTT\x04", Level::V311), (b"\0\x04MQTT\x05", Level::V5)];
    if let Some((_, level)) = BEGINNINGS.iter().find(|(beginning, _)| body.starts_with(beginning)) {
        return Sniffed::Level(*level);
    }
    if BEGINNINGS.iter().any(|(beginning, _)| beginning.starts_with(body)) {
        return Sniffed::Short;
    }
    Sniffed::Other
}

/// The most characters of a topic in 3.1 (§2.2, topic name).
const V31_TOPIC_CHARS_MAX: usize = 32_767;

fn too_long_for_v31(level: Level, topic: &Text) -> bool {
    level == Level::V31
        && topic.bytes().len() > V31_TOPIC_CHARS_MAX
        && topic.chars().count() > V31_TOPIC_CHARS_MAX
}

pub(super) fn check_name(level: Level, name: &Text) -> Result<(), Fault> {
    if topic::is_name(name) && !too_long_for_v31(level, name) {
        return Ok(());
    }
    Err(Fault {
        reason: reason::TOPIC_NAME_INVALID,
        problem: "a topic name that is empty or has a wildcard (MQTT5, 3.1.1 [MQTT-3.3.2-2] [MQTT-4.7.3-1])",
    })
}

/// Whether a filter is that of a shared subscription. Before MQTT 5 `$share` means nothing to the protocol.
pub(super) fn check_filter(level: Level, filter: &Text) -> Result<bool, Fault> {
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

pub(super) fn options(level: Level, byte: u8) -> Result<SubscribeOptions, Fault> {
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

pub(super) fn reasons(reader: &mut Reader, known: impl Fn(u8) -> bool) -> Result<Vec<u8>, Fault> {
    let codes = reader.take_rest();
    if codes.iter().all(|code| known(*code)) {
        return Ok(codes.to_vec());
    }
    Err(protocol_error(
        "a reason that this packet does not know (MQTT5 [MQTT-3.9.3-2] [MQTT-3.11.3-2], 3.1.1 [MQTT-3.9.3-2])",
    ))
}
