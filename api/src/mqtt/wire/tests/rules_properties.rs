//! Rules of properties. The tables of `docs/PROTOCOLS.md` name these tests by their numbers.

use super::given::{ConnectBytes, accepts, cat, decode, decoder, field, frame, refuses};
use crate::mqtt::wire::{Level, Packet, Properties, PropertyWriter, Role};

/// One property of each identifier, with a value that is allowed, and the blocks that allow it (C CONNECT, W will, A
/// CONNACK, P PUBLISH, R the acks, S SUBSCRIBE, U UNSUBSCRIBE, D DISCONNECT, X AUTH): the table of MQTT5 §2.2.2.2.
const TABLE: [(&[u8], &str); 27] = [
    (&[0x01, 1], "PW"),
    (&[0x02, 0, 0, 0, 1], "PW"),
    (&[0x03, 0, 1, b'a'], "PW"),
    (&[0x08, 0, 1, b'a'], "PW"),
    (&[0x09, 0, 1, 0xFF], "PW"),
    (&[0x0B, 1], "PS"),
    (&[0x11, 0, 0, 0, 1], "CAD"),
    (&[0x12, 0, 1, b'a'], "A"),
    (&[0x13, 0, 1], "A"),
    (&[0x15, 0, 1, b'a'], "CAX"),
    (&[0x16, 0, 1, 0xFF], "CAX"),
    (&[0x17, 1], "C"),
    (&[0x18, 0, 0, 0, 1], "W"),
    (&[0x19, 1], "C"),
    (&[0x1A, 0, 1, b'a'], "A"),
    (&[0x1C, 0, 1, b'a'], "AD"),
    (&[0x1F, 0, 1, b'a'], "ARDX"),
    (&[0x21, 0, 1], "CA"),
    (&[0x22, 0, 1], "CA"),
    (&[0x23, 0, 1], "P"),
    (&[0x24, 1], "A"),
    (&[0x25, 1], "A"),
    (&[0x26, 0, 1, b'a', 0, 0], "CWAPRSUDX"),
    (&[0x27, 0, 0, 0, 1], "CA"),
    (&[0x28, 1], "A"),
    (&[0x29, 1], "A"),
    (&[0x2A, 1], "A"),
];

/// Packets that carry a block: its name, the receiver, the bytes.
fn carriers(block: &[u8]) -> Vec<(char, Role, Vec<u8>)> {
    let sized = cat![[block.len() as u8], block];
    let connect = ConnectBytes { properties: block.to_vec(), ..ConnectBytes::new(Level::V5) }.bytes();
    let payload = cat![field(""), sized, field("t"), field("")];
    let will = ConnectBytes { flags: 6, payload, ..ConnectBytes::new(Level::V5) }.bytes();
    let mut carriers = vec![
        ('C', Role::Server, connect),
        ('W', Role::Server, will),
        ('A', Role::Client, frame(0x20, cat![[0, 0], sized])),
        ('P', Role::Client, frame(0x30, cat![field("t"), sized])),
        ('S', Role::Server, frame(0x82, cat![[0, 1], sized, field("t"), [0]])),
        ('R', Role::Client, frame(0x90, cat![[0, 1], sized, [0]])),
        ('U', Role::Server, frame(0xA2, cat![[0, 1], sized, field("t")])),
        ('R', Role::Client, frame(0xB0, cat![[0, 1], sized, [0]])),
        ('D', Role::Server, frame(0xE0, cat![[0], sized])),
        ('X', Role::Server, frame(0xF0, cat![[0x18], sized])),
    ];
    carriers.extend(
        [0x40, 0x50, 0x62, 0x70].map(|first| ('R', Role::Server, frame(first, cat![[0, 1, 0], sized]))),
    );
    carriers
}

/// The reason why a packet with this block is refused; 0 when it is not.
fn outcome(block: char, role: Role, bytes: &[u8]) -> u8 {
    let mut decoder = match block {
        'C' | 'W' => crate::mqtt::wire::Decoder::new(role, 1 << 20),
        _ => decoder(Level::V5, role),
    };
    decode(&mut decoder, bytes).map_or_else(|error| error.reason, |packet| u8::from(packet.is_none()))
}

#[test]
fn w60_properties_stand_only_where_they_may() {
    for (property, allowed) in TABLE {
        // Data needs its method, and AUTH needs one.
        let with_method = |block: char| match (block, property[0]) {
            ('C' | 'A' | 'X', 0x16) | ('X', 0x1F | 0x26) => cat![[0x15, 0, 0], property],
            _ => property.to_vec(),
        };
        for place in 0..carriers(property).len() {
            let block = carriers(property)[place].0;
            let (_, role, bytes) = carriers(&with_method(block)).remove(place);
            let expected = if allowed.contains(block) { 0 } else { 0x81 };
            assert_eq!(outcome(block, role, &bytes), expected, "{property:02X?} in {block}");
        }
    }
}

