//! Rules of fixed headers, lengths, texts and packet ids. The tables of `docs/PROTOCOLS.md` name these tests by their
//! numbers.

use bytes::BytesMut;

use super::given::{ConnectBytes, accepts, cat, connect, decode, decoder, field, frame, refuses};
use super::samples::LEVELS;
use crate::mqtt::wire::{Decoder, Level, Packet, Role, Text, encode};

#[test]
fn w20_reserved_kinds_of_packets() {
    for level in LEVELS {
        for role in [Role::Server, Role::Client] {
            refuses(level, role, [0x00, 0], 0x81, "reserved kind");
            if level != Level::V5 {
                refuses(level, role, [0xF0, 0], 0x81, "reserved kind");
            }
        }
    }
}

#[test]
fn w21_flags_of_fixed_headers() {
    // Kind, its flags, who receives it.
    let kinds = [
        (0x20, 0, Role::Client),
        (0x40, 0, Role::Server),
        (0x50, 0, Role::Server),
        (0x60, 2, Role::Server),
        (0x70, 0, Role::Server),
        (0x80, 2, Role::Server),
        (0x90, 0, Role::Client),
        (0xA0, 2, Role::Server),
        (0xB0, 0, Role::Client),
        (0xC0, 0, Role::Server),
        (0xD0, 0, Role::Client),
        (0xE0, 0, Role::Server),
        (0xF0, 0, Role::Server),
    ];
    for (kind, right, role) in kinds {
        for flags in 0..16 {
            for level in [Level::V311, Level::V5] {
                if kind == 0xF0 && level != Level::V5 {
                    continue;
                }
                let outcome = decode(&mut decoder(level, role), &[kind | flags]);
                if flags == right {
                    assert_eq!(outcome, Ok(None), "0x{kind:02X} {flags:04b}");
                } else {
                    let error = outcome.expect_err("refused");
                    assert!(error.reason == 0x81 && error.problem.contains("[MQTT-2.1.3-1]"), "{error}");
                    assert!(error.problem.contains("[MQTT-2.2.2-2]"), "{error}");
                }
            }
            if kind == 0xF0 {
                continue;
            }
            // 3.1: QoS 1 for SUBSCRIBE and UNSUBSCRIBE, DUP as it likes; the rest is not used.
            let outcome = decode(&mut decoder(Level::V31, role), &[kind | flags]);
            assert_eq!(
                outcome.is_ok(),
                right == 0 || kind == 0x60 || flags & 6 == 2,
                "3.1 0x{kind:02X} {flags:04b}"
            );
        }
    }
}

#[test]
fn w22_publish_qos_3() {
    for level in LEVELS {
        for flags in [6, 7, 14, 15] {
            refuses(level, Role::Server, [0x30 | flags], 0x81, "[MQTT-3.3.1-4]");
        }
    }
}

#[test]
fn w23_dup_with_qos_0() {
    let body = |level| cat![field("t"), if level == Level::V5 { &[0_u8][..] } else { &[] }];
    for level in [Level::V311, Level::V5] {
        for flags in [8, 9] {
            refuses(level, Role::Server, frame(0x30 | flags, body(level)), 0x81, "[MQTT-3.3.1-2]");
        }
    }
    // 3.1 says that it means nothing.
    accepts(Level::V31, Role::Server, frame(0x38, body(Level::V31)));
}

#[test]
fn w24_a_remaining_length_has_at_most_four_bytes() {
    for level in LEVELS {
        refuses(level, Role::Server, [0x30, 0x80, 0x80, 0x80, 0x80], 0x81, "§2.2.3");
        refuses(level, Role::Server, [0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], 0x81, "§2.2.3");
        for so_far in [&[0x30][..], &[0x30, 0x80], &[0x30, 0x80, 0x80], &[0x30, 0x80, 0x80, 0x80]] {
            assert_eq!(decode(&mut decoder(level, Role::Server), so_far), Ok(None));
        }
    }
}

