//! What is encoded decodes to the same.

use bytes::BytesMut;

use super::samples::{LEVELS, connects, packets};
use crate::mqtt::wire::{Decoder, Role, encode};

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
