//! Rules of CONNECT and CONNACK. The tables of `docs/PROTOCOLS.md` name these tests by their numbers.

use super::given::{
    ConnectBytes, PACKET_BYTES_MAX, accepts, cat, connect, decode, decoder, field, frame, refuses,
};
use super::samples::LEVELS;
use crate::mqtt::wire::{Decoder, Level, Packet, Qos, Role, WireError};

#[track_caller]
fn refused(outcome: Result<crate::mqtt::wire::Connect, WireError>, level: Level, reason: u8, rule: &str) {
    let error = outcome.expect_err("refused");
    assert!(
        error.reason == reason && error.problem.contains(rule) && error.level == Some(level),
        "{error} of {:?}",
        error.level
    );
}

#[test]
fn w01_the_first_packet_is_connect() {
    // Shown by the first byte alone.
    for first in (0x00..=0xFF_u8).filter(|first| first >> 4 != 1) {
        let error = decode(&mut Decoder::new(Role::Server, PACKET_BYTES_MAX), &[first]).expect_err("refused");
        assert_eq!((error.reason, error.level), (0x82, None), "0x{first:02X}");
        assert!(error.problem.contains("[MQTT-3.1.0-1]"));
    }
}

#[test]
fn w02_a_second_connect_is_refused() {
    for level in LEVELS {
        let bytes = ConnectBytes::new(level).bytes();
        let mut decoder = Decoder::new(Role::Server, PACKET_BYTES_MAX);
        decode(&mut decoder, &bytes).unwrap().unwrap();
        let error = decode(&mut decoder, &bytes).expect_err("refused");
        assert!(error.reason == 0x82 && error.problem.contains("[MQTT-3.1.0-2]"), "{error}");
    }
}

#[test]
fn w03_the_level_is_learned_from_connect() {
    for level in LEVELS {
        let mut decoder = Decoder::new(Role::Server, PACKET_BYTES_MAX);
        assert_eq!(decoder.level(), None);
        let packet = decode(&mut decoder, &ConnectBytes::new(level).bytes()).unwrap().unwrap();
        let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
        assert_eq!((connect.level, decoder.level()), (level, Some(level)));
        assert_eq!((connect.clean_start, connect.keep_alive_s), (true, 60));
    }
}

#[test]
fn w04_unsupported_levels_are_told_in_the_nearest_form() {
    let cases: [(&[u8], u8, Option<Level>); 14] = [
        (b"MQIsdp", 2, Some(Level::V31)),
        (b"MQIsdp", 4, Some(Level::V31)),
        (b"MQIsdp", 0x83, Some(Level::V31)),
        (b"MQTT", 0, Some(Level::V311)),
        (b"MQTT", 3, Some(Level::V311)),
        (b"MQTT", 0x84, Some(Level::V311)), // a bridge
        (b"MQTT", 6, Some(Level::V5)),
        (b"MQTT", 0x85, Some(Level::V5)),
        (b"MQTT", 255, Some(Level::V5)),
        // Other protocols get no answer: [MQTT-3.1.2-1].
        (b"mqtt", 4, None),
        (b"MQTTX", 4, None),
        (b"MQISDP", 3, None),
        (b"", 4, None),
        (b"\xFF\xFE", 4, None),
    ];
    for (name, number, level) in cases {
        let given = ConnectBytes { name, number, ..ConnectBytes::new(Level::V311) };
        let error = given.decode().expect_err("refused");
        assert_eq!((error.reason, error.level), (0x84, level), "{name:?} {number}");
        assert!(error.problem.contains("[MQTT-3.1.2-2]"));
    }
}

#[test]
fn w05_the_reserved_flag_of_connect() {
    for level in [Level::V311, Level::V5] {
        let given = ConnectBytes { flags: 3, ..ConnectBytes::new(level) };
        refused(given.decode(), level, 0x81, "[MQTT-3.1.2-3]");
    }
    // 3.1 does not use it.
    ConnectBytes { flags: 3, ..ConnectBytes::new(Level::V31) }.decode().unwrap();
}

#[test]
fn w06_the_fixed_header_of_connect() {
    for flags in 1..16 {
        for level in [Level::V311, Level::V5] {
            refused(connect(&frame(0x10 | flags, ConnectBytes::new(level).body())), level, 0x81, "[MQTT-2.");
        }
        connect(&frame(0x10 | flags, ConnectBytes::new(Level::V31).body())).unwrap();
    }
}

#[test]
fn w07_will_qos_and_retain_without_a_will() {
    for flags in [0x08, 0x10, 0x18, 0x20, 0x38] {
        for level in [Level::V311, Level::V5] {
            let given = ConnectBytes { flags: 2 | flags, ..ConnectBytes::new(level) };
            refused(given.decode(), level, 0x81, "[MQTT-3.1.2-13]");
        }
        let connect = ConnectBytes { flags: 2 | flags, ..ConnectBytes::new(Level::V31) }.decode().unwrap();
        assert_eq!(connect.will, None);
    }
}

#[test]
fn w08_will_qos_3() {
    for level in LEVELS {
        let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
        let payload = cat![field(""), properties, field("t"), field("p")];
        let given = |flags: u8| ConnectBytes {
            flags: 6 | flags,
            payload: payload.clone(),
            ..ConnectBytes::new(level)
        };
        refused(given(0x18).decode(), level, 0x81, "[MQTT-3.1.2-14]");
        let will = given(0x30).decode().unwrap().will.unwrap();
        assert_eq!(
            (will.qos, will.retain, &*will.topic, &will.payload[..]),
            (Qos::ExactlyOnce, true, "t", &b"p"[..])
        );
    }
}