#[test]
fn w61_unknown_properties() {
    let known: Vec<u8> = TABLE.iter().map(|(property, _)| property[0]).collect();
    for id in (0..=0x7F).filter(|id| !known.contains(id)) {
        for (block, role, bytes) in carriers(&[id, 0, 0, 0, 0]) {
            assert_eq!(outcome(block, role, &bytes), 0x81, "0x{id:02X} in {block}");
        }
    }
    // An identifier of two bytes.
    refuses(
        Level::V5,
        Role::Client,
        frame(0x30, cat![field("t"), [3, 0x80, 1, 0]]),
        0x81,
        "unknown property",
    );
    refuses(Level::V5, Role::Client, frame(0x30, cat![field("t"), [3, 0x81, 0, 0]]), 0x81, "[MQTT-1.5.5-1]");
}

#[test]
fn w62_properties_stand_once() {
    for (property, allowed) in TABLE {
        let twice = cat![property, property];
        for (block, role, bytes) in carriers(&twice) {
            if !allowed.contains(block) {
                continue;
            }
            let id = property[0];
            let may = id == 0x26 || (id == 0x0B && block == 'P');
            let expected = match (may, block, id) {
                (true, 'X', _) => 0x82, // AUTH without a method
                (true, ..) => 0,
                _ => 0x82,
            };
            assert_eq!(outcome(block, role, &bytes), expected, "{property:02X?} twice in {block}");
        }
    }
}

#[test]
fn w63_values_that_are_not_allowed() {
    let cases: [(&[u8], char, u8); 19] = [
        (&[0x01, 2], 'P', 0x82),
        (&[0x17, 2], 'C', 0x82),
        (&[0x19, 255], 'C', 0x82),
        (&[0x24, 2], 'A', 0x82),
        (&[0x25, 2], 'A', 0x82),
        (&[0x28, 2], 'A', 0x82),
        (&[0x29, 2], 'A', 0x82),
        (&[0x2A, 2], 'A', 0x82),
        (&[0x21, 0, 0], 'C', 0x82),
        (&[0x21, 0, 0], 'A', 0x82),
        (&[0x27, 0, 0, 0, 0], 'C', 0x82),
        (&[0x27, 0, 0, 0, 0], 'A', 0x82),
        (&[0x23, 0, 0], 'P', 0x94),
        (&[0x0B, 0], 'P', 0x82),
        (&[0x0B, 0], 'S', 0x82),
        (&[0x08, 0, 3, b'a', b'/', b'#'], 'P', 0x82),
        (&[0x08, 0, 1, b'+'], 'W', 0x82),
        (&[0x08, 0, 0], 'P', 0x82),
        (&[0x16, 0, 0], 'C', 0x82),
    ];
    for (property, wanted, reason) in cases {
        for (block, role, bytes) in carriers(property) {
            if block == wanted {
                assert_eq!(outcome(block, role, &bytes), reason, "{property:02X?} in {block}");
            }
        }
    }
}

#[test]
fn w64_a_client_sends_no_subscription_identifier_in_publish() {
    let bytes = frame(0x30, cat![field("t"), [2, 0x0B, 1]]);
    refuses(Level::V5, Role::Server, &bytes, 0x82, "[MQTT-3.3.4-6]");
    accepts(Level::V5, Role::Client, &bytes);
}

#[test]
fn w65_properties_end_where_their_length_says() {
    for (property, allowed) in TABLE {
        let block = allowed.chars().next().unwrap();
        for cut in 1..property.len() {
            for (carrier, role, bytes) in carriers(&property[..cut]) {
                if carrier == block {
                    assert_eq!(outcome(block, role, &bytes), 0x81, "{:02X?} in {block}", &property[..cut]);
                }
            }
        }
    }
    // Longer than the packet.
    refuses(Level::V5, Role::Server, frame(0x30, cat![field("t"), [3, 0x01, 1]]), 0x81, "§1.2");
}

