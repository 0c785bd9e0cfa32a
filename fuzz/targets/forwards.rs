//! Headers of port-forward's streams.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_streaming::fuzzing::forwards(data));
