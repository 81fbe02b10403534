//! Rules of PUBLISH, its acks, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and AUTH. The tables of `docs/PROTOCOLS.md` name these
//! tests by their numbers.

use super::given::{accepts, cat, field, frame, refuses};
use super::samples::{LEVELS, id};
use crate::mqtt::wire::topic::{self, BadShare, Shared};
use crate::mqtt::wire::{Level, Packet, Qos, Role};

/// An empty block of properties, in MQTT 5.
fn none(level: Level) -> &'static [u8] {
    if level == Level::V5 { &[0] } else { &[] }
}

const BAD_FILTERS: [&str; 11] = ["", "#/a", "a/#/b", "a#", "#a", "##", "a+", "+a", "a/b+/c", "++", "a/+#"];
const GOOD_FILTERS: [&str; 15] = [
    "#", "+", "/", "//", "a", "a/#", "+/+", "/+", "+/#", "a/+/b", "$SYS/#", " ", "家/+/#", "$share",
    "\u{FEFF}",
];
const BAD_SHARES: [&str; 9] = [
    "$share/",
    "$share/g",
    "$share/g/",
    "$share//a",
    "$share/+/a",
    "$share/#",
    "$share/g#/a",
    "$share/g/a#",
    "$share/a+/a",
];

#[test]
fn w40_topic_names_have_no_wildcards() {
    for level in LEVELS {
        for name in ["+", "#", "a/+", "a/#", "a+b", "a#", "+/x"] {
            let bytes = frame(0x30, cat![field(name), none(level)]);
            refuses(level, Role::Server, &bytes, 0x90, "[MQTT-3.3.2-2]");
            refuses(level, Role::Client, &bytes, 0x90, "[MQTT-3.3.2-2]");
            assert!(!topic::is_name(name));
        }
        for name in ["/", "//", "a//b", "$SYS/x", "im://modulus/SendMsg?msg_id=1", "家", " "] {
            accepts(level, Role::Server, frame(0x30, cat![field(name), none(level)]));
            assert!(topic::is_name(name));
        }
    }
}

#[test]
fn w41_a_topic_has_at_least_one_character() {
    for level in [Level::V31, Level::V311] {
        refuses(level, Role::Server, frame(0x30, field("")), 0x90, "[MQTT-4.7.3-1]");
    }
    refuses(Level::V5, Role::Server, frame(0x30, cat![field(""), [0]]), 0x82, "§3.3.2.1");
    let alias = frame(0x30, cat![field(""), [3, 0x23, 0, 9], b"x"]);
    let Packet::Publish(packet) = accepts(Level::V5, Role::Server, alias) else { panic!() };
    assert_eq!((&*packet.topic, packet.properties.topic_alias()), ("", Some(9)));
}

#[test]
fn w42_topics_of_65_535_bytes_but_of_32_767_characters_in_3_1() {
    let publish = |level, name: &str| frame(0x30, cat![field(name), none(level)]);
    let (at, past) = ("x".repeat(32_767), "x".repeat(32_768));
    for level in [Level::V311, Level::V5] {
        accepts(level, Role::Server, publish(level, &"x".repeat(65_535)));
    }
    accepts(Level::V31, Role::Server, publish(Level::V31, &at));
    accepts(Level::V31, Role::Server, publish(Level::V31, &"é".repeat(32_767)));
    refuses(Level::V31, Role::Server, publish(Level::V31, &past), 0x90, "topic name");
    refuses(Level::V31, Role::Server, frame(0x82, cat![[0, 1], field(&past), [0]]), 0x8F, "filter");
}

#[test]
fn w43_a_packet_id_only_with_qos_1_and_2() {
    for level in LEVELS {
        for (first, qos) in [(0x31, Qos::AtMostOnce), (0x33, Qos::AtLeastOnce), (0x3D, Qos::ExactlyOnce)] {
            let with_id = qos != Qos::AtMostOnce;
            let id_bytes: &[u8] = if with_id { &[0x12, 0x34] } else { &[] };
            let bytes = frame(first, cat![field("t"), id_bytes, none(level), [0, 1]]);
            let Packet::Publish(packet) = accepts(level, Role::Server, bytes) else { panic!() };
            assert_eq!((packet.qos, packet.packet_id), (qos, with_id.then(|| id(0x1234))));
            assert_eq!((packet.dup, packet.retain, &packet.payload[..]), (first == 0x3D, true, &[0, 1][..]));
        }
        accepts(level, Role::Server, frame(0x30, cat![field("t"), none(level)]));
    }
}

