//! Frames between daemon and shim, and exit slots.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_shim_api::fuzzing::frame(data));
