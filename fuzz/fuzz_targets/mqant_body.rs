//! Bodies of mqant's methods and of a login.

#![no_main]

use feedlog_api::im;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| im::fuzz(data));