#[test]
fn w44_acks_before_mqtt_5_are_a_packet_id() {
    for level in [Level::V31, Level::V311] {
        for first in [0x40, 0x50, 0x62, 0x70] {
            for role in [Role::Server, Role::Client] {
                accepts(level, role, frame(first, [0, 1]));
                refuses(level, role, frame(first, [0, 1, 0]), 0x81, "behind the last field");
                refuses(level, role, frame(first, [0]), 0x81, "§1.2");
                refuses(level, role, frame(first, []), 0x81, "§1.2");
            }
        }
    }
}

#[test]
fn w45_acks_of_mqtt_5_leave_out_what_says_nothing() {
    for (first, reason) in [(0x40, 0x10), (0x50, 0x80), (0x62, 0x92), (0x70, 0x92)] {
        for (tail, expected) in
            [(&[][..], 0), (&[reason], reason), (&[reason, 0], reason), (&[reason, 3, 0x1F, 0, 0], reason)]
        {
            let packet = accepts(Level::V5, Role::Server, frame(first, cat![[0, 7], tail]));
            let (Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack)) =
                packet
            else {
                panic!("{packet:?}")
            };
            assert_eq!((ack.packet_id, ack.reason), (id(7), expected));
            assert_eq!(ack.properties.reason_string(), (tail.len() == 5).then_some(""));
        }
        refuses(Level::V5, Role::Server, frame(first, [0, 7, reason, 0, 0]), 0x81, "behind the last field");
        refuses(Level::V5, Role::Server, frame(first, [0, 7, reason, 1]), 0x81, "§1.2");
    }
}

