//! What a server sends in MQTT 5.0.

#![no_main]

use feedlog_api::mqtt::wire::{Level, Role, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fuzz::decode(Role::Client, Some(Level::V5), data));
