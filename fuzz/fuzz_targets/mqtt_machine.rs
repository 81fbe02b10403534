//! The life of one connection: bytes, answers, deliveries and the time, in any order.

#![no_main]

use feedlog_api::mqtt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mqtt::fuzz(data));