#[test]
fn w46_reasons_that_a_packet_does_not_know() {
    let every = |known: &[u8], role: Role, bytes: &dyn Fn(u8) -> Vec<u8>| {
        for code in 0..=255 {
            if known.contains(&code) {
                accepts(Level::V5, role, bytes(code));
            } else {
                refuses(Level::V5, role, bytes(code), 0x82, "[MQTT-3.");
            }
        }
    };
    let publish = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    for first in [0x40, 0x50] {
        every(&publish, Role::Server, &|code| frame(first, [0, 1, code]));
    }
    for first in [0x62, 0x70] {
        every(&[0x00, 0x92], Role::Client, &|code| frame(first, [0, 1, code]));
    }
    let suback = [0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    every(&suback, Role::Client, &|code| frame(0x90, [0, 1, 0, 0, code]));
    every(&[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91], Role::Client, &|code| frame(0xB0, [0, 1, 0, code]));
    let from_client = [0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    every(&from_client, Role::Server, &|code| frame(0xE0, [code]));
    let from_server: Vec<u8> = [0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90]
        .into_iter()
        .chain(0x93..=0xA2)
        .collect();
    every(&from_server, Role::Client, &|code| frame(0xE0, [code]));
    let method = [4, 0x15, 0, 1, b'm'];
    every(&[0x18, 0x19], Role::Server, &|code| frame(0xF0, cat![[code], method]));
    every(&[0x00, 0x18], Role::Client, &|code| frame(0xF0, cat![[code], method]));
    let connack: Vec<u8> = [0]
        .into_iter()
        .chain(0x80..=0x8A)
        .chain([0x8C, 0x90, 0x95, 0x97])
        .chain(0x99..=0x9D)
        .chain([0x9F])
        .collect();
    every(&connack, Role::Client, &|code| frame(0x20, [0, code, 0]));
}

#[test]
fn w47_suback_codes_before_mqtt_5() {
    for code in 0..=255_u8 {
        for (level, known) in [(Level::V31, code <= 2), (Level::V311, code <= 2 || code == 0x80)] {
            let bytes = frame(0x90, [0, 1, code]);
            if known {
                accepts(level, Role::Client, bytes);
            } else {
                refuses(level, Role::Client, bytes, 0x82, "[MQTT-3.9.3-2]");
            }
        }
    }
    for level in LEVELS {
        refuses(level, Role::Client, frame(0x90, cat![[0, 1], none(level)]), 0x82, "[MQTT-3.8.4-5]");
    }
}

#[test]
fn w48_subscribe_has_a_filter() {
    for level in LEVELS {
        refuses(level, Role::Server, frame(0x82, cat![[0, 1], none(level)]), 0x82, "[MQTT-3.8.3-3]");
        refuses(level, Role::Server, frame(0xA2, cat![[0, 1], none(level)]), 0x82, "[MQTT-3.10.3-2]");
        // A filter without its options.
        refuses(level, Role::Server, frame(0x82, cat![[0, 1], none(level), field("a")]), 0x81, "§1.2");
    }
}

#[test]
fn w49_filters_keep_to_their_syntax() {
    for level in LEVELS {
        let subscribe =
            |filter: &str| frame(0x82, cat![[0, 1], none(level), field("ok"), [1], field(filter), [0]]);
        let unsubscribe = |filter: &str| frame(0xA2, cat![[0, 1], none(level), field(filter)]);
        for filter in BAD_FILTERS {
            refuses(level, Role::Server, subscribe(filter), 0x8F, "[MQTT-4.7.1-2]");
            refuses(level, Role::Server, unsubscribe(filter), 0x8F, "[MQTT-4.7.1-2]");
            assert!(!topic::is_filter(filter), "{filter}");
        }
        for filter in GOOD_FILTERS {
            let Packet::Subscribe(packet) = accepts(level, Role::Server, subscribe(filter)) else { panic!() };
            let filters: Vec<_> =
                packet.filters.iter().map(|(filter, options)| (&**filter, options.qos)).collect();
            assert_eq!(filters, [("ok", Qos::AtLeastOnce), (filter, Qos::AtMostOnce)]);
            let Packet::Unsubscribe(packet) = accepts(level, Role::Server, unsubscribe(filter)) else {
                panic!()
            };
            assert_eq!(&*packet.filters[0], filter);
            assert!(topic::is_filter(filter), "{filter}");
        }
    }
}

#[test]
fn w50_subscription_options() {
    for byte in 0..=255_u8 {
        let bytes = |level| frame(0x82, cat![[0, 1], none(level), field("a"), [byte]]);
        // 3.1 uses the lower two bits.
        match byte & 3 {
            3 => refuses(Level::V31, Role::Server, bytes(Level::V31), 0x82, "[MQTT-3.8.3-4]"),
            _ => drop(accepts(Level::V31, Role::Server, bytes(Level::V31))),
        }
        match byte {
            0..=2 => drop(accepts(Level::V311, Role::Server, bytes(Level::V311))),
            3 => refuses(Level::V311, Role::Server, bytes(Level::V311), 0x82, "[MQTT-3.8.3-4]"),
            _ => refuses(Level::V311, Role::Server, bytes(Level::V311), 0x81, "[MQTT-3.8.3-4]"),
        }
        if byte & 0xC0 != 0 {
            refuses(Level::V5, Role::Server, bytes(Level::V5), 0x81, "[MQTT-3.8.3-5]");
        } else if byte & 3 == 3 || byte & 0x30 == 0x30 {
            refuses(Level::V5, Role::Server, bytes(Level::V5), 0x82, "§3.8.3.1");
        } else {
            let Packet::Subscribe(packet) = accepts(Level::V5, Role::Server, bytes(Level::V5)) else {
                panic!()
            };
            let options = packet.filters[0].1;
            assert_eq!(options.qos as u8, byte & 3);
            assert_eq!((options.no_local, options.retain_as_published), (byte & 4 != 0, byte & 8 != 0));
            assert_eq!(options.retain_handling, byte >> 4);
        }
    }
}

#[test]
fn w51_shared_subscriptions() {
    let subscribe =
        |level, filter: &str, options: u8| frame(0x82, cat![[0, 1], none(level), field(filter), [options]]);
    for filter in BAD_SHARES {
        if topic::is_filter(filter) {
            refuses(Level::V5, Role::Server, subscribe(Level::V5, filter, 0), 0x8F, "[MQTT-4.8.2-1]");
            // Before MQTT 5 these are filters like others.
            accepts(Level::V311, Role::Server, subscribe(Level::V311, filter, 0));
        }
        assert_eq!(topic::shared(filter), Err(BadShare), "{filter}");
    }
    assert_eq!(topic::shared("$share/g/a/#"), Ok(Some(Shared { group: "g", filter: "a/#" })));
    assert_eq!(topic::shared("$share/家 $/+"), Ok(Some(Shared { group: "家 $", filter: "+" })));
    assert_eq!(topic::shared("$share/g//"), Ok(Some(Shared { group: "g", filter: "/" })));
    for filter in ["$share", "$shared/g/a", "share/g/a", "/$share/g/a", "#"] {
        assert_eq!(topic::shared(filter), Ok(None), "{filter}");
    }
    accepts(Level::V5, Role::Server, subscribe(Level::V5, "$share/g/a", 0x2A));
}

#[test]
fn w52_no_local_on_a_shared_subscription() {
    let bytes = frame(0x82, cat![[0, 1, 0], field("$share/g/a"), [4]]);
    refuses(Level::V5, Role::Server, bytes, 0x82, "[MQTT-3.8.3-4]");
}

#[test]
fn w53_unsuback_has_codes_in_mqtt_5_only() {
    for level in [Level::V31, Level::V311] {
        accepts(level, Role::Client, frame(0xB0, [0, 1]));
        refuses(level, Role::Client, frame(0xB0, [0, 1, 0]), 0x81, "behind the last field");
    }
    refuses(Level::V5, Role::Client, frame(0xB0, [0, 1, 0]), 0x82, "[MQTT-3.11.3-1]");
    let Packet::Unsuback(packet) = accepts(Level::V5, Role::Client, frame(0xB0, [0, 1, 0, 0, 0x11])) else {
        panic!()
    };
    assert_eq!(packet.reasons, [0, 0x11]);
}

#[test]
fn w54_disconnect() {
    for level in [Level::V31, Level::V311] {
        accepts(level, Role::Server, [0xE0, 0]);
        refuses(level, Role::Server, [0xE0, 1, 0], 0x81, "behind the last field");
    }
    for (body, reason) in [(&[][..], 0), (&[4], 4), (&[0, 0], 0), (&[0x80, 5, 0x11, 0, 0, 0, 9], 0x80)] {
        let Packet::Disconnect(packet) = accepts(Level::V5, Role::Server, frame(0xE0, body)) else {
            panic!()
        };
        assert_eq!(
            (packet.reason, packet.properties.session_expiry_s()),
            (reason, (body.len() > 2).then_some(9))
        );
    }
    refuses(Level::V5, Role::Client, frame(0xE0, [0, 5, 0x11, 0, 0, 0, 9]), 0x82, "[MQTT-3.14.2-2]");
}

#[test]
fn w55_auth() {
    for bytes in [&[0xF0, 0][..], &[0xF0, 2, 0, 0]] {
        let Packet::Auth(packet) = accepts(Level::V5, Role::Client, bytes) else { panic!() };
        assert!(packet.reason == 0 && packet.properties.is_empty());
    }
    // A client never reports success.
    refuses(Level::V5, Role::Server, [0xF0, 0], 0x82, "[MQTT-3.15.2-1]");
    refuses(Level::V5, Role::Server, frame(0xF0, [0x18]), 0x81, "§1.2");
    refuses(Level::V5, Role::Server, frame(0xF0, [0x18, 0]), 0x82, "§3.15.2.2.2");
    refuses(Level::V5, Role::Server, frame(0xF0, [0x18, 3, 0x16, 0, 0]), 0x82, "§3.1.2.11.10");
    let bytes = frame(0xF0, [0x19, 8, 0x15, 0, 1, b'm', 0x16, 0, 1, 9]);
    let Packet::Auth(packet) = accepts(Level::V5, Role::Server, bytes) else { panic!() };
    assert_eq!(
        (packet.properties.authentication_method(), packet.properties.authentication_data()),
        (Some("m"), Some(&[9][..]))
    );
}
