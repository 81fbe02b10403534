//! The bytes of a WebSocket client, in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| feedlog_api::fuzz_websocket(data));