#[test]
fn w66_accessors_read_what_was_written() {
    let mut writer = PropertyWriter::new();
    writer
        .payload_format_indicator(1)
        .message_expiry_s(2)
        .content_type("3")
        .response_topic("8")
        .correlation_data(&[9]);
    writer.subscription_identifier(11).subscription_identifier(268_435_455).session_expiry_s(17);
    writer
        .assigned_client_identifier("18")
        .server_keep_alive(19)
        .authentication_method("21")
        .authentication_data(&[22]);
    writer.request_problem_information(false).will_delay_s(24).request_response_information(true);
    writer.response_information("26").server_reference("28").reason_string("31").receive_maximum(33);
    writer
        .topic_alias_maximum(34)
        .topic_alias(35)
        .maximum_qos(1)
        .retain_available(false)
        .user("a", "b")
        .user("a", "");
    writer
        .maximum_packet_size(39)
        .wildcard_subscription_available(true)
        .subscription_identifiers_available(false);
    writer.shared_subscription_available(true);
    let p = writer.finish();
    assert_eq!(
        (p.payload_format_indicator(), p.message_expiry_s(), p.content_type()),
        (Some(1), Some(2), Some("3"))
    );
    assert_eq!((p.response_topic(), p.correlation_data()), (Some("8"), Some(&[9][..])));
    assert_eq!(p.subscription_identifiers().collect::<Vec<_>>(), [11, 268_435_455]);
    assert_eq!((p.session_expiry_s(), p.assigned_client_identifier()), (Some(17), Some("18")));
    assert_eq!((p.server_keep_alive(), p.authentication_method()), (Some(19), Some("21")));
    assert_eq!((p.authentication_data(), p.request_problem_information()), (Some(&[22][..]), Some(false)));
    assert_eq!((p.will_delay_s(), p.request_response_information()), (Some(24), true));
    assert_eq!((p.response_information(), p.server_reference()), (Some("26"), Some("28")));
    assert_eq!((p.reason_string(), p.receive_maximum()), (Some("31"), Some(33)));
    assert_eq!((p.topic_alias_maximum(), p.topic_alias(), p.maximum_qos()), (Some(34), Some(35), Some(1)));
    assert_eq!((p.retain_available(), p.maximum_packet_size()), (Some(false), Some(39)));
    assert_eq!(p.user().collect::<Vec<_>>(), [("a", "b"), ("a", "")]);
    assert_eq!(p.wildcard_subscription_available(), Some(true));
    assert_eq!(p.subscription_identifiers_available(), Some(false));
    assert_eq!(p.shared_subscription_available(), Some(true));
    let none = Properties::default();
    assert!(none.is_empty() && none.reason_string().is_none() && !none.request_response_information());
}

/// What of these properties is forwarded, and whether it is a slice of them.
fn forwardable(write: &dyn Fn(&mut PropertyWriter) -> &mut PropertyWriter) -> (bytes::Bytes, bool) {
    let mut writer = PropertyWriter::new();
    write(&mut writer);
    let properties = writer.finish();
    let forwarded = properties.forwardable();
    let shares = properties.bytes().as_ptr_range().contains(&forwarded.as_ptr());
    (forwarded, shares)
}

#[test]
fn w67_what_is_forwarded_keeps_its_order_and_is_a_slice_where_it_can_be() {
    let mut expected = PropertyWriter::new();
    expected.user("b", "1").content_type("t").user("a", "2").user("b", "1").payload_format_indicator(1);
    expected.response_topic("r").correlation_data(b"c");
    // All of it, with something in front, behind, and between.
    let all = expected.block().to_vec();
    assert_eq!(forwardable(&|w| w.raw(&all)), (all.clone().into(), true));
    assert_eq!(forwardable(&|w| w.topic_alias(1).raw(&all)), (all.clone().into(), true));
    assert_eq!(forwardable(&|w| w.raw(&all).message_expiry_s(1)), (all.clone().into(), true));
    assert_eq!(
        forwardable(&|w| w.will_delay_s(1).raw(&all).subscription_identifier(1)),
        (all.clone().into(), true)
    );
    let (split, shares) = forwardable(&|w| w.user("b", "1").topic_alias(1).content_type("t"));
    let mut joined = PropertyWriter::new();
    joined.user("b", "1").content_type("t");
    assert_eq!((&split[..], shares), (joined.block(), false));
    assert!(forwardable(&|w| w.topic_alias(1)).0.is_empty());
    assert!(Properties::default().forwardable().is_empty());
}

#[test]
fn w68_a_writer_leaves_out_what_mqtt_does_not_allow() {
    let mut writer = PropertyWriter::new();
    let long = "x".repeat(65_536);
    writer
        .reason_string("a\0")
        .user("\0", "")
        .user("", &long)
        .content_type(&long)
        .correlation_data(long.as_bytes());
    assert!(writer.block().is_empty());
    writer.user("", &long[1..]);
    assert_eq!(writer.block().len(), 1 + 2 + 2 + 65_535);
    writer.clear();
    assert!(writer.finish().is_empty());
}

#[test]
fn w69_before_mqtt_5_there_are_none() {
    for level in [Level::V31, Level::V311] {
        let Packet::Publish(packet) = accepts(level, Role::Server, frame(0x30, cat![field("t"), [2, 1, 1]]))
        else {
            panic!()
        };
        assert!(packet.properties.is_empty());
        assert_eq!(&packet.payload[..], [2, 1, 1]);
    }
}
