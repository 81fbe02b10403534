//! What back ends of the message center ask.

#![no_main]

use feedlog_api::connmix;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| connmix::fuzz_api(data));