#[test]
fn w25_a_length_of_more_bytes_than_needed() {
    for bytes in [&[0xC0, 0x80, 0x00][..], &[0xC0, 0x80, 0x80, 0x00], &[0xC0, 0x80, 0x80, 0x80, 0x00]] {
        refuses(Level::V5, Role::Server, bytes, 0x81, "[MQTT-1.5.5-1]");
        // Not forbidden before MQTT 5.
        accepts(Level::V311, Role::Server, bytes);
        accepts(Level::V31, Role::Server, bytes);
    }
    for level in LEVELS {
        let body = ConnectBytes::new(level).body();
        let bytes = cat![[0x10, body.len() as u8 | 0x80, 0], body];
        assert_eq!(connect(&bytes).is_ok(), level != Level::V5);
    }
    // The length of properties.
    refuses(Level::V5, Role::Server, frame(0x30, cat![field("t"), [0x80, 0]]), 0x81, "[MQTT-1.5.5-1]");
}

#[test]
fn w26_a_packet_that_is_too_large_is_refused_by_its_header() {
    for level in LEVELS {
        let mut decoder = decoder(level, Role::Server);
        decoder.set_packet_bytes_max(132);
        assert_eq!(decode(&mut decoder, &[0x30, 0x81, 0x01]), Ok(None), "at the limit");
        let error = decode(&mut decoder, &[0x30, 0x82, 0x01]).expect_err("one past it");
        assert_eq!((error.reason, error.level), (0x95, Some(level)));
    }
}

#[test]
fn w27_an_announced_length_reserves_nothing() {
    for level in LEVELS {
        let mut decoder = Decoder::new(Role::Server, usize::MAX);
        decoder.set_level(level);
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
        for arrived in [5, 100, 5000, 50_000] {
            buffer.resize(arrived, b'x');
            for _ in 0..3 {
                assert_eq!(decoder.decode(&mut buffer), Ok(None));
            }
            assert!(buffer.capacity() <= 2 * arrived + 4096, "{} for {arrived}", buffer.capacity());
        }
    }
}

#[test]
fn w28_texts_are_utf_8_without_surrogates_and_nul() {
    let bad: [&[u8]; 10] = [
        b"a\0b",             // U+0000
        b"\0",               //
        b"\xC0\x80",         // U+0000, overlong
        b"\xED\xA0\x80",     // U+D800
        b"\xED\xBF\xBF",     // U+DFFF
        b"\xF4\x90\x80\x80", // behind U+10FFFF
        b"\xFF",
        b"\x80",
        b"\xE4\xB8", // cut
        b"\xC1\xBF", // overlong
    ];
    for text in bad {
        for level in LEVELS {
            let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
            let rule = "[MQTT-1.5.4-1] [MQTT-1.5.4-2], 3.1.1 [MQTT-1.5.3-1]";
            refuses(level, Role::Server, frame(0x30, cat![field(text), properties]), 0x81, rule);
            refuses(level, Role::Server, frame(0x82, cat![[0, 1], properties, field(text), [0]]), 0x81, rule);
            refuses(level, Role::Server, frame(0xA2, cat![[0, 1], properties, field(text)]), 0x81, rule);
            for payload in [field(text), cat![field(""), field(text)]] {
                let given = ConnectBytes { flags: 0x82, payload, ..ConnectBytes::new(level) };
                assert_eq!(given.decode().map_err(|error| error.reason), Err(0x81));
            }
        }
        // Properties: a content type, both halves of a user property.
        for property in [
            cat![[3], field(text)],
            cat![[0x26], field(text), field("")],
            cat![[0x26], field(""), field(text)],
        ] {
            let body = cat![field("t"), [property.len() as u8], property];
            refuses(Level::V5, Role::Server, frame(0x30, body), 0x81, "[MQTT-1.5.4-2]");
        }
        assert_eq!(Text::from_bytes(text.to_vec().into()), None);
    }
    assert_eq!(Text::new("a\0"), None);
    assert_eq!(Text::new(&"x".repeat(65_536)), None);
    assert!(Text::new(&"x".repeat(65_535)).is_some());
}

