//! Where a topic of mqant leads.

#![no_main]

use feedlog_api::im;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| im::uri::fuzz(data));
