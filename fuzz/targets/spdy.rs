//! Frames of clients that stream over SPDY.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_streaming::fuzzing::spdy(data));