#[test]
fn w29_other_characters_are_kept() {
    // U+FEFF is kept [MQTT-1.5.4-3]; control characters and non-characters are allowed.
    for topic in
        ["\u{FEFF}", "a\u{FEFF}b", "\u{1}", "\u{7F}", "\u{9F}", "\u{FFFF}", "\u{10FFFF}", "家/🎉", " ", "//"]
    {
        for level in LEVELS {
            let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
            let bytes = frame(0x30, cat![field(topic), properties, b"p"]);
            let Packet::Publish(packet) = accepts(level, Role::Server, &bytes) else { panic!() };
            assert_eq!((&*packet.topic, &packet.payload[..]), (topic, &b"p"[..]));
            let mut again = BytesMut::new();
            encode::publish(level, &packet, &mut again);
            assert_eq!(again, bytes);
        }
    }
}

#[test]
fn w30_packet_ids_are_not_zero() {
    for level in LEVELS {
        let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
        let mut packets = vec![
            (Role::Server, frame(0x32, cat![field("t"), [0, 0], properties])),
            (Role::Server, frame(0x34, cat![field("t"), [0, 0], properties])),
            (Role::Server, frame(0x82, cat![[0, 0], properties, field("t"), [0]])),
            (Role::Server, frame(0xA2, cat![[0, 0], properties, field("t")])),
            (Role::Client, frame(0x90, cat![[0, 0], properties, [0]])),
            (Role::Client, frame(0xB0, cat![[0, 0], properties, [0]])),
        ];
        packets.extend([0x40, 0x50, 0x62, 0x70].map(|first| (Role::Server, frame(first, [0, 0]))));
        for (role, bytes) in packets {
            refuses(level, role, bytes, 0x82, "[MQTT-2.3.1-1]");
        }
    }
}

#[test]
fn w31_pings_have_no_body() {
    for level in LEVELS {
        assert_eq!(accepts(level, Role::Server, [0xC0, 0]), Packet::Pingreq);
        assert_eq!(accepts(level, Role::Client, [0xD0, 0]), Packet::Pingresp);
        refuses(level, Role::Server, [0xC0, 1, 0], 0x81, "behind the last field");
        refuses(level, Role::Client, [0xD0, 1, 0], 0x81, "behind the last field");
    }
}

#[test]
fn w32_many_packets_in_one_buffer() {
    for level in LEVELS {
        let mut buffer =
            BytesMut::from(&cat![ConnectBytes::new(level).bytes(), [0xC0, 0].repeat(100), [0xC0]][..]);
        let mut decoder = Decoder::new(Role::Server, 1000);
        let mut packets = 0;
        while decoder.decode(&mut buffer).unwrap().is_some() {
            packets += 1;
        }
        assert_eq!((packets, &buffer[..]), (101, &[0xC0][..]));
    }
}

#[test]
fn w33_a_client_that_was_told_no_level_speaks_3_1_1() {
    let mut decoder = Decoder::new(Role::Client, 100);
    assert!(matches!(decode(&mut decoder, &[0x20, 2, 1, 0]), Ok(Some(Packet::Connack(_)))));
}

#[test]
fn w34_decoding_a_publish_copies_nothing() {
    for level in LEVELS {
        let properties: &[u8] = if level == Level::V5 { &[7, 0x26, 0, 1, b'k', 0, 1, b'v'] } else { &[] };
        let bytes = frame(0x32, cat![field("topic"), [0, 1], properties, b"payload"]);
        let mut buffer = BytesMut::from(&bytes[..]);
        let range = buffer.as_ptr_range();
        let Ok(Some(Packet::Publish(packet))) = decoder(level, Role::Server).decode(&mut buffer) else {
            panic!()
        };
        for part in [
            packet.topic.bytes(),
            &packet.payload,
            packet.properties.bytes(),
            &packet.properties.forwardable(),
        ] {
            assert!(part.is_empty() || range.contains(&part.as_ptr()), "{level:?} {part:?}");
        }
    }
}
