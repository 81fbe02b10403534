//! What a client sends behind its CONNECT in MQTT 3.1.1.

#![no_main]

use feedlog_api::mqtt::wire::{Level, Role, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::decode(Role::Server, Some(Level::V311), data));
