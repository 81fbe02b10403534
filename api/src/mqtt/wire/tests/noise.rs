//! Bytes of no meaning, and valid ones with damage.

use super::generate::{self, Random, bytes, damage};
use super::given::{accepts, connect};
use super::samples::LEVELS;
use crate::mqtt::wire::{Level, Packet, Role, fuzz};

const ROLES: [Role; 2] = [Role::Server, Role::Client];

fn roles() -> impl Iterator<Item = (Level, Role)> {
    LEVELS.into_iter().flat_map(|level| ROLES.map(|role| (level, role)))
}

#[test]
fn w90_random_packets_decode_to_themselves_and_encode_to_the_same_bytes() {
    for (level, role) in roles() {
        for seed in 0..2_000 {
            let packet = generate::packet(&mut Random::new(seed), level, role);
            let sent = bytes(level, &packet);
            let got = accepts(level, role, &sent);
            assert_eq!(got, packet, "{level:?} to {role:?}, seed {seed}");
            assert_eq!(bytes(level, &got), sent);
        }
    }
    for level in LEVELS {
        for seed in 0..2_000 {
            let packet = generate::connect(&mut Random::new(seed), level);
            let sent = bytes(level, &packet);
            let got = Packet::Connect(Box::new(connect(&sent).expect("valid")));
            assert_eq!(got, packet, "{level:?}, seed {seed}");
            assert_eq!(bytes(level, &got), sent);
        }
    }
}

#[test]
fn w91_damaged_packets_never_panic_and_what_is_accepted_is_whole() {
    for (level, role) in roles() {
        for seed in 0..3_000 {
            let r = &mut Random::new(seed);
            let mut stream = bytes(level, &generate::packet(r, level, role));
            damage(r, &mut stream);
            stream.extend(bytes(level, &generate::packet(r, level, role)));
            fuzz::decode(role, Some(level), &stream);
        }
    }
    for level in LEVELS {
        for seed in 0..3_000 {
            let r = &mut Random::new(seed);
            let mut stream = bytes(level, &generate::connect(r, level));
            damage(r, &mut stream);
            fuzz::decode(Role::Server, None, &stream);
        }
    }
}

#[test]
fn w92_arbitrary_bytes_never_panic() {
    for (level, role) in roles() {
        for seed in 0..3_000 {
            let r = &mut Random::new(seed);
            let mut stream: Vec<u8> = (0..r.below(60)).map(|_| r.number() as u8).collect();
            fuzz::decode(role, None, &stream);
            fuzz::decode(role, Some(level), &stream);
            // As the body of every kind, where a random first byte would end it at once.
            let kind =
                r.pick(&[0x10, 0x20, 0x30, 0x32, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xE0, 0xF0]);
            let length = stream.len() as u8;
            stream.splice(0..0, [kind, length]);
            fuzz::decode(role, Some(level), &stream);
        }
    }
}

#[test]
fn w93_short_bodies_of_every_first_byte() {
    for (level, role) in roles() {
        for first in 0..=255_u8 {
            for body in 0..=u16::MAX {
                if body % 251 == 0 || body < 130 {
                    let [a, b] = body.to_be_bytes();
                    fuzz::decode(role, Some(level), &[first, 2, a, b]);
                }
            }
        }
    }
}
