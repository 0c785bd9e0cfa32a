//! Files of bbolt.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_bolt::fuzzing::bolt(data));
