//! A connection of MQTT from its first byte.

#![no_main]

use feedlog_api::mqtt::wire::{Role, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::decode(Role::Server, None, data));
