//! What must hold for any bytes at all. The targets in `fuzz/` and the tests that replay their corpus call this.

use bytes::{Bytes, BytesMut};

use super::{Decoder, Level, Packet, Properties, Role, WireError, encode};

/// The limit of a packet here, small enough that fuzzing reaches it.
const PACKET_BYTES_MAX: usize = 2048;

/// Decodes bytes as one connection would get them, behind a CONNECT of `level` or from the start, and checks that
/// - neither the decoder nor an accessor panics;
/// - the same packets and the same end come out however the bytes arrive;
/// - nothing is reserved from an announced length;
/// - what was accepted encodes to bytes that decode to the same packet and encode to the same bytes again.
///
/// # Panics
/// When one of these does not hold.
pub fn decode(role: Role, level: Option<Level>, data: &[u8]) {
    let mut decoder = Decoder::new(role, PACKET_BYTES_MAX);
    if let Some(level) = level {
        decoder.set_level(level);
    }
    let (whole, end) = drain(decoder.clone(), [data]);
    let step = 1 + data.len() % 7;
    let (by_steps, end_by_steps) = drain(decoder, data.chunks(step));
    assert_eq!((&whole, end), (&by_steps, end_by_steps), "in steps of {step}");
    for (packet, level) in whole {
        if let Some(properties) = properties(&packet) {
            read(properties);
        }
        let mut once = BytesMut::new();
        encode::packet(level, &packet, &mut once);
        let mut again = Decoder::new(role, usize::MAX);
        if !matches!(packet, Packet::Connect(_)) {
            again.set_level(level);
        }
        let first = once.clone();
        assert_eq!(again.decode(&mut once), Ok(Some(packet.clone())));
        assert!(once.is_empty());
        let mut second = BytesMut::new();
        encode::packet(level, &packet, &mut second);
        assert_eq!(first, second);
    }
}

/// Everything that comes out of these pieces, and how it ends.
fn drain<'a>(
    mut decoder: Decoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<(Packet, Level)>, Option<WireError>) {
    let mut buffer = BytesMut::new();
    let mut packets = Vec::new();
    let mut arrived = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        arrived += piece.len();
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push((packet, decoder.level().unwrap_or(Level::V311))),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
        assert!(buffer.capacity() <= 4 * arrived + 8192, "{} for {arrived}", buffer.capacity());
    }
    (packets, None)
}

fn properties(packet: &Packet) -> Option<&Properties> {
    Some(match packet {
        Packet::Connect(packet) => &packet.properties,
        Packet::Connack(packet) => &packet.properties,
        Packet::Publish(packet) => &packet.properties,
        Packet::Puback(packet)
        | Packet::Pubrec(packet)
        | Packet::Pubrel(packet)
        | Packet::Pubcomp(packet) => &packet.properties,
        Packet::Subscribe(packet) => &packet.properties,
        Packet::Suback(packet) => &packet.properties,
        Packet::Unsubscribe(packet) => &packet.properties,
        Packet::Unsuback(packet) => &packet.properties,
        Packet::Disconnect(packet) => &packet.properties,
        Packet::Auth(packet) => &packet.properties,
        Packet::Pingreq | Packet::Pingresp => return None,
    })
}

/// Reads what there is in every way.
fn read(properties: &Properties) {
    let shown = format!("{properties:?}");
    assert_eq!(shown == "[]", properties.is_empty(), "what is there can be read");
    let forwarded: Bytes = properties.forwardable();
    assert!(forwarded.len() <= properties.bytes().len());
    assert!(
        properties.user().count() + properties.subscription_identifiers().count() <= properties.bytes().len()
    );
    for text in [
        properties.content_type(),
        properties.response_topic(),
        properties.reason_string(),
        properties.authentication_method(),
        properties.assigned_client_identifier(),
        properties.response_information(),
        properties.server_reference(),
    ] {
        assert!(!text.is_some_and(|text| text.contains('\0')));
    }
    assert_ne!(properties.receive_maximum(), Some(0));
    assert_ne!(properties.maximum_packet_size(), Some(0));
    assert_ne!(properties.topic_alias(), Some(0));
}