#[test]
fn w09_a_will_goes_to_a_topic_name() {
    for level in LEVELS {
        let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
        for topic in ["", "a/+", "#", "a#"] {
            let payload = cat![field(""), properties, field(topic), field("")];
            let given = ConnectBytes { flags: 6, payload, ..ConnectBytes::new(level) };
            refused(given.decode(), level, 0x90, "[MQTT-3.3.2-2]");
        }
    }
}

#[test]
fn w10_a_password_without_a_user_name() {
    let given = |level| ConnectBytes {
        flags: 0x42,
        payload: cat![field(""), field("pw")],
        ..ConnectBytes::new(level)
    };
    for level in [Level::V31, Level::V311] {
        refused(given(level).decode(), level, 0x81, "[MQTT-3.1.2-22]");
    }
    let connect = given(Level::V5).decode().unwrap();
    assert_eq!((connect.username, connect.password.as_deref()), (None, Some(&b"pw"[..])));
}

#[test]
fn w11_in_3_1_the_length_takes_precedence_over_the_flags() {
    let given = |payload| ConnectBytes { flags: 0xC2, payload, ..ConnectBytes::new(Level::V31) }.decode();
    let connect = given(field("id")).unwrap();
    assert_eq!((connect.username, connect.password), (None, None));
    let connect = given(cat![field("id"), field("u")]).unwrap();
    assert_eq!((connect.username.as_deref(), connect.password), (Some("u"), None));
    refused(given(cat![field("id"), [0]]), Level::V31, 0x81, "§1.2");
    for level in [Level::V311, Level::V5] {
        let given = ConnectBytes { flags: 0xC2, payload: field("id"), ..ConnectBytes::new(level) };
        refused(given.decode(), level, 0x81, "§1.2");
    }
}

#[test]
fn w12_client_ids_of_any_characters() {
    for level in LEVELS {
        for client_id in ["", "/+#$", "é", "家", "\u{FEFF}x", &"x".repeat(65_535)] {
            let given = ConnectBytes { payload: field(client_id), ..ConnectBytes::new(level) };
            assert_eq!(&*given.decode().unwrap().client_id, client_id);
        }
    }
}

#[test]
fn w13_bytes_behind_connect() {
    for level in LEVELS {
        let given = ConnectBytes { payload: cat![field(""), [0]], ..ConnectBytes::new(level) };
        refused(given.decode(), level, 0x81, "behind the last field");
    }
}

#[test]
fn w14_connack_flags_codes_and_session_present() {
    let connack = |level: Level, flags: u8, reason: u8| {
        let properties: &[u8] = if level == Level::V5 { &[0] } else { &[] };
        frame(0x20, cat![[flags, reason], properties])
    };
    for level in [Level::V311, Level::V5] {
        refuses(level, Role::Client, connack(level, 2, 0), 0x81, "[MQTT-3.2.2-1]");
        refuses(
            level,
            Role::Client,
            connack(level, 1, if level == Level::V5 { 0x87 } else { 5 }),
            0x82,
            "[MQTT-3.2.2-4]",
        );
        refuses(level, Role::Client, connack(level, 0, 6), 0x82, "[MQTT-3.2.2-8]");
        let Packet::Connack(packet) = accepts(level, Role::Client, connack(level, 1, 0)) else { panic!() };
        assert!(packet.session_present);
    }
    // 3.1 does not use the first byte.
    let Packet::Connack(packet) = accepts(Level::V31, Role::Client, connack(Level::V31, 0xFF, 5)) else {
        panic!()
    };
    assert!(!packet.session_present);
    refuses(Level::V31, Role::Client, connack(Level::V31, 0, 6), 0x82, "§3.2.2.3");
}

#[test]
fn w15_a_connect_that_is_too_large_is_answered_in_its_level() {
    for level in LEVELS {
        let bytes = ConnectBytes { payload: field("x".repeat(200)), ..ConnectBytes::new(level) }.bytes();
        let mut decoder = Decoder::new(Role::Server, 100);
        let error = decode(&mut decoder, &bytes[..20]).expect_err("refused before it has arrived");
        assert_eq!((error.reason, error.level), (0x95, Some(level)));
        // Its level is waited for, and no longer.
        let known = 3 + if level == Level::V31 { 9 } else { 7 };
        for arrived in 0..known {
            assert_eq!(decode(&mut Decoder::new(Role::Server, 100), &bytes[..arrived]), Ok(None));
        }
        decode(&mut Decoder::new(Role::Server, 100), &bytes[..known]).expect_err("refused");
    }
    let error = decode(&mut Decoder::new(Role::Server, 100), b"\x10\x80\x01\0\x05").expect_err("refused");
    assert_eq!((error.reason, error.level), (0x95, None));
}

#[test]
fn w16_packets_in_the_wrong_direction() {
    for level in LEVELS {
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            let error = decode(&mut decoder(level, Role::Server), &[first]).expect_err("refused");
            assert!(error.reason == 0x82 && error.problem.contains("direction"), "{error}");
        }
        for first in [0x10, 0x82, 0xA2, 0xC0] {
            let error = decode(&mut decoder(level, Role::Client), &[first]).expect_err("refused");
            assert!(error.reason == 0x82 && error.problem.contains("direction"), "{error}");
        }
    }
    // Servers send DISCONNECT in MQTT 5 only.
    refuses(Level::V311, Role::Client, [0xE0, 0], 0x82, "direction");
    accepts(Level::V5, Role::Client, [0xE0, 0]);
}
