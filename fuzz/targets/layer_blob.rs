//! Compressed layers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_snapshotter::fuzzing::blob(data));
