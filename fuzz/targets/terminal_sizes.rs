//! Sizes of a client's terminal.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_streaming::fuzzing::sizes(data));
