//! What a client sends behind its CONNECT in MQTT 5.0.

#![no_main]

use feedlog_api::mqtt::wire::{Level, Role, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::decode(Role::Server, Some(Level::V5), data));
