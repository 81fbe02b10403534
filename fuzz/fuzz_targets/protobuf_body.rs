//! A body of the protobuf topics.

#![no_main]

use feedlog_api::pb;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pb::fuzz(data));
