//! What is encoded decodes to the same.

use bytes::BytesMut;

use super::generate::{self, Random, bytes};
use super::samples::{LEVELS, connects, packets};
use crate::mqtt::wire::encode::{self, SharedPublish};
use crate::mqtt::wire::{Decoder, Level, Packet, PropertyWriter, Publish, Qos, Role};

#[test]
fn every_sample_decodes_to_itself() {
    for level in LEVELS {
        for role in [Role::Server, Role::Client] {
            for packet in packets(level, role) {
                let mut bytes = BytesMut::new();
                encode::packet(level, &packet, &mut bytes);
                let mut decoder = Decoder::new(role, 1 << 20);
                decoder.set_level(level);
                assert_eq!(decoder.decode(&mut bytes), Ok(Some(packet)), "{level:?} to {role:?}");
                assert!(bytes.is_empty());
            }
        }
        for packet in connects(level) {
            let mut bytes = BytesMut::new();
            encode::packet(level, &packet, &mut bytes);
            let mut decoder = Decoder::new(Role::Server, 1 << 20);
            assert_eq!(decoder.decode(&mut bytes), Ok(Some(packet)));
            assert_eq!(decoder.level(), Some(level));
        }
    }
}

#[test]
fn w70_a_shared_frame_is_the_packet_encoded_alone() {
    let mut frames = 0;
    for level in LEVELS {
        for seed in 0..500 {
            let Packet::Publish(packet) = generate::packet(&mut Random::new(seed), level, Role::Client)
            else {
                continue;
            };
            let Publish { dup, qos, retain, topic, packet_id, properties, payload } = &packet;
            let shared = SharedPublish::new(level, *qos, *retain, topic, properties.bytes(), payload);
            assert_eq!(shared.needs_packet_id(), packet_id.is_some());
            // Behind other packets, and more than once.
            let mut out = BytesMut::from(&[0xD0, 0][..]);
            shared.write(*dup, *packet_id, &mut out);
            shared.write(*dup, *packet_id, &mut out);
            let alone = bytes(level, &Packet::Publish(packet.clone()));
            assert_eq!(shared.len(), alone.len());
            assert_eq!(out[2..], alone.repeat(2), "{level:?}, seed {seed}");
            frames += 1;
        }
    }
    assert!(frames > 300, "{frames} frames");
}

#[test]
fn w71_i8_what_is_shown_of_a_packet_hides_bodies_and_credentials() {
    let mut properties = PropertyWriter::new();
    properties
        .user("secret", "secret")
        .authentication_data(b"secret")
        .correlation_data(b"secret")
        .receive_maximum(7);
    let shown = format!("{properties:?}");
    assert!(!shown.contains("secret") && shown.contains("<12 bytes>") && shown.contains('7'), "{shown}");
    for level in LEVELS {
        for packet in connects(level).into_iter().chain(packets(level, Role::Client)) {
            let shown = format!("{packet:?}");
            // The will's payload, a PUBLISH's, a user property, the password as bytes and as numbers.
            for secret in ["gone", "payload\"", "seq_id", "\\xff", "255,"] {
                assert!(!shown.contains(secret), "{secret}: {shown}");
            }
        }
    }
    let payload = b"secret".as_slice().into();
    let shared = SharedPublish::new(Level::V5, Qos::AtMostOnce, false, "t", &[], &payload);
    assert!(!format!("{shared:?}").contains("secret"));
}
