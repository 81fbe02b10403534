//! What clients of the message center say, and names of channels.

#![no_main]

use feedlog_api::connmix;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| connmix::fuzz_client(data));
