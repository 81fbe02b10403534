//! Frames of gotapi-ws, and payloads of other wires that are shown there.

#![no_main]

use feedlog_api::gws;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| gws::fuzz(data));
