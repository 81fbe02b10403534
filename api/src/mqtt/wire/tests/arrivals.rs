//! However bytes arrive, the same packets come out; and a packet that was cut short is not one.

use bytes::BytesMut;

use super::generate::{self, Random, bytes};
use super::given::{PACKET_BYTES_MAX, decoder};
use super::samples::{LEVELS, connects, packets};
use crate::mqtt::wire::{Decoder, Level, Packet, Role};

const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// Every packet of the samples with a decoder that is ready for it.
fn samples() -> Vec<(Level, Decoder, Packet)> {
    let mut all = Vec::new();
    for level in LEVELS {
        for role in ROLES {
            all.extend(packets(level, role).into_iter().map(|packet| (level, decoder(level, role), packet)));
        }
        let fresh = Decoder::new(Role::Server, PACKET_BYTES_MAX);
        all.extend(connects(level).into_iter().map(|packet| (level, fresh.clone(), packet)));
    }
    all
}

#[test]
fn w80_a_part_of_a_packet_waits_for_the_rest() {
    for (level, decoder, packet) in samples() {
        let whole = bytes(level, &packet);
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert_eq!(decoder.clone().decode(&mut buffer), Ok(None), "{cut} bytes of {packet:?}");
            assert_eq!(&buffer[..], &whole[..cut], "what arrived stays");
        }
    }
}

#[test]
fn w81_a_body_cut_anywhere_is_refused_or_another_packet() {
    for (level, decoder, packet) in samples() {
        let whole = bytes(level, &packet);
        if whole.len() > 129 {
            continue; // a remaining length of two bytes; the shorter samples show the same
        }
        for cut in 2..whole.len() {
            let mut part = whole[..cut].to_vec();
            part[1] = (cut - 2) as u8;
            let mut buffer = BytesMut::from(&part[..]);
            match decoder.clone().decode(&mut buffer) {
                // Where an end may stand earlier: a payload, what may be left out, one filter or code less.
                Ok(Some(other)) => {
                    assert_ne!(other, packet);
                    assert_eq!(bytes(level, &other).len().min(cut), bytes(level, &other).len());
                }
                Ok(None) => panic!("waits for more than was announced"),
                Err(error) => assert!((0x81..=0x9F).contains(&error.reason)),
            }
        }
    }
}

#[test]
fn w82_byte_by_byte_in_pieces_and_all_at_once() {
    for level in LEVELS {
        for role in ROLES {
            for seed in 0..50 {
                let mut r = Random::new(seed);
                let sent: Vec<_> = (0..20).map(|_| generate::packet(&mut r, level, role)).collect();
                let stream: Vec<u8> = sent.iter().flat_map(|packet| bytes(level, packet)).collect();
                for step in [1, 2, 3, 7, 64, stream.len()] {
                    let mut decoder = decoder(level, role);
                    let mut buffer = BytesMut::new();
                    let mut got = Vec::new();
                    for piece in stream.chunks(step) {
                        buffer.extend_from_slice(piece);
                        while let Some(packet) = decoder.decode(&mut buffer).expect("valid") {
                            got.push(packet);
                        }
                    }
                    assert_eq!(got, sent, "{level:?} to {role:?}, seed {seed}, {step} bytes at once");
                    assert!(buffer.is_empty());
                }
            }
        }
    }
}
